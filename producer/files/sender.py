"""Send the frames of a file or folder to the workers and write their results: the loop of complete mode.

A window of unfinished frames is kept in memory until each has its result. A frame is sent again only when its pixels
had expired, when Redis had no room, or when Redis no longer holds it and there is no result of it: it lost its memory,
or the result was trimmed before it was read. Never because of a time-out. A frame that Redis has no room for, while no
other frame of this run is in it, gets a line with its error.
"""

from __future__ import annotations

import collections
import logging
import time
from dataclasses import dataclass
from typing import cast

import msgspec

from pipeline.bus.keys import COMPLETE_PIXELS_MS
from pipeline.bus.messages import Frame, FrameResult, Relabel, SharedPixels
from pipeline.bus.result_consumer import MAX_RESULTS, ResultConsumer
from pipeline.bus.shards import Shard
from pipeline.bus.status import missing_workers
from pipeline.bus.writer import Writer
from pipeline.runtime.settings import Settings
from pipeline.runtime.worker_context import WorkerContext
from pipeline.vision.jpeg import encode_jpeg
from producer.files.kept_labels import KeptLabels, LabelGone
from producer.files.lines import JsonLine, error_line, labelled_line
from producer.files.outputs import Outputs
from producer.frames import frame_jpeg, frame_record
from producer.shared_images import SharedImages
from producer.sources.source import Source, SourceFailed, SourceFrame

log = logging.getLogger(__name__)

WINDOW = 32  # frames read ahead of the oldest one that is not written yet
MAX_SHARED_BYTES = 256_000_000  # of these, shared with workers
MAX_HELD_BYTES = 512_000_000  # memory for these frames; whichever limit is reached first counts
RENEW_INTERVAL_S = 10.0  # between renewals of the pixels of unfinished frames
CHECK_INTERVAL_S = 1.0  # between checks that Redis still holds the unfinished frames
NO_RESULT_TIMEOUT_S = 5.0  # without a result for this long, check whether there are workers
NO_ROOM_PAUSE_S = 0.1  # pause before a frame that Redis had no room for is sent again
NO_ROOM_TIMEOUT_S = 20.0  # without room for this long, while no frame of this run is in Redis, a frame is given up


@dataclass(slots=True)
class _Pending:
    """A frame that was read but is not written yet: its record while it is labelled, its line afterwards.

    jpeg: its pixels, b"" while they are only shared. shared: where they are.
    were_gone: a worker has once not found its pixels, or the crops of it.
    result: that has come, while labels of other frames are awaited which its faces keep.
    """

    source_frame: SourceFrame
    frame: Frame | None = None
    jpeg: bytes = b""
    shared: SharedPixels | None = None
    were_gone: bool = False
    result: FrameResult | None = None
    line: JsonLine | None = None

    @property
    def held_bytes(self) -> int:
        """About how much memory it holds."""
        return len(self.jpeg) + (self.source_frame.image.nbytes if self.source_frame.image is not None else 0)

    @property
    def unfinished(self) -> Frame | None:
        """The record, while its result is awaited."""
        return self.frame if self.line is None else None

    def next_attempt(self) -> None:
        """Make the record one to be sent again."""
        if self.frame is not None:
            self.frame = msgspec.structs.replace(self.frame, attempt=self.frame.attempt + 1)


