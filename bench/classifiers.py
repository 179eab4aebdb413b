"""Measure what more classifiers bring: pretend cameras that offer too much, and classifiers that wait 40 ms a frame.

The queue, Redis and the processes are real; a detector that does not wait passes one face of each frame on.
"""

from __future__ import annotations

import contextlib
import time

import msgspec

from bench.live import wait_for_labels
from bench.pretend import Rates, run_cameras, run_classifiers, run_detectors, running
from pipeline.bus.connection import connect
from pipeline.bus.shards import Bus
from pipeline.bus.status import read_ledgers
from pipeline.runtime.embedded_server import embedded_server

COUNTS = (1, 2, 3)
CAMERAS: Rates = {f"many-{number}": 30.0 for number in range(8)}
CLASSIFY_S = 0.04
WARM_UP_S, MEASURED_S = 3.0, 20.0


class ClassifiersRun(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured with a number of classifiers. labelled: frames/s."""

    classifiers: int
    labelled: float


def measure_classifiers(count: int) -> ClassifiersRun:
    """Run that many classifiers, each a process of its own."""
    with embedded_server() as server, contextlib.ExitStack() as processes:
        server.wait()
        processes.enter_context(running(run_detectors, server.url, 1, 0.0))
        for _ in range(count):
            processes.enter_context(running(run_classifiers, server.url, 1, CLASSIFY_S))
        processes.enter_context(running(run_cameras, server.url, CAMERAS))
        with connect(server.url) as client:
            wait_for_labels(client, list(CAMERAS))
            time.sleep(WARM_UP_S)
            before, began = _labelled(Bus(client)), time.monotonic()
            time.sleep(MEASURED_S)
            labelled = _labelled(Bus(client)) - before
            return ClassifiersRun(classifiers=count, labelled=labelled / (time.monotonic() - began))


def table(runs: list[ClassifiersRun]) -> str:
    """Return the measurements as a Markdown table."""
    rows = ["| classifiers | labelled, frames/s | times the first |", "|---|---|---|"]
    rows += [f"| {run.classifiers} | {run.labelled:.1f} | {run.labelled / runs[0].labelled:.2f} |" for run in runs]
    return "\n".join(rows)


def _labelled(bus: Bus) -> int:
    return sum(ledger.labelled for ledger in read_ledgers(bus, list(CAMERAS)).values())
