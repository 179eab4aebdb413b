"""GET /metrics of the viewer: its own metrics, and those of all processes together, read from Redis.

A reader must show the token; without a configured token only this machine may read. While Redis fails, only the
viewer's own metrics are returned, with maskwatch_redis_up 0. Cameras that were last seen a day ago are left out, and so
are runs of `maskwatch label`, whose names are never used again.
"""

from __future__ import annotations

import ipaddress
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import redis
from flask import Flask, Response, request
from prometheus_client import REGISTRY
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from pipeline.bus import messages, status
from pipeline.bus.cluster import run_on_primaries
from pipeline.bus.status import Camera, Status
from pipeline.runtime import metrics
from pipeline.runtime.metrics import RedisMetric
from pipeline.runtime.metrics_server import RejectionCounter, exposition, has_token
from pipeline.runtime.worker_context import WorkerContext

log = logging.getLogger(__name__)

CAMERA_RETENTION_S = 86_400.0  # a camera whose producer was last seen this long ago is left out
MAX_CAMERAS = 500  # those seen last

Samples = list[tuple[Sequence[str], float]]  # labels' values, and the value


def add_metrics(app: Flask, context: WorkerContext, token: str | None) -> None:
    """Add the route. token: what a reader must show; with None only this machine may read."""
    rejections = RejectionCounter()
    collector = _ViewerCollector(context)

    @app.get("/metrics")
    def metrics_page() -> Response:
        if token is None and not _is_local():
            rejections.note(request.remote_addr or "an unknown address")
            return _line("metrics are for this machine alone until MASKWATCH_METRICS_TOKEN is set", 403)
        if token is not None and not has_token(token, request.headers.get("Authorization")):
            rejections.note(request.remote_addr or "an unknown address")
            denial = _line("metrics need the token", 401)
            denial.headers["WWW-Authenticate"] = "Bearer"
            return denial
        content, content_type = exposition(collector, request.headers.get("Accept"))
        return Response(content, content_type=content_type, headers={"Cache-Control": "no-store"})


def metric_samples(found: Status, seen: Mapping[str, float], now: Callable[[str], float]) -> dict[RedisMetric, Samples]:
    """Return the samples of a status.

    Args:
        seen: when each camera's producer was last seen, on the clock of the node that holds the camera.
        now: the time on that clock, from a camera's name.
    """
    result: dict[RedisMetric, Samples] = {metric: [] for metric in metrics.REDIS_METRICS}
    for camera in _listed(found.cameras, seen, now):
        for metric, labels, value in _of_camera(camera, now(camera.name)):
            result[metric].append(((camera.name, *labels), value))
    for name, stream in found.streams.items():
        result[metrics.stream_length].append(((name,), stream.length))
        if name in status.WORK_STREAMS:
            result[metrics.stream_lag].append(((name,), stream.lag))
            result[metrics.stream_pending].append(((name,), stream.pending))
    alive = Counter((process.role, process.model or "") for process in found.processes)
    result[metrics.processes] = [(labels, count) for labels, count in sorted(alive.items())]
    return result


def _of_camera(camera: Camera, now: float) -> Iterator[tuple[RedisMetric, tuple[str, ...], float]]:
    ledger = camera.ledger
    yield metrics.produced, (), ledger.produced
    yield metrics.labelled, (), ledger.labelled
    for reason in messages.REASONS:
        yield metrics.dropped, (reason,), ledger.dropped.get(reason, 0)
    yield metrics.in_flight, (), ledger.in_flight
    yield metrics.camera_up, (camera.state,), camera.state == "live"
    if camera.newest_at is not None:
        yield metrics.camera_age_s, (), max(0.0, now - camera.newest_at)
    if camera.latency_ms is not None:
        yield metrics.camera_latency_s, (), camera.latency_ms / 1000


def _listed(cameras: Sequence[Camera], seen: Mapping[str, float], now: Callable[[str], float]) -> list[Camera]:
    """Return the cameras to report, at most MAX_CAMERAS of those seen within a day.

    A camera that has never delivered a frame is included: its producer is seen nevertheless.
    """
    last = sorted(cameras, key=lambda camera: seen.get(camera.name, 0.0), reverse=True)
    return [one for one in last[:MAX_CAMERAS] if now(one.name) - seen.get(one.name, 0.0) < CAMERA_RETENTION_S]


class _ViewerCollector(Collector):
    """The viewer's own metrics and those from Redis."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context

    def collect(self) -> Iterator[Metric]:
        """Return the present metrics; without those from Redis when it fails."""
        try:
            bus = self._context.bus
            found = status.read_status(bus)
            values = metric_samples(found, _seen(self._context), lambda camera: bus.shard_of(camera).clock.now())
            values |= _memory(self._context)
        except redis.RedisError as error:
            log.debug("metrics without those in Redis: %s", error)
            metrics.redis_up.set(0)
            values = {}
        yield from REGISTRY.collect()
        for metric, rows in values.items():
            family = metric.family()
            for labels, value in rows:
                family.add_metric(labels, value)
            yield family


def _seen(context: WorkerContext) -> dict[str, float]:
    """Return when each camera's producer was last seen."""
    rows: list[tuple[bytes, float]] = []
    for shard in context.bus.shards:
        rows += cast(Any, shard.client.zrange(shard.key("cameras"), 0, -1, withscores=True))
    return {name.decode(errors="replace"): at for name, at in rows}


def _memory(context: WorkerContext) -> dict[RedisMetric, Samples]:
    """Return how much memory Redis, or all primaries of a cluster, use; nothing where the user may not read it."""
    try:
        found = run_on_primaries(context.client, "INFO", "memory")
    except redis.ResponseError:
        return {}
    return {
        metrics.redis_bytes: [((), float(sum(one["used_memory"] for one in found)))],
        metrics.redis_limit_bytes: [((), float(sum(one.get("maxmemory", 0) for one in found)))],
    }


def _is_local() -> bool:
    """Return whether the request comes from this machine, and not through a proxy."""
    proxied = any(name in request.headers for name in ("X-Forwarded-For", "Forwarded", "X-Real-Ip"))
    try:
        return not proxied and ipaddress.ip_address(request.remote_addr or "").is_loopback
    except ValueError:
        return False


def _line(text: str, code: int) -> Response:
    return Response(text + "\n", code, mimetype="text/plain")
