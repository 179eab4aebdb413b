"""Compare the lines of a run of `label` with those of a quiet run. Pure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MAX_SHOWN = 3  # frames named in a sentence

Line = dict[str, Any]


def read_lines(path: Path) -> list[Line]:
    """Return the lines of a file without what differs from run to run."""
    return [without_latency(json.loads(line)) for line in path.read_bytes().splitlines()]


def count_lines(path: Path) -> int:
    """Return how many complete lines a file has; 0 when there is none."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def without_latency(line: Line) -> Line:
    """Return a line without its latency."""
    return {name: value for name, value in line.items() if name != "latency_ms"}


def compare_lines(quiet: list[Line], found: list[Line]) -> list[str]:
    """Return the promises that the lines break, as sentences; none when they are those of the quiet run."""
    expected, numbers = [line["frame"] for line in quiet], [line["frame"] for line in found]
    broken = []
    if missing := sorted(set(expected) - set(numbers)):
        broken.append(f"{len(missing)} frames have no line: {_shown(missing)}")
    if twice := sorted({number for number in numbers if numbers.count(number) > 1}):
        broken.append(f"{len(twice)} frames have several lines: {_shown(twice)}")
    if numbers != sorted(numbers):
        broken.append("the lines are not in the order of the frames")
    by_number = {line["frame"]: line for line in quiet}
    errors = {line["frame"]: str(line["error"]) for line in found if "error" in line}
    if errors:
        broken.append(f"{len(errors)} frames have an error: {_shown(list(errors))}, {next(iter(errors.values()))}")
    other = [line["frame"] for line in found if line["frame"] not in errors and line != by_number.get(line["frame"])]
    if other:
        broken.append(f"{len(other)} frames have other labels than in the quiet run: {_shown(other)}")
    return broken


def _shown(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:MAX_SHOWN]))
    return shown + (" .." if len(numbers) > MAX_SHOWN else "")
