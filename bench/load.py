"""Measure offered load against labelled frames: pretend cameras with real pictures, real workers, up to far too much.

The cameras repeat frames of the bench's clip that were decoded and shared before, so that they take little of the
cores.
"""

from __future__ import annotations

import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from bench.clip import bench_clip
from bench.live import CLIP_SECONDS, labelled_since, wait_for_labels
from bench.pretend import run_cameras, running
from pipeline.bus.clock import Clock
from pipeline.bus.connection import Redis, connect
from pipeline.bus.shards import Bus
from pipeline.bus.status import read_ledgers
from pipeline.runtime.children import Children
from pipeline.runtime.embedded_server import embedded_server

CAMERAS = 8
# In each of which all loads are measured, in another order: the speed of a machine that others use changes by a quarter
# within seconds. Medians of few long runs differed by a tenth.
ROUNDS = 20
ROUND_S = 2.0  # of each load in a round
OFFERED = (20.0, 40.0, 80.0, 120.0, 160.0, 240.0, 400.0, 480.0)  # frames/s of all cameras
PICTURES = 100
WARM_UP_S, MEASURED_S = 6.0, 15.0
SETTLE_S = 1.0  # after the load has changed


class LoadRun(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured at a load. offered, labelled: frames/s. p50_ms, p95_ms: from capture to labelled."""

    offered: float
    labelled: float
    p50_ms: float
    p95_ms: float


def measure_loads(workers: int) -> list[LoadRun]:
    """Measure all loads that are OFFERED, with so many workers of each kind; the medians of some rounds."""
    runs: dict[float, list[LoadRun]] = {offered: [] for offered in OFFERED}
    with _pipeline(workers) as measure:
        time.sleep(WARM_UP_S)
        for number in range(ROUNDS):
            for offered in random.Random(number).sample(OFFERED, len(OFFERED)):
                runs[offered].append(measure(offered, SETTLE_S, ROUND_S))
    return [
        LoadRun(**{name: statistics.median(getattr(run, name) for run in some) for name in LoadRun.__struct_fields__})
        for some in runs.values()
    ]


def measure_load(offered: float, workers: int, *classify_flags: str) -> LoadRun:
    """Measure one load, with so many workers of each kind."""
    with _pipeline(workers, *classify_flags) as measure:
        return measure(offered, WARM_UP_S, MEASURED_S)


@contextmanager
def _pipeline(workers: int, *classify_flags: str) -> Iterator[Callable[[float, float, float], LoadRun]]:
    """Run CAMERAS cameras and so many workers of each kind; yield what measures them.

    It gets the frames/s that the cameras offer together, how long it waits until it measures, and how long it measures,
    both in seconds.
    """
    rates = {f"load-{number}": 1.0 for number in range(CAMERAS)}
    factor = multiprocessing.get_context("spawn").Value("d", 1.0)
    names, images = list(rates), (str(bench_clip(CLIP_SECONDS)), PICTURES)
    with embedded_server() as server, Children() as children:
        environment = {"MASKWATCH_REDIS_URL": server.url, "MASKWATCH_LOG_LEVEL": "warning"}
        for _ in range(workers):
            children.start("detect", environment=environment)
            children.start("classify", *classify_flags, environment=environment)
        server.wait()
        with (
            connect(server.url) as client,
            running(run_cameras, server.url, rates, images=images, factor=factor),
        ):
            wait_for_labels(client, names)

            def measure(offered: float, settle_s: float, seconds: float) -> LoadRun:
                factor.value = offered / CAMERAS
                time.sleep(settle_s)
                return _measured(client, names, seconds)

            yield measure


def _measured(client: Redis, names: list[str], seconds: float) -> LoadRun:
    clock = Clock(client)
    before, start = _produced(client, names), clock.now()
    time.sleep(seconds)
    after, end = _produced(client, names), clock.now()
    ages_ms = [
        at_ms - 1000 * result.captured_at for at_ms, result in labelled_since(client, start) if at_ms < 1000 * end
    ]
    quantiles = statistics.quantiles(ages_ms, n=20)
    return LoadRun(
        offered=(after - before) / (end - start),
        labelled=len(ages_ms) / (end - start),
        p50_ms=quantiles[9],
        p95_ms=quantiles[18],
    )


def _produced(client: Redis, names: list[str]) -> int:
    return sum(ledger.produced for ledger in read_ledgers(Bus(client), names).values())


def table(runs: list[LoadRun]) -> str:
    """Return the measurements as a Markdown table."""
    peak = max(run.labelled for run in runs)
    rows = ["| offered, frames/s | labelled, frames/s | of the peak | median | 95 % within |", "|---|---|---|---|---|"]
    for run in runs:
        rates = f"{run.offered:.0f} | {run.labelled:.1f} | {run.labelled / peak:.0%}"
        rows.append(f"| {rates} | {run.p50_ms:.0f} ms | {run.p95_ms:.0f} ms |")
    return "\n".join(rows)
