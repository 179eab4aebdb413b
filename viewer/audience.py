"""Everybody who watches, and the newest frame for each of them; a slow one delays nobody.

A browser has at most one unacknowledged frame a camera; what comes meanwhile waits, newer in the place of older. An
MJPEG stream takes the newest frame whenever it has written the last. Nothing here waits for a network.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pipeline.vision.tracks import TrackedFace

ACK_S = 5.0  # an acknowledgement that has not come in this time is given up
STALE_S = 2.0  # a frame that has waited longer is not sent any more


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class DisplayFrame:
    """A frame as it is shown; two are equal only if they are the same.

    labelled: False for a frame that is shown without labels, for want of labelled ones.
    captured_at: Unix seconds on Redis' clock. age_s: of the frame at `at_s`, which is on the monotonic clock.
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
    """One browser's frames. Pure: the clock is an argument."""

    def __init__(self) -> None:
        self.cameras: frozenset[str] = frozenset()
        self._unacknowledged: dict[str, tuple[str, float]] = {}  # by camera: frame_id, when sent
        self._waiting: dict[str, DisplayFrame] = {}

    def watch(self, cameras: Iterable[str]) -> None:
        """Watch these cameras from now on, and no others."""
        self.cameras = frozenset(cameras)
        self._waiting = {camera: shown for camera, shown in self._waiting.items() if camera in self.cameras}

    def offer(self, shown: DisplayFrame, at_s: float) -> DisplayFrame | None:
        """Return the frame if it may be sent now; otherwise it waits, or is nobody's."""
        if shown.camera not in self.cameras:
            return None
        _, sent_at_s = self._unacknowledged.get(shown.camera, ("", float("-inf")))
        if at_s - sent_at_s < ACK_S:
            self._waiting[shown.camera] = shown
            return None
        return self._send(shown, at_s)

    def acknowledge(self, camera: str, frame_id: str, at_s: float) -> DisplayFrame | None:
        """Return the frame to send next, None when there is none. An answer to an older frame changes nothing."""
        if self._unacknowledged.get(camera, ("", 0.0))[0] != frame_id:
            return None
        del self._unacknowledged[camera]
        waiting = self._waiting.pop(camera, None)
        return self._send(waiting, at_s) if waiting and at_s - waiting.at_s < STALE_S else None

    def forget_stale(self, at_s: float) -> None:
        """Let go of frames that have waited too long to be shown."""
        self._waiting = {camera: shown for camera, shown in self._waiting.items() if at_s - shown.at_s < STALE_S}

    def _send(self, shown: DisplayFrame, at_s: float) -> DisplayFrame:
        self._waiting.pop(shown.camera, None)
        self._unacknowledged[shown.camera] = (shown.frame_id, at_s)
        return shown


class Stream:
    """One MJPEG stream: the newest frame of a camera that it has not taken yet."""

    def __init__(self, camera: str) -> None:
        self.camera = camera
        self._came = threading.Condition()
        self._newest: DisplayFrame | None = None

    def put(self, shown: DisplayFrame) -> None:
        """Leave a frame to be taken, in the place of one that was not."""
        with self._came:
            self._newest = shown
            self._came.notify()

    def take(self, within_s: float) -> DisplayFrame | None:
        """Return the newest frame; None when none comes in time."""
        with self._came:
            self._came.wait_for(lambda: self._newest is not None, within_s)
            newest, self._newest = self._newest, None
            return newest


class Audience:
    """Browsers and streams.

    Args:
        send: puts a frame into a browser's queue, by its session's id; must not wait.
    """

    def __init__(self, send: Callable[[str, DisplayFrame], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self._lock = threading.Lock()
        self._mailboxes: dict[str, Mailbox] = {}
        self._streams: set[Stream] = set()

    def watched(self) -> set[str]:
        """Return the cameras that somebody watches."""
        with self._lock:
            cameras = {stream.camera for stream in self._streams}
            return cameras.union(*(mailbox.cameras for mailbox in self._mailboxes.values()))

    def show(self, shown: DisplayFrame) -> None:
        """Give a frame to everybody who watches its camera."""
        now = self._clock()
        with self._lock:
            to_send = [id_ for id_, mailbox in self._mailboxes.items() if mailbox.offer(shown, now)]
            for stream in self._streams:
                if stream.camera == shown.camera:
                    stream.put(shown)
        for id_ in to_send:
            self._send(id_, shown)

    def watch(self, id_: str, cameras: Iterable[str]) -> None:
        """Let a browser watch these cameras and no others; it is new here or known."""
        with self._lock:
            self._mailboxes.setdefault(id_, Mailbox()).watch(cameras)

    def acknowledge(self, id_: str, camera: str, frame_id: str) -> None:
        """Note that a browser has drawn a frame, and send it the next if one waits."""
        with self._lock:
            mailbox = self._mailboxes.get(id_)
            following = mailbox.acknowledge(camera, frame_id, self._clock()) if mailbox else None
        if following:
            self._send(id_, following)

    def leave(self, id_: str) -> None:
        """Forget a browser."""
        with self._lock:
            self._mailboxes.pop(id_, None)

    def forget_stale(self) -> None:
        """Let go of frames that nobody will see any more."""
        with self._lock:
            for mailbox in self._mailboxes.values():
                mailbox.forget_stale(self._clock())

    def open(self, camera: str) -> Stream:
        """Return a new stream of a camera; `close` it."""
        stream = Stream(camera)
        with self._lock:
            self._streams.add(stream)
        return stream

    def close(self, stream: Stream) -> None:
        """Forget a stream."""
        with self._lock:
            self._streams.discard(stream)