class Sender:
    """Send a source's frames, read their results, and write them in order: call `step()` until `done`.

    source_error: why the source broke off; None when it did not.
    """

    def __init__(
        self,
        context: WorkerContext,
        shard: Shard,
        token: bytes,
        camera: str,
        settings: Settings,
        source: Source,
        outputs: Outputs,
    ) -> None:
        self.done = False
        self.source_error: SourceFailed | None = None
        self._context = context
        self._shard = shard
        self._camera = camera
        self._jpeg_quality = settings.jpeg_quality
        self._relabel_s = settings.relabel_s or 0.0
        self._source_frames = iter(source)
        self._read_all = False
        self._outputs = outputs
        self._writer = Writer(shard, camera=camera, token=token, pixels_ms=COMPLETE_PIXELS_MS)
        self._images = SharedImages(slots=WINDOW, max_bytes=MAX_SHARED_BYTES, enabled=settings.shared_memory)
        self._results = ResultConsumer([shard])
        self._kept_labels = KeptLabels()
        self._start = int(shard.clock.now() * 1000)
        self._window: dict[int, _Pending] = {}
        self._to_send: collections.deque[int] = collections.deque()
        self._send_at = 0.0
        self._no_room_since: float | None = None
        self._checked_at = self._renewed_at = self._result_at = time.monotonic()
        self._warned = False

    def step(self) -> int:
        """Make progress by about one result; return how many frames were written.

        Raises:
            redis.RedisError: Redis failed; the next step continues from here.
        """
        self._send_lost_again()
        while self._send() and self._has_room():
            self._read()
        self._renew_pixels()
        self._poll_results()
        written = self._write()
        self.done = self._read_all and not self._window
        return written

    def close(self) -> None:
        """Erase the pixels that are shared."""
        self._images.close()

    def _has_room(self) -> bool:
        held = sum(pending.held_bytes for pending in self._window.values())
        return not self._read_all and len(self._window) < WINDOW and held < MAX_HELD_BYTES

    def _read(self) -> None:
        self._context.watchdog.kick()
        captured_at = self._shard.clock.now()  # asks Redis; a frame that was read before it failed would be forgotten
        try:
            source_frame = next(self._source_frames, None)
        except SourceFailed as error:
            self.source_error, source_frame = error, None
        if source_frame is None:
            self._read_all = True
            return
        pending = self._window[source_frame.index] = _Pending(source_frame)
        pending.line = self._outputs.known_line(source_frame)
        if pending.line is None and source_frame.error is not None:
            pending.line = error_line(self._outputs.source, source_frame, source_frame.error)
        if pending.line is None:
            self._prepare(pending, captured_at)
            self._to_send.append(source_frame.index)

    def _prepare(self, pending: _Pending, captured_at: float) -> None:
        source_frame = pending.source_frame
        at_s = source_frame.at_s
        if source_frame.image is not None:
            pending.shared = self._images.put(source_frame.image, hold=True)
        if pending.shared is None:
            pending.jpeg = frame_jpeg(source_frame, self._jpeg_quality)
        if not self._outputs.draws:
            pending.source_frame = msgspec.structs.replace(source_frame, image=None, jpeg=None)
        pending.frame = frame_record(
            source_frame,
            self._shard,
            self._camera,
            start=self._start,
            seq=source_frame.index,
            captured_at=captured_at,
            deadline_s=None,
            shared=pending.shared,
            relabel=Relabel(every_s=self._relabel_s, at_s=at_s) if self._relabel_s and at_s is not None else None,
        )

    def _send(self) -> bool:
        """Publish the frames that are to be sent; return False while Redis has no room."""
        while self._to_send:
            if time.monotonic() < self._send_at:
                return False
            pending = self._window[self._to_send[0]]
            if self._writer.needs_jpeg:
                self._make_jpeg(pending)
            published = self._writer.publish(cast(Frame, pending.frame), pending.jpeg)
            if published in ("source_full", "memory"):
                self._send_at = time.monotonic() + NO_ROOM_PAUSE_S
                pending.next_attempt()
                if published == "memory":
                    self._give_up_without_room(pending)
                return False
            self._context.count("frames")
            self._no_room_since = None
            self._to_send.popleft()
        return True

    def _make_jpeg(self, pending: _Pending) -> None:
        """Encode a frame that is only shared."""
        if not pending.jpeg and pending.frame is not None and pending.shared is not None:
            image = self._images.image(pending.shared, pending.frame.height, pending.frame.width)
            pending.jpeg = encode_jpeg(image, self._jpeg_quality)

    def _give_up_without_room(self, pending: _Pending) -> None:
        """Give a frame up if waiting for room is hopeless: Redis has had none for long, and holds no frame of ours."""
        now = time.monotonic()
        if self._no_room_since is None:
            self._no_room_since = now
            log.warning("Redis has no room for the next frame (%d bytes); waiting for some", len(pending.jpeg))
        if now - self._no_room_since > NO_ROOM_TIMEOUT_S and not self._writer.standing():
            error = f"Redis has no room for its JPEG of {len(pending.jpeg)} bytes: raise its maxmemory"
            pending.line = error_line(self._outputs.source, pending.source_frame, error)
            self._to_send.popleft()
            self._no_room_since = None

    def _poll_results(self) -> None:
        waiting = any(pending.line is None for pending in self._window.values())
        results = self._results.read() if waiting else []
        self._warn_about_missing_workers(waiting and not results)
        self._apply_all(results)

    def _apply_all(self, results: list[FrameResult]) -> None:
        finished = [frame for result in results if (frame := self._apply(result))]
        finished += [frame for pending in self._window.values() if (frame := self._complete(pending))]
        ended = [self._window[frame.seq] for frame in finished]
        self._images.release(pending.shared for pending in ended if pending.shared is not None)
        if in_redis := [frame for frame, pending in zip(finished, ended, strict=True) if pending.jpeg]:
            self._writer.delete_pixels(in_redis)

    def _apply(self, result: FrameResult) -> Frame | None:
        """Apply a result to its frame; return the frame when it is finished."""
        pending = self._window.get(result.seq) if result.camera == self._camera else None
        frame = pending.unfinished if pending else None
        if pending is None or frame is None or (result.start, result.attempt) != (frame.start, frame.attempt):
            return None
        source, source_frame = self._outputs.source, pending.source_frame
        if result.outcome == "labelled":
            pending.result = result
            if self._relabel_s:
                self._kept_labels.add(result)
            return self._complete(pending)
        if result.reason == "pixels_gone":
            self._make_jpeg(pending)  # in case its worker was on another machine
            if pending.were_gone:
                pending.frame = msgspec.structs.replace(frame, shared=None)
            pending.were_gone = True  # crops that have expired are cut again from the same pixels, not from a JPEG
            self._send_again(pending)
        elif result.reason not in ("source_full", "memory"):  # those were known when it was published
            pending.line = error_line(source, source_frame, result.error or f"dropped: {result.reason}")
        return frame if pending.line is not None else None

    def _complete(self, pending: _Pending) -> Frame | None:
        """Complete the line of a frame whose result has come; return the frame, or None if there is nothing to do yet.

        If a label that one of its faces keeps will never come, it is sent again, and all its faces are classified.
        """
        frame, result = pending.unfinished, pending.result
        if frame is None or result is None:
            return None
        awaited = [self._window.get(seq) for seq in self._kept_labels.missing(result)]
        if any(other and other.unfinished and other.result is None for other in awaited):
            return None
        pending.result = None
        try:
            if awaited:
                raise LabelGone("its frame has no labels")
            complete = self._kept_labels.complete(result)
        except LabelGone:
            pending.frame = msgspec.structs.replace(frame, relabel=None)
            self._send_again(pending)
            return None
        pending.line = labelled_line(self._outputs.source, pending.source_frame, complete)
        return frame

    def _warn_about_missing_workers(self, nothing_came: bool) -> None:
        """Log once when no result comes because there is no detector or no classifier."""
        now = time.monotonic()
        if not nothing_came:
            self._result_at, self._warned = now, False
        elif now - self._result_at > NO_RESULT_TIMEOUT_S and not self._warned:
            if not (missing := missing_workers(self._context.client)):
                return
            roles = " and no live ".join(missing)
            log.warning("waiting for workers: no live %s at %s", roles, self._context.redis_location)
            self._warned = True

    def _send_again(self, pending: _Pending) -> None:
        pending.next_attempt()
        if pending.source_frame.index not in self._to_send:
            self._to_send.append(pending.source_frame.index)

    def _write(self) -> int:
        """Write the finished frames at the front of the window; return how many."""
        written = 0
        for index, pending in list(self._window.items()):
            if pending.line is None:
                break
            self._outputs.write(pending.source_frame, pending.jpeg, pending.line)
            self._context.watchdog.kick()
            del self._window[index]
            written += 1
        return written

    def _renew_pixels(self) -> None:
        if time.monotonic() - self._renewed_at > RENEW_INTERVAL_S:
            self._writer.renew(self._unfinished())
            self._renewed_at = time.monotonic()

    def _send_lost_again(self) -> None:
        """Send the frames again that Redis does not hold any more, and that have no result."""
        if time.monotonic() - self._checked_at < CHECK_INTERVAL_S:
            return
        standing = self._writer.standing()
        while results := self._results.read(block_ms=1):  # of frames that ended before
            self._apply_all(results)
            if len(results) < MAX_RESULTS:
                break
        self._checked_at = time.monotonic()
        lost = [
            pending
            for index, pending in self._window.items()
            if pending.unfinished
            and pending.result is None
            and pending.unfinished.frame_id not in standing
            and index not in self._to_send
        ]
        if lost:
            log.warning("Redis has lost %d frames or their results, sending them again", len(lost))
            for pending in lost:
                self._send_again(pending)

    def _unfinished(self) -> list[Frame]:
        return [frame for pending in self._window.values() if (frame := pending.unfinished)]
