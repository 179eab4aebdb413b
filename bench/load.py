"""Measure offered load against labelled frames: pretend cameras with real pictures, real workers, up to far too much.

The cameras repeat frames of the bench's clip that were decoded and shared before, so that they take little of the
cores.
"""

from __future__ import annotations

import statistics
import time

import msgspec

from bench.clip import bench_clip
from bench.live import CLIP_SECONDS, labelled_since, wait_for_labels
from bench.pretend import run_cameras, running
from pipeline.bus.clock import Clock
from pipeline.bus.connection import connect
from pipeline.bus.shards import Bus
from pipeline.bus.status import read_ledgers
from pipeline.runtime.children import Children
from pipeline.runtime.embedded_server import embedded_server

CAMERAS = 8
ROUNDS = 5  # in each of which all loads are measured in turn, since a machine's speed changes within a minute
ROUND_S = 6.0  # of each load in a round
OFFERED = (20.0, 40.0, 80.0, 120.0, 160.0, 240.0, 400.0)  # frames/s of all cameras
PICTURES = 100
WARM_UP_S, MEASURED_S = 6.0, 15.0


class LoadRun(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured at a load. offered, labelled: frames/s. p50_ms, p95_ms: from capture to labelled."""

    offered: float
    labelled: float
    p50_ms: float
    p95_ms: float


def measure_loads(workers: int) -> list[LoadRun]:
    """Measure all loads that are OFFERED, with so many workers of each kind; the medians of some rounds."""
    rounds = [[measure_load(offered, workers, seconds=ROUND_S) for offered in OFFERED] for _ in range(ROUNDS)]
    return [
        LoadRun(**{name: statistics.median(getattr(run, name) for run in runs) for name in LoadRun.__struct_fields__})
        for runs in zip(*rounds, strict=True)
    ]


def measure_load(offered: float, workers: int, *classify_flags: str, seconds: float = MEASURED_S) -> LoadRun:
    """Run CAMERAS cameras that offer so many frames/s together, and so many workers of each kind."""
    rates = {f"load-{number}": offered / CAMERAS for number in range(CAMERAS)}
    names, images = list(rates), (str(bench_clip(CLIP_SECONDS)), PICTURES)
    with embedded_server() as server, Children() as children:
        environment = {"MASKWATCH_REDIS_URL": server.url, "MASKWATCH_LOG_LEVEL": "warning"}
        for _ in range(workers):
            children.start("detect", environment=environment)
            children.start("classify", *classify_flags, environment=environment)
        server.wait()
        with connect(server.url) as client, running(run_cameras, server.url, rates, images=images):
            wait_for_labels(client, names)
            time.sleep(WARM_UP_S)
            before, start = read_ledgers(Bus(client), names), Clock(client).now()
            time.sleep(seconds)
            after = read_ledgers(Bus(client), names)
            ages_ms = [at_ms - 1000 * result.captured_at for at_ms, result in labelled_since(client, start)]
    produced = sum(after[name].produced - before[name].produced for name in names)
    quantiles = statistics.quantiles(ages_ms, n=20)
    return LoadRun(
        offered=produced / seconds,
        labelled=len(ages_ms) / seconds,
        p50_ms=quantiles[9],
        p95_ms=quantiles[18],
    )


def table(runs: list[LoadRun]) -> str:
    """Return the measurements as a Markdown table."""
    peak = max(run.labelled for run in runs)
    rows = ["| offered, frames/s | labelled, frames/s | of the peak | median | 95 % within |", "|---|---|---|---|---|"]
    for run in runs:
        rates = f"{run.offered:.0f} | {run.labelled:.1f} | {run.labelled / peak:.0%}"
        rows.append(f"| {rates} | {run.p50_ms:.0f} ms | {run.p95_ms:.0f} ms |")
    return "\n".join(rows)
