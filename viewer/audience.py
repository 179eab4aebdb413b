"""The browsers and MJPEG streams that are watching, and the next frame for each; a slow client delays no other.

A browser has at most one unacknowledged frame of each camera; meanwhile the newest one waits, replacing an older one.
An MJPEG stream takes the newest frame when it has written the previous one. Nothing here waits for the network.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pipeline.vision.tracks import TrackedFace

ACK_TIMEOUT_S = 5.0  # how long an acknowledgement is waited for
MAX_AGE_S = 2.0  # a frame that has waited longer is not sent


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class DisplayFrame:
    """A frame to display, with its labels; compared by identity.

    labelled: False for a frame shown without labels because no labelled frame is available.
    captured_at: Unix seconds on Redis' clock. age_s: the age of the frame at `at_s`, which is on the monotonic clock.
    """

    camera: str
    frame_id: str
    seq: int
    width: int
    height: int
    faces: tuple[TrackedFace, ...]
    labelled: bool
    captured_at: float
    age_s: float
    at_s: float
    jpeg: bytes


class Mailbox:
    """The frames of one browser. Pure: the clock is an argument."""

    def __init__(self) -> None:
        self.cameras: frozenset[str] = frozenset()
        self._unacknowledged: dict[str, tuple[str, float]] = {}  # by camera: frame_id, time of sending
        self._waiting: dict[str, DisplayFrame] = {}

    def watch(self, cameras: Iterable[str]) -> None:
        """Replace the set of watched cameras."""
        self.cameras = frozenset(cameras)
        self._waiting = {camera: frame for camera, frame in self._waiting.items() if camera in self.cameras}

    def offer(self, frame: DisplayFrame, at_s: float) -> DisplayFrame | None:
        """Return the frame if it may be sent now, otherwise None; then it waits if its camera is watched."""
        if frame.camera not in self.cameras:
            return None
        _, sent_at_s = self._unacknowledged.get(frame.camera, ("", float("-inf")))
        if at_s - sent_at_s < ACK_TIMEOUT_S:
            self._waiting[frame.camera] = frame
            return None
        return self._send(frame, at_s)

    def acknowledge(self, camera: str, frame_id: str, at_s: float) -> DisplayFrame | None:
        """Return the frame to send next, or None. The acknowledgement of an older frame changes nothing."""
        if self._unacknowledged.get(camera, ("", 0.0))[0] != frame_id:
            return None
        del self._unacknowledged[camera]
        waiting = self._waiting.pop(camera, None)
        return self._send(waiting, at_s) if waiting and at_s - waiting.at_s < MAX_AGE_S else None

    def forget_stale(self, at_s: float) -> None:
        """Drop frames that have waited too long to be sent."""
        self._waiting = {camera: frame for camera, frame in self._waiting.items() if at_s - frame.at_s < MAX_AGE_S}

    def _send(self, frame: DisplayFrame, at_s: float) -> DisplayFrame:
        self._waiting.pop(frame.camera, None)
        self._unacknowledged[frame.camera] = (frame.frame_id, at_s)
        return frame


class MjpegStream:
    """One MJPEG stream: the newest frame of its camera that it has not taken yet."""

    def __init__(self, camera: str) -> None:
        self.camera = camera
        self._changed = threading.Condition()
        self._newest: DisplayFrame | None = None

    def put(self, frame: DisplayFrame) -> None:
        """Put a frame in, replacing one that was not taken."""
        with self._changed:
            self._newest = frame
            self._changed.notify()

    def take(self, within_s: float) -> DisplayFrame | None:
        """Return the newest frame, None when there is none in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None, within_s)
            newest, self._newest = self._newest, None
            return newest


class Audience:
    """All browsers and streams.

    Args:
        send: puts a frame into the queue of a browser, by the id of its socket; must not block.
    """

    def __init__(self, send: Callable[[str, DisplayFrame], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self._lock = threading.Lock()
        self._mailboxes: dict[str, Mailbox] = {}
        self._streams: set[MjpegStream] = set()

    def watched(self) -> set[str]:
        """Return the cameras that any client watches."""
        with self._lock:
            cameras = {stream.camera for stream in self._streams}
            return cameras.union(*(mailbox.cameras for mailbox in self._mailboxes.values()))

    def show(self, frame: DisplayFrame) -> None:
        """Pass a frame to all clients that watch its camera."""
        now = self._clock()
        with self._lock:
            to_send = [id_ for id_, mailbox in self._mailboxes.items() if mailbox.offer(frame, now)]
            for stream in self._streams:
                if stream.camera == frame.camera:
                    stream.put(frame)
        for id_ in to_send:
            self._send(id_, frame)

    def watch(self, id_: str, cameras: Iterable[str]) -> None:
        """Set the cameras that a browser watches; the browser may be new."""
        with self._lock:
            self._mailboxes.setdefault(id_, Mailbox()).watch(cameras)

    def acknowledge(self, id_: str, camera: str, frame_id: str) -> None:
        """Record that a browser has drawn a frame, and send it the next one if one waits."""
        with self._lock:
            mailbox = self._mailboxes.get(id_)
            following = mailbox.acknowledge(camera, frame_id, self._clock()) if mailbox else None
        if following:
            self._send(id_, following)

    def leave(self, id_: str) -> None:
        """Remove a browser."""
        with self._lock:
            self._mailboxes.pop(id_, None)

    def forget_stale(self) -> None:
        """Drop the frames of all browsers that have waited too long."""
        with self._lock:
            for mailbox in self._mailboxes.values():
                mailbox.forget_stale(self._clock())

    def open(self, camera: str) -> MjpegStream:
        """Return a new stream of a camera; the caller must `close` it."""
        stream = MjpegStream(camera)
        with self._lock:
            self._streams.add(stream)
        return stream

    def close(self, stream: MjpegStream) -> None:
        """Remove a stream."""
        with self._lock:
            self._streams.discard(stream)
