"""Take thumbnails: results and the events that they open in, small pictures of what was before the camera out.

Producers send pixels to Redis only if somebody asks for them. So a camera is asked as soon as a condition holds whose
event has not opened yet. If the frame with which the event opens has no pixels in Redis, that of a later result serves,
for at most MAX_LATE_S; then the event has no thumbnail, and the log says so.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import redis

from events.camera_watch import CameraWatch
from events.event_types import Change, Event
from events.thumbnails import Thumbnail
from pipeline.bus.messages import FrameResult
from pipeline.bus.pixel_reader import PixelsGone, fetch_pixels
from pipeline.runtime.worker_context import WorkerContext
from pipeline.vision.faces import Box
from pipeline.vision.jpeg import BadImage, decode_jpeg
from pipeline.vision.scene_thumbnail import scene_thumbnail

log = logging.getLogger(__name__)

MAX_LATE_S = 3.0  # between the opening of an event and the frame of its thumbnail
ASK_INTERVAL_S = 1.0
ASK_MS = 3_000  # for how long a camera sends pixels once it was asked
HALF_FACE = 0.65  # half the height of a face, in sizes of its track


class Thumbnailer:
    """The thumbnails of all cameras' events. blurred: no face that was found can be recognized in them."""

    def __init__(self, context: WorkerContext, *, blurred: bool) -> None:
        self._context = context
        self._blurred = blurred
        self._wanted: dict[str, list[Event]] = {}  # by camera
        self._taken: dict[str, Thumbnail] = {}
        self._asked_at: dict[str, float] = {}  # by camera, on the monotonic clock

    def add(self, watch: CameraWatch, result: FrameResult, changes: Sequence[Change]) -> None:
        """Take the thumbnails of the events that a result opens, or of earlier ones that still have none.

        watch: of the result's camera, which has taken it.
        """
        opened = [change.event for change in changes if change.phase == "opened"]
        wanted = self._wanted.pop(result.camera, []) + opened
        if not wanted and not watch.may_open():
            return
        try:
            self._ask(result.camera)
            jpeg = fetch_pixels(self._context.client, result.pixels_key) if wanted else b""
        except (PixelsGone, redis.RedisError) as error:
            if waiting := _in_time(wanted, result, str(error)):
                self._wanted[result.camera] = waiting
            return
        if shown := _in_time(wanted, result, "the next ones came too late"):
            self._take(shown, result, watch, jpeg)

    def take(self) -> dict[str, Thumbnail]:
        """Return the thumbnails since the last call, by event ID."""
        taken, self._taken = self._taken, {}
        return taken

    def _ask(self, camera: str) -> None:
        """Ask the producer of a camera for pixels."""
        now = self._context.clock.monotonic()
        if now - self._asked_at.get(camera, float("-inf")) >= ASK_INTERVAL_S:
            self._context.client.set(self._context.bus.shard_of(camera).key("watched", camera), 1, px=ASK_MS)
            self._asked_at[camera] = now

    def _take(self, wanted: Sequence[Event], result: FrameResult, watch: CameraWatch, jpeg: bytes) -> None:
        if self._blurred and result.left_out:
            log.info("events of %s have no thumbnail: more faces than can be blurred", result.camera)
            return
        try:
            image = decode_jpeg(jpeg)
        except BadImage as error:
            log.info("events of %s have no thumbnail: %s", result.camera, error)
            return
        faces = watch.faces
        blurred = [face.box for face in faces] + _unseen_boxes(watch, result.captured_at) if self._blurred else []
        for event in wanted:
            shown = [face for face in faces if face.track == event.track] or faces
            small = scene_thumbnail(image, [face.box for face in shown], blurred)
            self._taken[event.id] = Thumbnail(jpeg=small, captured_at=result.captured_at, blurred=self._blurred)


def _in_time(wanted: Sequence[Event], result: FrameResult, reason: str) -> list[Event]:
    """Return the events that a frame of this time may still show; log the others, with why no earlier one did."""
    late = [event for event in wanted if not 0 <= result.captured_at - event.opened_at < MAX_LATE_S]
    for event in late:
        log.info("event %s of %s has no thumbnail: its pixels are gone (%s)", event.id, event.camera, reason)
    return [event for event in wanted if event not in late]


def _unseen_boxes(watch: CameraWatch, at: float) -> list[Box]:
    """Return where the faces may be that were seen just before, but not found in the frame of this time."""
    boxes: list[Box] = []
    for track in watch.state.tracker.tracks:
        if track.seen_at_s < at:
            x, y, variance = track.motion.predict(at - track.seen_at_s)
            half = track.motion.size * (HALF_FACE + min(math.sqrt(variance), 1.0))
            boxes.append((x - half, y - half, x + half, y + half))
    return boxes
