"""Measure a live 720p camera at 20 frames per second: latency from capture to labelled, and dropped frames."""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from bench.clip import FPS, bench_clip
from pipeline.bus.clock import Clock
from pipeline.bus.connection import Redis, connect
from pipeline.bus.messages import FrameResult, decode
from pipeline.bus.shards import Bus
from pipeline.bus.status import read_ledgers
from pipeline.runtime.children import Children
from pipeline.runtime.embedded_server import embedded_server

CAMERA = "bench"
CLIP_SECONDS = 45
WARM_UP_S = 5.0
MEASURED_S = 30.0


def measure_live_latency() -> dict[str, Any]:
    """Run server, camera, one detector and one classifier as processes; return latencies and drops by reason."""
    source = bench_clip(CLIP_SECONDS)
    with running_camera(str(source)) as client:
        wait_for_labels(client)
        time.sleep(WARM_UP_S)
        before, start = read_ledgers(Bus(client), [CAMERA])[CAMERA], Clock(client).now()
        time.sleep(MEASURED_S)
        after = read_ledgers(Bus(client), [CAMERA])[CAMERA]
        latencies = sorted(_latencies_ms(client, start))
    return {
        "frames": after.produced - before.produced,
        "fps": round(len(latencies) / MEASURED_S, 1),
        "median_ms": round(statistics.median(latencies), 1),
        "p95_ms": round(latencies[int(0.95 * len(latencies))], 1),
        "most_ms": round(latencies[-1], 1),  # the key in results of earlier versions, too
        "dropped": dict(Counter(after.dropped) - Counter(before.dropped)),
    }


@contextmanager
def running_camera(source: str) -> Iterator[Redis]:
    """Run one camera and one worker of each kind on an embedded server; yield its client."""
    with embedded_server() as server, Children() as children:
        environment = {"MASKWATCH_REDIS_URL": server.url, "MASKWATCH_LOG_LEVEL": "warning"}
        children.start("detect", environment=environment)
        children.start("classify", environment=environment)
        children.start("camera", source, "--name", CAMERA, "--fps", str(FPS), environment=environment)
        server.wait()
        with connect(server.url) as client:
            yield client


def labelled_since(client: Redis, since: float) -> list[tuple[int, FrameResult]]:
    """Return the results of labelled frames that came since then, each with its time, Unix ms. since: Unix seconds."""
    key = Bus(client).shards[0].key("results")
    rows = cast(list[Any], client.xrange(key, min=f"{int(since * 1000)}-0"))
    found = [(int(id_.split(b"-")[0]), decode(FrameResult, fields[b"record"])) for id_, fields in rows]
    return [(at_ms, result) for at_ms, result in found if result.outcome == "labelled"]


def wait_for_labels(client: Redis) -> None:
    """Wait until a frame is labelled; exit with one line if none is within 30 s."""
    for _ in range(300):
        if read_ledgers(Bus(client), [CAMERA])[CAMERA].labelled:
            return
        time.sleep(0.1)
    sys.exit("bench: no frame was labelled within 30 s")


def _latencies_ms(client: Redis, since: float) -> list[float]:
    return [at_ms - 1000 * result.captured_at for at_ms, result in labelled_since(client, since)]
