"""Measure the pipeline on this machine, print tables, and write docs/performance.md with its plots: `make bench`.

It takes 20 minutes, in which the machine should do nothing else.
"""

from __future__ import annotations

import platform
from pathlib import Path

import msgspec

from bench import complete_mode, live, load
from bench.clip import OUT
from bench.document import Measured, write_document
from pipeline.runtime.cores import available_cores

CAMERAS = (1, 4, 8)


def main() -> None:
    """Run all measurements one after the other, so that they do not compete for the machine."""
    cores = available_cores()
    machine = f"{_processor()}, {cores} cores, Python {platform.python_version()}"
    print(machine)
    complete = complete_mode.measure_complete_mode(cores)
    print(complete_mode.table(complete))
    runs = [live.measure_live(count, 1 if count == 1 else cores) for count in CAMERAS]
    print(live.table(runs))
    loads = [load.measure_load(offered, cores) for offered in load.OFFERED]
    print(load.table(loads))
    measured = Measured(machine=machine, cores=cores, complete=complete, live=runs, load=loads)
    (OUT / "bench.json").write_bytes(msgspec.json.encode(measured))
    write_document(measured)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


if __name__ == "__main__":
    main()
