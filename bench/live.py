"""Measure live 720p cameras at 20 frames per second: latency from capture to labelled, drops, and CPU by process."""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import msgspec

from bench.clip import FPS, bench_clip
from bench.pretend import cpu_s
from pipeline.bus.clock import Clock
from pipeline.bus.connection import Redis, connect
from pipeline.bus.messages import FrameResult, decode
from pipeline.bus.shards import Bus
from pipeline.bus.status import read_heartbeats, read_ledgers
from pipeline.runtime.children import Children
from pipeline.runtime.embedded_server import embedded_server

CLIP_SECONDS = 45
WARM_UP_S = 5.0
MEASURED_S = 30.0


class LiveRun(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of some cameras.

    offered, labelled: frames/s of all cameras. share: of the frames, that were labelled. dropped: by reason.
    p50_ms, p95_ms, p99_ms: from capture to labelled. cpu_ms: of processor time a labelled frame, by role.
    redis_in, redis_out: bytes a labelled frame that Redis received and sent.
    """

    cameras: int
    offered: float
    labelled: float
    share: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    dropped: dict[str, int]
    cpu_ms: dict[str, float]
    redis_in: float
    redis_out: float


def measure_live(cameras: int, workers: int) -> LiveRun:
    """Run server, cameras, and so many workers of each kind as processes; return what was measured."""
    names = camera_names(cameras)
    with running_cameras(str(bench_clip(CLIP_SECONDS)), cameras, workers) as client:
        wait_for_labels(client, names)
        time.sleep(WARM_UP_S)
        bus = Bus(client)
        before, cpu_before, start = read_ledgers(bus, names), _cpu_by_role(client), Clock(client).now()
        bytes_before = client.info("stats")
        time.sleep(MEASURED_S)
        after, cpu_after, bytes_after = read_ledgers(bus, names), _cpu_by_role(client), client.info("stats")
        latencies = sorted(at_ms - 1000 * result.captured_at for at_ms, result in labelled_since(client, start))
    produced = sum(after[name].produced - before[name].produced for name in names)
    dropped: dict[str, int] = defaultdict(int)
    for name in names:
        for reason, count in after[name].dropped.items():
            dropped[reason] += count - before[name].dropped.get(reason, 0)
    labelled = sum(after[name].labelled - before[name].labelled for name in names)
    quantiles = statistics.quantiles(latencies, n=100)
    return LiveRun(
        cameras=cameras,
        offered=produced / MEASURED_S,
        labelled=labelled / MEASURED_S,
        share=labelled / max(1, produced),
        p50_ms=quantiles[49],
        p95_ms=quantiles[94],
        p99_ms=quantiles[98],
        dropped={reason: count for reason, count in dropped.items() if count},
        cpu_ms={role: 1000 * (cpu - cpu_before[role]) / max(1, labelled) for role, cpu in cpu_after.items()},
        redis_in=(bytes_after["total_net_input_bytes"] - bytes_before["total_net_input_bytes"]) / max(1, labelled),
        redis_out=(bytes_after["total_net_output_bytes"] - bytes_before["total_net_output_bytes"]) / max(1, labelled),
    )


def camera_names(count: int) -> list[str]:
    """Return the names of the cameras."""
    return [f"bench-{number}" for number in range(count)]


@contextmanager
def running_cameras(source: str, cameras: int = 1, workers: int = 1) -> Iterator[Redis]:
    """Run cameras with the same source, and workers of each kind, on an embedded server; yield its client."""
    with embedded_server() as server, Children() as children:
        environment = {"MASKWATCH_REDIS_URL": server.url, "MASKWATCH_LOG_LEVEL": "warning"}
        for _ in range(workers):
            children.start("detect", environment=environment)
            children.start("classify", environment=environment)
        for name in camera_names(cameras):
            children.start("camera", source, "--name", name, "--fps", str(FPS), environment=environment)
        server.wait()
        with connect(server.url) as client:
            yield client


def labelled_since(client: Redis, since: float) -> list[tuple[int, FrameResult]]:
    """Return the results of labelled frames that came since then, each with its time, Unix ms. since: Unix seconds."""
    key = Bus(client).shards[0].key("results")
    rows = cast(list[Any], client.xrange(key, min=f"{int(since * 1000)}-0"))
    found = [(int(id_.split(b"-")[0]), decode(FrameResult, fields[b"record"])) for id_, fields in rows]
    return [(at_ms, result) for at_ms, result in found if result.outcome == "labelled"]


def wait_for_labels(client: Redis, names: list[str]) -> None:
    """Wait until each camera has a labelled frame; exit with one line if one has none within 60 s."""
    for _ in range(600):
        if all(ledger.labelled for ledger in read_ledgers(Bus(client), names).values()):
            return
        time.sleep(0.1)
    sys.exit("bench: no frame was labelled within 60 s")


def _cpu_by_role(client: Redis) -> dict[str, float]:
    """Return the processor time of all processes so far, seconds, by role; "redis" is the server's."""
    found: dict[str, float] = defaultdict(float)
    for beat in read_heartbeats(client):
        found[beat.role] += cpu_s(beat.pid)
    memory = client.info("cpu")
    found["redis"] = memory["used_cpu_sys"] + memory["used_cpu_user"]
    return dict(found)


def cost_table(runs: list[LiveRun]) -> str:
    """Return what a labelled frame costs as a Markdown table."""
    roles = ("camera", "detector", "classifier", "redis")
    rows = [f"| cameras |{''.join(f' {role} |' for role in roles)} all | bytes to Redis | bytes from Redis |"]
    rows.append("|---|" + "---|" * (len(roles) + 3))
    for run in runs:
        costs = [run.cpu_ms.get(role, 0.0) for role in roles]
        cells = "".join(f" {cost:.1f} ms |" for cost in (*costs, sum(costs)))
        rows.append(f"| {run.cameras} |{cells} {run.redis_in:,.0f} | {run.redis_out:,.0f} |")
    return "\n".join(rows)


def table(runs: list[LiveRun]) -> str:
    """Return the measurements as a Markdown table."""
    rows = [
        "| cameras | offered, frames/s | labelled, frames/s | labelled | median | 95 % within | 99 % within | dropped |"
    ]
    rows.append("|---|---|---|---|---|---|---|---|")
    for run in runs:
        dropped = ", ".join(f"{count} {reason}" for reason, count in run.dropped.items()) or "nothing"
        rates = f"{run.offered:.1f} | {run.labelled:.1f} | {run.share:.1%}"
        times = " | ".join(f"{ms:.0f} ms" for ms in (run.p50_ms, run.p95_ms, run.p99_ms))
        rows.append(f"| {run.cameras} | {rates} | {times} | {dropped} |")
    return "\n".join(rows)
