"""The live producer: one source in, its frames on the stream `frames` out, fresh or not at all.

It publishes at most `fps` frames a second, each with the instant of its capture. A source that fails is tried again for
ever, said once in the log and all the time in the heartbeat; Redis away costs the frames made meanwhile. Exit status 0
when a file has ended or the process was asked to end, 1 when another process took the camera's name. SourceFailed (the
source can never be one) and NameTaken go to the caller, who says them in one line.
"""

from __future__ import annotations

import logging
import os
import time
from typing import get_args

import redis

from pipeline.bus.connection import hide_password
from pipeline.bus.keys import LIVE_PIXELS_MS
from pipeline.bus.leases import Lease
from pipeline.bus.messages import Frame, frame_id
from pipeline.bus.writer import NameLost, Published, Writer
from pipeline.runtime import metrics
from pipeline.runtime.settings import BadSettings, Settings
from pipeline.runtime.worker_context import WorkerContext, worker_context
from pipeline.vision.jpeg import encode_jpeg
from producer.feed import Feed, Taken
from producer.sources.open_source import MAY_COME_BACK, kind_of, open_source
from producer.sources.source import SourceFrame

log = logging.getLogger(__name__)

TAKE_S = 0.2  # a stopping process notices within this time
UNANSWERED = "unanswered"  # how publishing ended where Redis did not say


def main(settings: Settings, source_text: str) -> int:
    """Publish a source's frames until it ends or the process is asked to end; return the exit status.

    Raises:
        SourceFailed: the source can never be opened, or is a file that broke.
        NameTaken: a live process holds the camera's name.
    """
    if settings.name is None or settings.redis_url is None:
        raise BadSettings("a camera needs a --name and a --redis")
    may_come_back = kind_of(source_text) in MAY_COME_BACK
    with worker_context("camera", settings, camera=settings.name) as context:
        context.state = "opening"
        _begin_counting(settings.name)
        lease = Lease(context.client, settings.name, context.wait)
        start = _begin(context, lease)
        if start is None:
            return 0
        feed = Feed(
            lambda: open_source(source_text, fps=settings.fps, seed=settings.seed),
            may_come_back=may_come_back,
            loop=settings.loop,
        )
        status = _publish_all(context, settings, feed, lease, start=start, place=hide_password(source_text))
    if feed.left_behind:  # a thread inside a library, which would crash while the interpreter takes itself apart
        logging.shutdown()
        os._exit(status)
    return status


def _publish_all(
    context: WorkerContext, settings: Settings, feed: Feed, lease: Lease, *, start: int, place: str
) -> int:
    """Publish what the feed gives until it ends or the process is asked to end; return the exit status."""
    camera = settings.name or ""
    writer = Writer(context.client, camera=camera, token=lease.token, pixels_ms=LIVE_PIXELS_MS)
    pace = RateLimiter(settings.fps)
    bad_names: set[str] = set()
    seq = 0
    answered = True  # Redis did, when it was last asked
    try:
        while context.should_run() and not feed.ended:
            if context.wait(pace.wait_s(time.monotonic())):
                break
            taken = feed.take(TAKE_S)
            _tell_state(context, feed.state, place)
            if taken is None:
                continue
            pace.took(time.monotonic())
            if taken.picture.error:
                _tell_bad_picture(taken.picture, camera, bad_names)
                continue
            answered = False
            with context.reconnecting(), context.busy():
                frame = _frame(context, settings, start=start, seq=seq, taken=taken)
                published = writer.publish(frame, _jpeg(taken.picture, settings.jpeg_quality))
                metrics.published.labels(camera, published).inc()
                context.count("frames")
                answered = True
            if not answered:
                metrics.published.labels(camera, UNANSWERED).inc()
            seq += 1  # published or not: a number is never used for two frames
    except NameLost as error:
        log.error("camera %s ends: its name is published by %s now; choose another --name", camera, error)
        return 1
    finally:
        feed.close()
        if answered:  # else asking it once more would only take its time-out
            _release(lease)
    return 0


class RateLimiter:
    """Let at most `fps` frames a second through, on a fixed beat that starts anew after a stall, without a burst."""

    def __init__(self, fps: float) -> None:
        self._period_s = 1 / fps
        self._due = float("-inf")

    def wait_s(self, now: float) -> float:
        """Return how long to wait before the next frame is taken. now: on the monotonic clock, as everywhere here."""
        return max(0.0, self._due - now)

    def took(self, now: float) -> None:
        """Say that a frame was taken."""
        self._due += self._period_s
        if self._due <= now:
            self._due = now + self._period_s


def _begin_counting(camera: str) -> None:
    """Tell zeros from the beginning, so that a first failure shows as a rise."""
    for outcome in (*get_args(Published), UNANSWERED):
        metrics.published.labels(camera, outcome)
    metrics.source_failures.labels(camera)
    metrics.bad_pictures.labels(camera)


def _begin(context: WorkerContext, lease: Lease) -> int | None:
    """Take the name and return the start, Unix milliseconds on Redis' clock; None when asked to end before."""
    while context.should_run():
        with context.reconnecting():
            lease.acquire()
            return int(context.clock.now() * 1000)
    return None


def _frame(context: WorkerContext, settings: Settings, *, start: int, seq: int, taken: Taken) -> Frame:
    camera = settings.name or ""
    identity = frame_id(camera, start, seq)
    captured_at = context.clock.now() - (time.monotonic() - taken.captured_s)
    return Frame(
        frame_id=identity,
        camera=camera,
        start=start,
        seq=seq,
        width=taken.picture.width,
        height=taken.picture.height,
        pixels_key=f"pixels:{identity}",
        captured_at=captured_at,
        deadline_at=captured_at + settings.deadline_s,
    )


def _jpeg(picture: SourceFrame, quality: int) -> bytes:
    if picture.jpeg is not None:
        return picture.jpeg
    if picture.frame is None:
        raise ValueError(f"picture {picture.name} has neither a frame nor a JPEG")
    return encode_jpeg(picture.frame, quality)


def _tell_state(context: WorkerContext, state: str, place: str) -> None:
    """Put the source's state into the heartbeat, and say it in the log when it changes; the reasons alone may vary."""
    if state.partition(":")[0] != context.state.partition(":")[0]:
        if state == "running":
            log.info("camera %s: %s delivers pictures", context.camera, place)
        else:
            log.warning("camera %s: %s", context.camera, state)
            metrics.source_failures.labels(context.camera).inc()
    context.state = state


def _tell_bad_picture(picture: SourceFrame, camera: str, told: set[str]) -> None:
    metrics.bad_pictures.labels(camera).inc()
    if picture.name not in told:
        told.add(picture.name)
        log.warning("%s is left out: %s", picture.name, picture.error)


def _release(lease: Lease) -> None:
    try:
        lease.release()
    except redis.RedisError:
        log.info("the camera's name could not be given back; it is free again in 2 s")
