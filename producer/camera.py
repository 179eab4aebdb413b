"""The live producer: one source in, its frames on the stream `frames` out, each within its deadline or not at all.

It publishes at most `fps` frames a second, each with the time of its capture. A source that fails is reopened for ever;
the log reports it once, the heartbeat as long as it lasts. While Redis is away, frames are lost. Exit status 0 when a
file has ended or the process was asked to stop, 1 when another process took the camera's name. SourceFailed (the source
can never be opened) and NameTaken are raised to the caller.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from dataclasses import dataclass, field
from typing import get_args

import redis

from pipeline.bus.keys import LIVE_PIXELS_MS
from pipeline.bus.leases import Lease, NameLost, NameTaken
from pipeline.bus.messages import Relabel
from pipeline.bus.shards import Shard
from pipeline.bus.writer import Published, Writer
from pipeline.runtime import metrics
from pipeline.runtime.memory import give_back_memory
from pipeline.runtime.settings import BadSettings, Settings
from pipeline.runtime.worker_context import WorkerContext, worker_context
from producer.feed import CapturedFrame, Feed
from producer.frames import frame_jpeg, frame_record
from producer.shared_images import SharedImages
from producer.sources.source import SourceFrame
from producer.sources.source_spec import SourceSpec

log = logging.getLogger(__name__)

FRAME_TIMEOUT_S = 0.2  # a stopping process notices within this time
SHARED_FRAMES = 8  # at 20 frames/s those of 0.4 s, which is more than a frame waits while workers keep up
MAX_SHARED_BYTES = 64_000_000
DEFAULT_RELABEL_S = 0.25
SKIP_LOG_PAUSE_S = 60.0  # pictures that are left out after a pause as long as this are logged again
UNANSWERED = "unanswered"  # the outcome of publishing when Redis did not answer


def main(settings: Settings, spec: SourceSpec) -> int:
    """Publish a source's frames until it ends or the process is asked to stop; return the exit status."""
    if settings.name is None or settings.redis_url is None:
        raise BadSettings("a camera needs a --name and a --redis")
    with worker_context("camera", settings, camera=settings.name) as context:
        context.state = "opening"
        _start_counters(settings.name)
        taken = _take_name(context, settings.name)
        if taken is None:
            return 0
        shard, lease, start = taken
        feed = Feed(
            lambda: spec.open(
                fps=settings.fps,
                seed=settings.seed,
                rtsp_transport=settings.rtsp_transport,
                hwaccel=settings.hwaccel,
            ),
            may_come_back=spec.may_come_back,
            loop=settings.loop,
        )
        publisher = FramePublisher(
            context=context,
            settings=settings,
            camera=settings.name,
            source_name=spec.name,
            lease=lease,
            shard=shard,
            writer=Writer(shard, camera=settings.name, token=lease.token, pixels_ms=LIVE_PIXELS_MS),
            start=start,
            images=SharedImages(slots=SHARED_FRAMES, max_bytes=MAX_SHARED_BYTES, enabled=settings.shared_memory),
        )
        status = publisher.publish_all(feed)
    if feed.has_hung_thread:  # it is inside a library and would crash while the interpreter shuts down
        logging.shutdown()
        os._exit(status)
    return status


class RateLimiter:
    """Allow at most `fps` frames a second, at fixed times that start again after a stall, without a burst."""

    def __init__(self, fps: float) -> None:
        self._period_s = 1 / fps
        self._due = float("-inf")

    def wait_s(self, now: float) -> float:
        """Return how long to wait before the next frame is taken. now: on the monotonic clock, as everywhere here."""
        return max(0.0, self._due - now)

    def count(self, now: float) -> None:
        """Count a frame that was taken."""
        self._due += self._period_s
        if self._due <= now:
            self._due = now + self._period_s


