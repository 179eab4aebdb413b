"""Read `results` and pass the frames of each camera, in order and each with its own labels, to the audience.

In: results, and pixels from Redis: only those of watched cameras, in one call a round, by the key in the result itself.
Their producers are asked to send them, as JPEG.
Out: a DisplayFrame of each watched camera. A camera without labelled results is displayed by its newest frame, without
boxes. While Redis cannot be reached, nothing is displayed; the loop continues as soon as it answers.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from pipeline.bus.messages import FILE_PREFIX, PIXELS_PATTERN, FrameResult, frame_id
from pipeline.bus.pixel_reader import fetch_many_pixels
from pipeline.bus.result_consumer import FOLLOW_INTERVAL_S, READ_BLOCK_MS, ResultConsumer
from pipeline.runtime.worker_context import WorkerContext
from pipeline.vision.jpeg import BadImage, jpeg_size
from pipeline.vision.tracks import FaceTracker, TrackedFace
from viewer.audience import Audience, DisplayFrame
from viewer.joiner import Joiner

NEWEST_POLL_INTERVAL_S = 0.1  # how often the newest frames of cameras without labels are read
IDLE_INTERVAL_S = 0.1  # between two reads of results while nobody waits for any
ASK_INTERVAL_S = 1.0  # how often the producers of watched cameras are asked for JPEGs
ASK_MS = 3_000  # how long that holds
SNAPSHOT_TIMEOUT_S = 1.0  # how long a snapshot waits at least for the JPEG of a camera that nobody watched
MAX_GAP_S = 10.0  # between two frames of a slow camera
VIEW_RETENTION_S = 60.0  # a camera without results and without viewers is removed after this long


@dataclass(slots=True)
class _View:
    """The state of one displayed camera. gap_s: between its last two labelled frames; 0 if longer than MAX_GAP_S."""

    joiner: Joiner
    used_at_s: float
    gap_s: float = 0.0
    tracks: FaceTracker = field(default_factory=FaceTracker)
    start: int = -1  # of the producer whose faces are tracked


@dataclass(frozen=True, slots=True)
class _SelectedFrame:
    """A frame to display, without its pixels. start: when its producer started."""

    camera: str
    start: int
    seq: int
    captured_at: float
    pixels_key: str
    faces: tuple[TrackedFace, ...]
    labelled: bool


class LiveView:
    """All displayed cameras. One thread runs `follow`; others may call `newest_labelled`.

    settle: takes all results, those of files too, which are not displayed. is_awaited: whether one is waited for.
    """

    def __init__(
        self,
        context: WorkerContext,
        audience: Audience,
        settle: Callable[[FrameResult], None] = lambda _: None,
        is_awaited: Callable[[], bool] = lambda: False,
    ) -> None:
        self._context = context
        self._settle = settle
        self._is_awaited = is_awaited
        self.audience = audience
        self._views: dict[str, _View] = {}
        self._newest_labelled: dict[str, _SelectedFrame] = {}
        self._poll_at_s = 0.0  # when newest frames are read again
        self._asked_at_s: dict[str, float] = {}

    def follow(self) -> None:
        """Display frames until the process should end."""
        consumer: ResultConsumer | None = None
        while self._context.should_run():
            with self._context.reconnecting():
                shards = self._context.bus.shards
                if consumer is None or consumer.shards is not shards:
                    if consumer is not None:
                        consumer.close()
                    consumer = ResultConsumer(shards)
                is_needed = bool(self.audience.watched()) or self._is_awaited()
                consumer.set_interval(FOLLOW_INTERVAL_S if is_needed else IDLE_INTERVAL_S)
                self._ask_for_jpegs()
                results = consumer.read(self._block_ms())
                with self._context.busy():
                    for result in results:
                        self._add(result)
                    self._show(self._selected())

    def newest_labelled(self, camera: str) -> DisplayFrame | None:
        """Return the newest labelled frame of a camera, None when there is none or its pixels have expired.

        Raises:
            redis.RedisError: Redis failed.
        """
        selected = self._newest_labelled.get(camera)
        if selected is None:
            return None
        return self._with_pixels([selected])[0] or self._next_shown(selected)

    def gap_s(self, camera: str) -> float:
        """Return the time between the last two labelled frames of a camera, 0.0 if it is not known."""
        view = self._views.get(camera)
        return view.gap_s if view else 0.0

    def _next_shown(self, newest: _SelectedFrame) -> DisplayFrame | None:
        """Watch a camera until it shows a labelled frame: nobody may have needed its JPEGs before.

        A slow camera gets the time until its next frame is late; one that sends none any more is not waited for.
        """
        camera = newest.camera
        late_at = newest.captured_at + 1.5 * self.gap_s(camera)
        timeout_s = max(SNAPSHOT_TIMEOUT_S, late_at - self._context.bus.shard_of(camera).clock.now())
        stream, ends_s = self.audience.open(camera), time.monotonic() + timeout_s
        try:
            while (left_s := ends_s - time.monotonic()) > 0:
                frame = stream.take(left_s)
                if frame is not None and frame.labelled:
                    return frame
        finally:
            self.audience.close(stream)
        return None

    def _ask_for_jpegs(self) -> None:
        """Ask the producers of watched cameras for JPEGs, which those of this machine make only then."""
        now, watched = time.monotonic(), self.audience.watched()
        self._asked_at_s = {camera: at_s for camera, at_s in self._asked_at_s.items() if camera in watched}
        due = [one for one in watched if now - self._asked_at_s.get(one, float("-inf")) >= ASK_INTERVAL_S]
        if not due:
            return
        with self._context.client.pipeline(transaction=False) as pipe:
            for camera in due:
                pipe.set(self._context.bus.shard_of(camera).key("watched", camera), 1, px=ASK_MS)
            answers = pipe.execute(raise_on_error=False)
        failed = [answer for answer in answers if isinstance(answer, Exception)]
        if len(failed) == len(due):  # otherwise a node of a cluster is away, and its cameras with it
            raise failed[0]
        self._asked_at_s |= dict.fromkeys(due, now)

    def _block_ms(self) -> int:
        """Return how long to wait for results: until the next frame is due, never 0 (for ever in Redis)."""
        now = time.monotonic()
        waits_s = [due - now for view in self._views.values() if (due := view.joiner.due_s()) is not None]
        if self._without_labels(now):
            waits_s.append(self._poll_at_s - now)
        return max(1, min(READ_BLOCK_MS, round(1000 * min(waits_s, default=1.0))))

    def _add(self, result: FrameResult) -> None:
        self._settle(result)
        if result.camera.startswith(FILE_PREFIX):
            return
        if math.isfinite(result.captured_at):  # JSON has no other numbers
            self._view(result.camera).joiner.add(result, time.monotonic())

    def _view(self, camera: str) -> _View:
        now = time.monotonic()
        view = self._views.get(camera)
        if view is None:
            for name in [name for name, old in self._views.items() if now - old.used_at_s > VIEW_RETENTION_S]:
                del self._views[name]
                self._newest_labelled.pop(name, None)
            view = self._views[camera] = _View(Joiner(now), now)
        view.used_at_s = now
        return view

    def _selected(self) -> list[_SelectedFrame]:
        """Return the newest frame to display now of each watched camera that has one."""
        now = time.monotonic()
        watched = self.audience.watched()
        selected = {camera: labelled for camera in list(self._views) if (labelled := self._next_labelled(camera, now))}
        if now >= self._poll_at_s:
            self._poll_at_s = now + NEWEST_POLL_INTERVAL_S
            selected |= self._unlabelled([one for one in self._without_labels(now) if one not in selected], now)
        return [one for camera, one in selected.items() if camera in watched]

    def _next_labelled(self, camera: str, now_s: float) -> _SelectedFrame | None:
        """Return the newest labelled frame that is due, or None; the tracks are updated with all that are due."""
        view, newest = self._views[camera], None
        for result in view.joiner.take(now_s):
            if result.start != view.start:
                view.tracks = FaceTracker()  # its numbers begin anew, and its clock may have been set back
            view.start = result.start
            faces = tuple(view.tracks.update(result.faces, result.captured_at, seq=result.seq))
            newest = _labelled(result, faces)
        if newest:
            before = self._newest_labelled.get(camera)
            gap_s = newest.captured_at - before.captured_at if before and before.start == newest.start else 0.0
            view.gap_s = gap_s if 0 < gap_s <= MAX_GAP_S else 0.0
            self._newest_labelled[camera] = newest
        return newest

    def _without_labels(self, now_s: float) -> list[str]:
        """Return the watched cameras without labelled results at present."""
        return [camera for camera in self.audience.watched() if self._view(camera).joiner.wants_newest(now_s)]

    def _unlabelled(self, cameras: list[str], now_s: float) -> dict[str, _SelectedFrame]:
        """Return the newest frames of cameras, except those that were displayed before."""
        with self._context.client.pipeline(transaction=False) as pipe:
            for camera in cameras:
                pipe.hmget(
                    self._context.bus.shard_of(camera).key("newest:frames", camera),
                    ["last", "seq", "captured_at", "pixels_key"],
                )
            rows = cast(list[list[bytes | None] | Exception], pipe.execute(raise_on_error=False))
        found = {}
        for camera, row in zip(cameras, rows, strict=True):
            newest = None if isinstance(row, Exception) else _newest(camera, row)  # the key holds another type
            if newest and self._views[camera].joiner.show_newest(newest.start, newest.seq, now_s):
                found[camera] = newest
        return found

    def _show(self, selected: list[_SelectedFrame]) -> None:
        for frame in self._with_pixels(selected):
            if frame:
                self.audience.show(frame)
                self._context.count("frames")

    def _with_pixels(self, selected: list[_SelectedFrame]) -> list[DisplayFrame | None]:
        jpegs = fetch_many_pixels(self._context.client, [one.pixels_key for one in selected])
        return [self._display_frame(one, jpeg) if jpeg else None for one, jpeg in zip(selected, jpegs, strict=True)]

    def _display_frame(self, selected: _SelectedFrame, jpeg: bytes) -> DisplayFrame | None:
        try:
            width, height = jpeg_size(jpeg)
        except BadImage:
            return None  # the detector dead-letters the frame
        now = self._context.bus.shard_of(selected.camera).clock.now()
        return DisplayFrame(
            camera=selected.camera,
            frame_id=frame_id(selected.camera, selected.start, selected.seq),
            seq=selected.seq,
            width=width,
            height=height,
            faces=selected.faces,
            labelled=selected.labelled,
            captured_at=selected.captured_at,
            age_s=max(0.0, now - selected.captured_at),
            at_s=time.monotonic(),
            jpeg=jpeg,
        )


def _labelled(result: FrameResult, faces: tuple[TrackedFace, ...]) -> _SelectedFrame:
    return _SelectedFrame(
        result.camera, result.start, result.seq, result.captured_at, result.pixels_key, faces, labelled=True
    )


def _newest(camera: str, row: list[bytes | None]) -> _SelectedFrame | None:
    """Return the newest frame of a camera from its fields last (start:seq:attempt), seq, captured_at and pixels_key."""
    if any(value is None for value in row):
        return None
    last, seq, captured_at, pixels_key = (value.decode(errors="replace") for value in cast(list[bytes], row))
    if not re.match(PIXELS_PATTERN, pixels_key):
        return None
    try:
        start = int(last.partition(":")[0])
        newest = _SelectedFrame(camera, start, int(seq), float(captured_at), pixels_key, (), labelled=False)
    except ValueError:
        return None
    return newest if math.isfinite(newest.captured_at) else None
