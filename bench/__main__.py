"""Measure the pipeline on this machine, and write docs/performance.md with its plots: `make bench`.

    python -m bench [SECTION...]

All sections take an hour, in which the machine should do nothing else. With some of SECTIONS only these are measured
again; the page keeps what bench/out/bench.json has of the others.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from bench import batches, classifier_speed, classifiers, complete_mode, costs, live, load
from bench.clip import OUT
from bench.document import RESULTS, Measured, read_results, write_document
from models.classifier.card import DEFAULT_FOLDER
from pipeline.runtime.cores import available_cores

CAMERAS = (1, 4, 8)
CORES = available_cores()
# By name, as in Measured. One after the other, so that they do not compete for the machine.
SECTIONS: dict[str, Callable[[], Any]] = {
    "files": lambda: complete_mode.measure_complete_mode(CORES),
    "files_few_faces": lambda: complete_mode.measure_complete_mode(CORES, complete_mode.FACES),
    "live": lambda: [live.measure_live(count, 1 if count == 1 else CORES) for count in CAMERAS],
    "load": lambda: load.measure_loads(CORES),
    "classifiers": lambda: [classifiers.measure_classifiers(count) for count in classifiers.COUNTS],
    "batches": lambda: batches.measure_batches(CORES),
    "costs": costs.measure_costs,
    "models": lambda: {DEFAULT_FOLDER.name: classifier_speed.measure_speed(DEFAULT_FOLDER)},
}


def main(names: list[str]) -> None:
    """Measure sections, all if none is named, and write the page."""
    if unknown := [name for name in names if name not in SECTIONS]:
        sys.exit(f"bench: no section {unknown[0]!r}: choose among {', '.join(SECTIONS)}")
    OUT.mkdir(exist_ok=True)
    results = read_results() | {"machine": _machine(), "cores": CORES}
    for name in names or SECTIONS:
        print(f"measuring {name}", flush=True)
        results[name] = msgspec.to_builtins(SECTIONS[name]())
        RESULTS.write_bytes(msgspec.json.encode(results))
    if missing := [name for name in SECTIONS if name not in results]:
        sys.exit(f"bench: docs/performance.md is not written: {', '.join(missing)} not measured yet")
    write_document(msgspec.convert(results, Measured))


def _machine() -> str:
    return f"{_processor()}, {CORES} cores, Python {platform.python_version()}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


if __name__ == "__main__":
    main(sys.argv[1:])
