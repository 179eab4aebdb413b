"""Compare complete mode with the plain loop: whole commands, alternately, on the same clip; the ratio of medians."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from msgspec import Struct

from bench.clip import OUT, bench_clip

SECONDS = 120
ROUNDS = 3


class CompleteModeSpeed(Struct, frozen=True, kw_only=True):
    """Frames per second of whole commands including start-up, medians of the rounds.

    ratio: pipeline to loop. loop_all_cores: the loop with a thread per core in each model.
    """

    frames: int
    faces: int
    pipeline_fps: float
    loop_fps: float
    loop_all_cores_fps: float
    ratio: float
    ratio_all_cores: float


def measure_complete_mode(cores: int) -> CompleteModeSpeed:
    """Run the commands alternately, for three rounds."""
    source, lines = bench_clip(SECONDS), OUT / "lines.jsonl"
    pipeline = [sys.executable, "-m", "maskwatch", "label", str(source), "--json", str(lines)]
    loop = [sys.executable, "-m", "bench.loop", str(source), str(lines)]
    commands = {"pipeline": pipeline, "loop": loop, "all": [*loop, str(cores)]}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            times[name].append(_seconds(command))
    frames = lines.read_bytes().count(b"\n")
    fps = {name: frames / statistics.median(seconds) for name, seconds in times.items()}
    return CompleteModeSpeed(
        frames=frames,
        faces=lines.read_bytes().count(b'"box"'),
        pipeline_fps=round(fps["pipeline"], 1),
        loop_fps=round(fps["loop"], 1),
        loop_all_cores_fps=round(fps["all"], 1),
        ratio=round(fps["pipeline"] / fps["loop"], 2),
        ratio_all_cores=round(fps["pipeline"] / fps["all"], 2),
    )


def _seconds(command: list[str]) -> float:
    before = time.monotonic()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return time.monotonic() - before
