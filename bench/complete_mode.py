"""Compare complete mode with plain loops: whole commands, in turn, on the same clip; ratios of medians.

The loops run the same parts, with one thread and with a thread a core; and, if its file is there, a peer's detector
(peer_loop.py). The bound is what the cores could do if nothing but the parts cost time: cores times the frame rate of
the loop with one thread.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.clip import OUT, bench_clip

SECONDS = 120
ROUNDS = 5
RELABEL_S = 0.25
PEER = "peer: AIZOO, a thread a core"


def measure_complete_mode(cores: int, rounds: int = ROUNDS) -> dict[str, float]:
    """Run the commands in turn, several times; return the frames per second of each, medians, start-up included.

    Besides: "frames" and "faces" of the clip, and the "bound".
    """
    source, lines = bench_clip(SECONDS), OUT / "lines.jsonl"
    label = [sys.executable, "-m", "maskwatch", "label", str(source), "--json", str(lines)]
    loop = [sys.executable, "-m", "bench.loop", str(source), str(OUT / "loop.jsonl")]
    commands = {
        "maskwatch label": label,
        f"maskwatch label --relabel-s {RELABEL_S}": [*label, "--relabel-s", str(RELABEL_S)],
        "plain loop, one thread": loop,
        "plain loop, a thread a core": [*loop, str(cores)],
    }
    if (peer := peer_model()) is not None:
        peer_loop = [sys.executable, "-m", "bench.peer_loop", str(peer), str(source), str(OUT / "peer.jsonl")]
        commands[PEER] = [*peer_loop, str(cores)]
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            before = time.monotonic()
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
            times[name].append(time.monotonic() - before)
    frames = lines.read_bytes().count(b"\n")
    rates = {name: frames / statistics.median(seconds) for name, seconds in times.items()}
    bound = cores * rates["plain loop, one thread"]
    return {"frames": frames, "faces": lines.read_bytes().count(b'"box"'), **rates, "bound": bound}


def peer_model() -> Path | None:
    """Return the file of the peer's network; None if it is not there."""
    path = Path(os.environ.get("MASKWATCH_PEER", "../shared/peers/aizoo/face_mask_detection.tflite"))
    return path if path.exists() else None
