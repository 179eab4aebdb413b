"""Label every frame of a file or folder: pictures in, JSON lines and labelled pictures or video out, in order.

Complete mode: a window of unfinished frames is kept in memory until each has its result. A frame is sent again only
when it came back because its pixels had gone or Redis had no room, when Redis lost its memory, or when results may have
been trimmed unread; never because time passed. A frame that cannot be labelled gets a line with its error.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import click
import msgspec

from pipeline.bus import messages
from pipeline.bus.connection import Redis
from pipeline.bus.keys import COMPLETE_PIXELS_MS, RESULTS_RETENTION_MS, ledger_key, newest_key
from pipeline.bus.leases import Lease
from pipeline.bus.messages import FILE_PREFIX, Frame, FrameResult
from pipeline.bus.results import ResultConsumer
from pipeline.bus.status import FILES_S, heartbeats
from pipeline.bus.writer import Writer
from pipeline.runtime.settings import Settings
from pipeline.runtime.worker_context import WorkerContext, worker_context
from pipeline.vision import jpeg
from producer.files.outputs import Line, Outputs, error_line, labelled_line
from producer.sources.source import Source, SourceFailed, SourceFrame

log = logging.getLogger(__name__)

WINDOW = 32  # frames read ahead of the oldest one that is not written yet
MAX_HELD_BYTES = 512_000_000  # ... or as many as fit into this
RENEW_S = 10.0  # how often the pixels of unfinished frames are kept alive
CHECK_S = 1.0  # how often Redis is asked whether it still is who it was
WORKERS_S = 1.5  # how long workers on a Redis of others may take to show themselves
START_WITH = {"detector": "`maskwatch detect`", "classifier": "`maskwatch classify`"}
SILENT_S = 5.0  # without any result for so long, it is worth a look who is there
NO_ROOM_S = 0.1  # pause before a frame that Redis had no room for is sent again


class NoWorkers(Exception):
    """Redis is there, but nobody detects or nobody classifies; says what to start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a run ended. interrupted: it was told to stop before the end."""

    frames: int
    faces: int
    masks: int
    errors: int
    seconds: float
    interrupted: bool


@dataclass(slots=True)
class Pending:
    """A picture that was read but is not written yet: its frame while it is labelled, its line afterwards."""

    picture: SourceFrame
    frame: Frame | None = None
    jpeg: bytes = b""
    line: Line | None = None

    @property
    def held_bytes(self) -> int:
        """Return about how much memory it holds."""
        return len(self.jpeg) + (self.picture.frame.nbytes if self.picture.frame is not None else 0)


def main(settings: Settings, source: Source, outputs: Outputs, *, own_workers: bool) -> Summary:
    """Label a whole source.

    Args:
        own_workers: the workers are this command's own and may still be starting.

    Raises:
        NoWorkers: nobody is there to label.
        redis.RedisError: Redis fails before the first frame; later it is waited for.
        BadOutput: what is written cannot be written.
        SourceFailed: the source broke off; what came before is written.
    """
    camera = FILE_PREFIX + secrets.token_hex(4)
    started = time.monotonic()
    with worker_context("camera", settings, camera=camera) as context:
        if not own_workers:
            check_workers(context)
        forget_old_runs(context)
        lease = Lease(context.client, camera, context.wait)
        lease.acquire()
        sender = Sender(context, lease.token, camera, settings.jpeg_quality, source, outputs)
        with _progress(source.total) as progress:
            while context.should_run() and not sender.done:
                with context.reconnecting():
                    progress(sender.step())
        with context.reconnecting():
            lease.release()
            context.client.expire(ledger_key(camera), int(FILES_S))
            context.client.delete(newest_key(camera))
    if sender.broke_off is not None:
        raise sender.broke_off
    return Summary(
        frames=outputs.frames,
        faces=outputs.faces,
        masks=outputs.masks,
        errors=outputs.errors,
        seconds=time.monotonic() - started,
        interrupted=not sender.done,
    )


class Sender:
    """Send a source's frames, take their results, and write them in order; `step()` until `done`."""

    def __init__(
        self, context: WorkerContext, token: bytes, camera: str, jpeg_quality: int, source: Source, outputs: Outputs
    ) -> None:
        self.done = False
        self._context = context
        self._camera = camera
        self._jpeg_quality = jpeg_quality
        self._pictures = iter(source)
        self._read_all = False
        self.broke_off: SourceFailed | None = None
        self._outputs = outputs
        self._writer = Writer(context.client, camera=camera, token=token, pixels_ms=COMPLETE_PIXELS_MS)
        self._follower = ResultConsumer(context.client)
        self._start = int(context.clock.now() * 1000)
        self._pending: dict[int, Pending] = {}
        self._to_send: collections.deque[int] = collections.deque()
        self._send_at = 0.0
        self._redis_id = _redis_id(context.client)
        self._checked_at = self._renewed_at = self._followed_at = self._came_at = time.monotonic()
        self._told_missing = False
        self._sent = False

    def step(self) -> int:
        """Go on by about one result; return how many frames were written.

        Raises:
            redis.RedisError: Redis failed; the next step goes on where this one was.
        """
        self._notice_lost_memory()
        while self._send() and self._has_room():
            self._read()
        self._renew()
        self._follow()
        written = self._write()
        self.done = self._read_all and not self._pending
        return written

    def _has_room(self) -> bool:
        held = sum(pending.held_bytes for pending in self._pending.values())
        return not self._read_all and len(self._pending) < WINDOW and held < MAX_HELD_BYTES

    def _read(self) -> None:
        self._context.watchdog.kick()
        try:
            picture = next(self._pictures, None)
        except SourceFailed as error:
            self.broke_off, picture = error, None
        if picture is None:
            self._read_all = True
            return
        pending = self._pending[picture.index] = Pending(picture)
        known = self._outputs.known_line(picture)
        if known is not None:
            pending.line = known
        elif picture.error is not None:
            pending.line = error_line(self._outputs.source, picture, picture.error)
        else:
            self._prepare(pending)
            self._to_send.append(picture.index)

    def _prepare(self, pending: Pending) -> None:
        picture = pending.picture
        if picture.jpeg is not None:
            pending.jpeg = picture.jpeg
        else:
            pending.jpeg = jpeg.encode_jpeg(cast(jpeg.Image, picture.frame), self._jpeg_quality)
        if not self._outputs.draws:
            pending.picture = msgspec.structs.replace(picture, frame=None, jpeg=None)
        frame_id = messages.frame_id(self._camera, self._start, picture.index)
        pending.frame = Frame(
            frame_id=frame_id,
            camera=self._camera,
            start=self._start,
            seq=picture.index,
            width=picture.width,
            height=picture.height,
            pixels_key=f"pixels:{frame_id}",
            captured_at=self._context.clock.now(),
            deadline_at=None,
        )

    def _send(self) -> bool:
        """Publish what is to be sent; False while Redis has no room."""
        while self._to_send:
            if time.monotonic() < self._send_at:
                return False
            pending = self._pending[self._to_send[0]]
            published = self._writer.publish(cast(Frame, pending.frame), pending.jpeg)
            if published in ("source_full", "memory"):
                self._send_at = time.monotonic() + NO_ROOM_S
                pending.frame = _again(cast(Frame, pending.frame))
                return False
            self._context.count("frames")
            self._sent = True
            self._to_send.popleft()
        return True

    def _follow(self) -> None:
        waiting = any(pending.line is None for pending in self._pending.values())
        results = self._follower.read() if waiting else []
        self._followed_at = time.monotonic()
        self._tell_missing_workers(waiting and not results)
        finished: list[Frame] = []
        for result in results:
            pending = self._pending.get(result.seq) if result.camera == self._camera else None
            if pending is None or pending.line is not None or pending.frame is None:
                continue
            this_attempt = (result.start, result.attempt) == (pending.frame.start, pending.frame.attempt)
            if this_attempt and self._take(pending, result):
                finished.append(pending.frame)
        if finished:
            self._writer.delete_pixels(finished)

    def _tell_missing_workers(self, nothing_came: bool) -> None:
        """Say it once when nothing comes because nobody detects or classifies."""
        now = time.monotonic()
        if not nothing_came:
            self._came_at, self._told_missing = now, False
        elif now - self._came_at > SILENT_S and not self._told_missing and (missing := missing_workers(self._context)):
            log.warning(
                "waiting for workers: no live %s at %s", " and no live ".join(missing), self._context.redis_location
            )
            self._told_missing = True

    def _take(self, pending: Pending, result: FrameResult) -> bool:
        """Take a frame's result; True when the frame is finished by it."""
        picture, source = pending.picture, self._outputs.source
        if result.outcome == "labelled":
            pending.line = labelled_line(source, picture, result)
        elif result.reason == "pixels_gone":
            self._send_again(pending)
        elif result.reason not in ("source_full", "memory"):  # those were known when it was published
            pending.line = error_line(source, picture, result.error or f"dropped: {result.reason}")
        return pending.line is not None

    def _send_again(self, pending: Pending) -> None:
        pending.frame = _again(cast(Frame, pending.frame))
        if pending.picture.index not in self._to_send:
            self._to_send.append(pending.picture.index)

    def _write(self) -> int:
        """Write the finished pictures at the front of the window."""
        written = 0
        for index in list(self._pending):
            pending = self._pending[index]
            if pending.line is None:
                break
            self._outputs.write(pending.picture, pending.jpeg, pending.line)
            self._context.watchdog.kick()
            del self._pending[index]
            written += 1
        return written

    def _renew(self) -> None:
        if time.monotonic() - self._renewed_at > RENEW_S:
            self._writer.renew_pixels(self._unfinished())
            self._renewed_at = time.monotonic()

    def _notice_lost_memory(self) -> None:
        """Send all unfinished frames again when Redis forgot them, or when results may have been trimmed unread."""
        now = time.monotonic()
        if now - self._checked_at > CHECK_S:
            redis_id = _redis_id(self._context.client)
            self._checked_at = now
            flushed = self._sent and not self._context.client.exists(ledger_key(self._camera))
            if redis_id != self._redis_id or flushed:
                log.warning("Redis has lost its memory, sending %d frames again", len(self._unfinished()))
                self._redis_id = redis_id
                self._context.clock.measure()
                self._all_again()
        if now - self._followed_at > 0.8 * RESULTS_RETENTION_MS / 1000:
            log.warning("results may have been missed while this process stood still, sending unfinished frames again")
            self._all_again()

    def _all_again(self) -> None:
        for pending in self._pending.values():
            if pending.frame is not None and pending.line is None:
                self._send_again(pending)

    def _unfinished(self) -> list[Frame]:
        return [p.frame for p in self._pending.values() if p.frame is not None and p.line is None]