@dataclass(slots=True, kw_only=True)
class FramePublisher:
    """Publish a camera's frames under its name.

    source_name: the source, for the log. start: Unix milliseconds, part of every frame's ID. seq: of the next frame.
    redis_answered: whether the last call to Redis succeeded. bad_names: pictures that the log has reported.
    skipped_at: when the source last left pictures out, on the monotonic clock.
    """

    context: WorkerContext
    settings: Settings
    camera: str
    source_name: str
    lease: Lease
    shard: Shard
    writer: Writer
    start: int
    images: SharedImages
    seq: int = 0
    redis_answered: bool = True
    bad_names: set[str] = field(default_factory=set)
    skipped_at: float = float("-inf")

    def publish_all(self, feed: Feed) -> int:
        """Publish what the feed delivers until it ends or the process is asked to stop; return the exit status."""
        limiter = RateLimiter(self.settings.fps)
        try:
            while self.context.should_run() and not feed.ended:
                self._renew_name()
                self.images.erase_older_than(LIVE_PIXELS_MS / 1000)
                wait_s = limiter.wait_s(time.monotonic())
                if self.context.wait(min(wait_s, FRAME_TIMEOUT_S)) or wait_s > FRAME_TIMEOUT_S:
                    continue
                captured = feed.take(FRAME_TIMEOUT_S)
                self._report_state(feed.state)
                if captured is None:
                    continue
                limiter.count(time.monotonic())
                self._count_skipped(captured.skipped)
                if captured.source_frame.error:
                    self._report_bad_frame(captured.source_frame)
                else:
                    self._publish(captured)
        except NameLost as error:
            log.error("camera %s stops: %s now publishes under its name; choose another --name", self.camera, error)
            return 1
        finally:
            feed.close()
            self.images.close()
            if self.redis_answered:  # otherwise another call would only wait for its time-out
                self._release_name()
        return 0

    def _publish(self, captured: CapturedFrame) -> None:
        self.redis_answered = False
        with self.context.reconnecting(), self.context.busy():
            captured_at = self.shard.clock.now() - (time.monotonic() - captured.captured_s)
            relabel_s = DEFAULT_RELABEL_S if self.settings.relabel_s is None else self.settings.relabel_s
            image = captured.source_frame.image
            shared = self.images.put(image) if image is not None else None
            frame = frame_record(
                captured.source_frame,
                self.shard,
                self.camera,
                start=self.start,
                seq=self.seq,
                captured_at=captured_at,
                deadline_s=self.settings.deadline_s,
                shared=shared,
                relabel=Relabel(every_s=relabel_s, at_s=captured_at) if relabel_s else None,
            )
            jpeg = b""
            if shared is None or self.writer.needs_jpeg:
                jpeg = frame_jpeg(captured.source_frame, self.settings.jpeg_quality)
            begun = time.monotonic()
            published = self.writer.publish(frame, jpeg)
            if published == "published":
                self.lease.note_published(begun)
            metrics.published.labels(self.camera, published).inc()
            self.context.count("frames")
            self.redis_answered = True
        if not self.redis_answered:
            metrics.published.labels(self.camera, UNANSWERED).inc()
        self.seq += 1  # published or not: two frames never have the same number

    def _renew_name(self) -> None:
        """Keep the camera's name while nothing is published, or cannot be.

        Only publishing counts and logs failures: it may fail for a reason that a renewal does not meet.
        """
        if self.redis_answered and not self.lease.needs_renewal:
            return
        self.redis_answered = False
        with contextlib.suppress(redis.RedisError):
            self.lease.renew()
            self.redis_answered = True

    def _report_state(self, state: str) -> None:
        """Put the source's state into the heartbeat, and log it when it changes; a new reason alone is not logged."""
        if state.partition(":")[0] != self.context.state.partition(":")[0]:
            if state == "running":
                log.info("camera %s: %s delivers frames", self.camera, self.source_name)
                give_back_memory()  # of opening the source
            else:
                log.warning("camera %s: %s", self.camera, state)
                metrics.source_failures.labels(self.camera).inc()
        self.context.state = state

    def _report_bad_frame(self, source_frame: SourceFrame) -> None:
        metrics.bad_pictures.labels(self.camera).inc()
        if source_frame.name not in self.bad_names:
            self.bad_names.add(source_frame.name)
            log.warning("%s is left out: %s", source_frame.name, source_frame.error)

    def _count_skipped(self, count: int) -> None:
        """Count pictures that were not decoded; log it when it begins, and again after a minute without."""
        if not count:
            return
        metrics.skipped_pictures.labels(self.camera).inc(count)
        now = time.monotonic()
        if now - self.skipped_at > SKIP_LOG_PAUSE_S:
            log.warning("camera %s: pictures come faster than they are decoded; %d were left out", self.camera, count)
        self.skipped_at = now

    def _release_name(self) -> None:
        try:
            self.lease.release()
        except redis.RedisError:
            log.info("the camera's name could not be released; it is free again in 2 s")


def _start_counters(camera: str) -> None:
    """Export zeros from the start, so that a first failure shows as an increase."""
    for outcome in (*get_args(Published), UNANSWERED):
        metrics.published.labels(camera, outcome)
    metrics.source_failures.labels(camera)
    metrics.skipped_pictures.labels(camera)
    metrics.bad_pictures.labels(camera)


def _take_name(context: WorkerContext, camera: str) -> tuple[Shard, Lease, int] | None:
    """Take the camera's name; return its shard, the lease and Redis' time, Unix ms; None when asked to stop before."""
    while context.should_run():
        with context.reconnecting():
            shard = context.bus.shard_of(camera)
            lease = Lease(shard, camera, context.wait)
            try:
                lease.acquire()
            except NameTaken:
                if context.should_run():
                    raise
                return None
            return shard, lease, int(shard.clock.now() * 1000)
    return None
