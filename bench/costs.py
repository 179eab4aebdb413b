"""Measure complete mode against picture size and faces a frame: `label` and the plain loop with one thread, in turn."""

from __future__ import annotations

import subprocess
import sys
import time

import msgspec

from bench.clip import OUT, WIDTH, bench_clip

SECONDS = 40
WIDTHS = (640, 1280, 1920)
FACES = (1, 4, 8, 16)
DEFAULT_FACES = 4


class CostRun(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one clip. width: px. faces: found a frame. label, loop: frames/s of whole commands."""

    width: int
    faces: float
    label: float
    loop: float


def measure_costs() -> list[CostRun]:
    """Run both commands over clips of each size, and with each number of faces."""
    clips = [(width, DEFAULT_FACES) for width in WIDTHS] + [(WIDTH, faces) for faces in FACES if faces != DEFAULT_FACES]
    return [_measured(width, faces) for width, faces in clips]


def _measured(width: int, faces: int) -> CostRun:
    source, lines = str(bench_clip(SECONDS, width=width, faces=faces)), OUT / "cost.jsonl"
    label_s = _seconds("maskwatch", "label", source, "--json", str(lines))
    written = lines.read_bytes()
    frames = written.count(b"\n")
    loop_s = _seconds("bench.loop", source, str(OUT / "cost-loop.jsonl"))
    found = written.count(b'"box"') / frames
    return CostRun(width=width, faces=found, label=frames / label_s, loop=frames / loop_s)


def table(runs: list[CostRun]) -> str:
    """Return the measurements as a Markdown table."""
    rows = ["| picture | faces found a frame | `label`, frames/s | plain loop, one thread |", "|---|---|---|---|"]
    rows += [
        f"| {run.width}x{run.width * 9 // 16} | {run.faces:.1f} | {run.label:.1f} | {run.loop:.1f} |"
        for run in sorted(runs, key=lambda run: (run.width, run.faces))
    ]
    return "\n".join(rows)


def _seconds(*command: str) -> float:
    before = time.monotonic()
    subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - before
