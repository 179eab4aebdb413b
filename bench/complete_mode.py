"""Compare complete mode with the plain loop: whole commands, alternately, on the same clip; the ratio of medians."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from bench.clip import OUT, bench_clip

SECONDS = 120
ROUNDS = 3


def measure_complete_mode(cores: int) -> dict[str, float]:
    """Run the commands alternately, for three rounds; return frames, faces, frames per second and their ratios.

    The rates are medians of the rounds, of whole commands including start-up.
    """
    source, lines = bench_clip(SECONDS), OUT / "lines.jsonl"
    loop = [sys.executable, "-m", "bench.loop", str(source), str(lines)]
    commands = {
        "pipeline": [sys.executable, "-m", "maskwatch", "label", str(source), "--json", str(lines)],
        "loop": loop,
        "loop_all_cores": [*loop, str(cores)],  # a thread per core in each model
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            before = time.monotonic()
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
            times[name].append(time.monotonic() - before)
    frames = lines.read_bytes().count(b"\n")
    fps = {name: frames / statistics.median(seconds) for name, seconds in times.items()}
    return {
        "frames": frames,
        "faces": lines.read_bytes().count(b'"box"'),
        **{f"{name}_fps": round(rate, 1) for name, rate in fps.items()},
        "ratio": round(fps["pipeline"] / fps["loop"], 2),
        "ratio_all_cores": round(fps["pipeline"] / fps["loop_all_cores"], 2),
    }