def missing_workers(context: WorkerContext) -> list[str]:
    """Return the roles without which nothing is labelled and that nobody plays."""
    roles = {beat.role for beat in heartbeats(context.client)}
    return [role for role in ("detector", "classifier") if role not in roles]


def check_workers(context: WorkerContext) -> None:
    """Make sure that somebody detects and somebody classifies.

    Raises:
        NoWorkers: says which role is missing.
    """
    ends = time.monotonic() + WORKERS_S
    while True:
        missing = missing_workers(context)
        if not missing:
            return
        if time.monotonic() > ends or context.wait(0.1):
            starts = " and ".join(START_WITH[role] for role in missing)
            lacking = " and no live ".join(missing)
            raise NoWorkers(
                f"no live {lacking} at {context.redis_location}; start {starts} there, or leave out --redis"
            )


def forget_old_runs(context: WorkerContext) -> None:
    """Take finished runs off the list of cameras once they are no longer shown."""
    old = cast(list[bytes], context.client.zrangebyscore(messages.CAMERAS, "-inf", context.clock.now() - FILES_S))
    if files := [name for name in old if name.startswith(FILE_PREFIX.encode())]:
        context.client.zrem(messages.CAMERAS, *files)


def _again(frame: Frame) -> Frame:
    return msgspec.structs.replace(frame, attempt=frame.attempt + 1)


def _redis_id(client: Redis) -> str:
    return str(client.info("server")["run_id"])


@contextlib.contextmanager
def _progress(total: int | None) -> Iterator[Any]:
    """Show a bar on a terminal; yield what is called with the number of frames written."""
    if not sys.stderr.isatty():
        yield lambda _written: None
        return
    with click.progressbar(length=total or 0, label="labelling", file=sys.stderr, show_pos=True) as bar:
        yield bar.update
