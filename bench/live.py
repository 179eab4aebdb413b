"""One live 720p camera at 20 frames a second: how long from capture to labelled, and what is dropped."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from msgspec import Struct

from bench.clip import FPS, clip
from pipeline.bus import messages
from pipeline.bus.clock import Clock
from pipeline.bus.connection import Redis, connect
from pipeline.bus.messages import FrameResult, decode
from pipeline.bus.status import Ledger, read_ledgers
from pipeline.runtime.children import Children
from pipeline.runtime.embedded_server import embedded_server

CAMERA = "bench"
CLIP_SECONDS = 45
WARM_UP_S = 5.0
MEASURED_S = 30.0


class Live(Struct, frozen=True, kw_only=True):
    """Capture to labelled, in milliseconds, over the measured time; and every frame's end over the whole run."""

    frames: int
    fps: float
    median_ms: float
    p95_ms: float
    most_ms: float
    dropped: dict[str, int]


def measure() -> Live:
    """Run server, camera, one detector and one classifier as processes, and follow the results."""
    source = clip(CLIP_SECONDS)
    with running_camera(str(source)) as client:
        _wait_for_labels(client)
        time.sleep(WARM_UP_S)
        before, start = read_ledgers(client, [CAMERA])[CAMERA], Clock(client).now()
        time.sleep(MEASURED_S)
        after = read_ledgers(client, [CAMERA])[CAMERA]
        latencies = sorted(_latencies_ms(client, start))
    return Live(
        frames=after.produced - before.produced,
        fps=round(len(latencies) / MEASURED_S, 1),
        median_ms=round(statistics.median(latencies), 1),
        p95_ms=round(latencies[int(0.95 * len(latencies))], 1),
        most_ms=round(latencies[-1], 1),
        dropped=_difference(after, before),
    )


@contextmanager
def running_camera(source: str) -> Iterator[Redis]:
    """Run one camera with one worker of each kind on an embedded server; yield its client."""
    with embedded_server() as server, Children() as children:
        common = ["--redis", server.url, "--log-level", "warning"]
        children.start("detect", *common)
        children.start("classify", *common)
        children.start("camera", source, "--name", CAMERA, "--fps", str(FPS), *common)
        server.wait()
        client = connect(server.url)
        yield client
        client.close()


def _wait_for_labels(client: Redis) -> None:
    for _ in range(300):
        if read_ledgers(client, [CAMERA])[CAMERA].labelled:
            return
        time.sleep(0.1)
    sys.exit("bench: no frame was labelled within 30 s")


def _latencies_ms(client: Redis, since: float) -> list[float]:
    found = []
    for id_, fields in cast(list[Any], client.xrange(messages.RESULTS, min=f"{int(since * 1000)}-0")):
        result = decode(FrameResult, fields[b"record"])
        if result.outcome == "labelled":
            found.append(int(id_.split(b"-")[0]) - 1000 * result.captured_at)
    return found


def _difference(after: Ledger, before: Ledger) -> dict[str, int]:
    return {
        reason: n - before.dropped.get(reason, 0)
        for reason, n in after.dropped.items()
        if n > before.dropped.get(reason, 0)
    }
