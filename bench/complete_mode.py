"""Compare complete mode with plain loops: whole commands, in turn, on the same clip; medians.

The loops run the same parts, with one thread and with a thread a core; and, if its file is there, a peer's detector
(peer_loop.py), of which only the loop itself is timed. MASKWATCH_PEER names that file.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from bench.clip import OUT, bench_clip

SECONDS = 120
FACES = 4  # about, in the second clip
ROUNDS = 5
LABEL = "maskwatch label"
RELABEL = "with --relabel-s 0.25"
LOOP = "plain loop, one thread"
LOOP_ALL_CORES = "plain loop, a thread a core"
PEER = "peer's loop, a thread a core"


class CompleteRun(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured. rates: frames/s of each command. faces, peer_faces: found in all frames.

    same_lines: whether `label` and the loop found the same faces with the same labels.
    """

    frames: int
    faces: int
    peer_faces: int
    rounds: int
    rates: dict[str, float]
    same_lines: bool


def measure_complete_mode(cores: int, faces: int | None = None, rounds: int = ROUNDS) -> CompleteRun:
    """Run the commands in turn, several times. faces: a frame, about; None for any photographs."""
    source, lines, loop_lines, peer_lines = (
        bench_clip(SECONDS, faces=faces),
        OUT / "lines.jsonl",
        OUT / "loop.jsonl",
        OUT / "peer.jsonl",
    )
    label = [sys.executable, "-m", "maskwatch", "label", str(source), "--json"]
    loop = [sys.executable, "-m", "bench.loop", str(source), str(loop_lines)]
    commands = {
        LABEL: [*label, str(lines)],
        RELABEL: [*label, str(OUT / "relabel.jsonl"), "--relabel-s", "0.25"],
        LOOP: loop,
        LOOP_ALL_CORES: [*loop, str(cores)],
    }
    if (peer := peer_model()) is not None:
        commands[PEER] = [sys.executable, "-m", "bench.peer_loop", str(peer), str(source), str(peer_lines), str(cores)]
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            before = time.monotonic()
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            times[name].append(float(done.stdout) if name == PEER else time.monotonic() - before)
    frames = lines.read_bytes().count(b"\n")
    return CompleteRun(
        frames=frames,
        faces=lines.read_bytes().count(b'"box"'),
        peer_faces=peer_lines.read_bytes().count(b'"box"') if PEER in commands else 0,
        rounds=rounds,
        rates={name: frames / statistics.median(seconds) for name, seconds in times.items()},
        same_lines=list(_faces_in(lines)) == list(_faces_in(loop_lines)),
    )


def table(run: CompleteRun) -> str:
    """Return the measurements as a Markdown table."""
    others = [name for name in run.rates if name not in (LABEL, RELABEL)]
    rows = ["| command | frames/s | `label` is | with `--relabel-s 0.25` |", "|---|---|---|---|"]
    rows += [f"| {name} | {run.rates[name]:.1f} | | |" for name in (LABEL, RELABEL)]
    for name in others:
        rate = run.rates[name]
        ratios = [f"{run.rates[ours] / rate:.2f} times as fast" for ours in (LABEL, RELABEL)]
        rows.append(f"| {name} | {rate:.1f} | {ratios[0]} | {ratios[1]} |")
    return "\n".join(rows)


def peer_model() -> Path | None:
    """Return the file of the peer's network; None if it is not there."""
    path = Path(os.environ.get("MASKWATCH_PEER", "../shared/peers/aizoo/face_mask_detection.tflite"))
    return path if path.exists() else None


def _faces_in(lines: Path) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the faces of each frame: box, rounded as in the lines of `label`, label and confidence."""
    for line in lines.read_bytes().splitlines():
        yield [
            (*(round(side, 2) for side in face["box"]), face["label"], round(face["confidence"], 4))
            for face in msgspec.json.decode(line)["faces"]
        ]
