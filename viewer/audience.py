"""The browsers and MJPEG streams that are watching, and the next frame for each; a slow client delays no other.

A browser has at most one unacknowledged frame of each camera, and of all cameras together no more than its window;
meanwhile the newest frame of each camera waits, replacing an older one. The window widens while acknowledgements are
quick and narrows when they are late, so that a slow link carries few frames at a time, which are therefore new. Cameras
take turns: the next frame is of the camera that was sent least recently.

No time-out frees a place, because an old frame may still be on its way. A browser whose acknowledgement is overdue is
sent a probe. Its answer means that all frames before the probe have arrived, because a socket keeps the order: their
acknowledgements are lost, and their places are free.

An MJPEG stream takes the newest frame when it has written the previous one. Nothing here waits for the network.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pipeline.vision.tracks import TrackedFace

ACK_TIMEOUT_S = 5.0  # an acknowledgement that has not come for this long is overdue
QUICK_ACK_S = 1.0  # an acknowledgement within this time widens the window, a later one narrows it; satellites take 0.7
FIRST_WINDOW, MAX_WINDOW = 2, 16  # unacknowledged frames of one browser
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SentFrame:
    """A frame that was sent. number: how many had been sent to this browser, with this one."""

    frame_id: str
    number: int
    at_s: float


class Mailbox:
    """The frames of one browser. Pure: the clock is an argument."""

    def __init__(self) -> None:
        self.cameras: frozenset[str] = frozenset()
        self._unacknowledged: dict[str, SentFrame] = {}  # by camera
        self._waiting: dict[str, DisplayFrame] = {}
        self._last_numbers: dict[str, int] = {}  # by camera, of its last frame
        self._sent = 0
        self._probed = 0  # the number of the newest frame that a probe was sent for
        self._window = float(FIRST_WINDOW)

    def watch(self, cameras: Iterable[str]) -> None:
        """Replace the set of watched cameras."""
        self.cameras = frozenset(cameras)
        self._waiting = {camera: frame for camera, frame in self._waiting.items() if camera in self.cameras}
        self._last_numbers = {name: number for name, number in self._last_numbers.items() if name in self.cameras}

    def offer(self, frame: DisplayFrame, at_s: float) -> list[DisplayFrame]:
        """Return what to send now: the frame, or nothing; then it waits if its camera is watched."""
        if frame.camera in self.cameras:
            self._waiting[frame.camera] = frame
        return self._take_due(at_s)

    def acknowledge(self, camera: str, frame_id: str, at_s: float) -> list[DisplayFrame]:
        """Return the frames to send next. The acknowledgement of an older frame changes nothing."""
        sent = self._unacknowledged.get(camera)
        if sent is None or sent.frame_id != frame_id:
            return []
        if at_s - sent.at_s > QUICK_ACK_S:
            self._window = max(1, self._window - 1)
        elif len(self._unacknowledged) >= int(self._window):  # only a full window shows that more can be carried
            self._window = min(MAX_WINDOW, self._window + 1 / self._window)  # by 1 a round, as TCP does
        del self._unacknowledged[camera]
        return self._take_due(at_s)

    def take_probe(self, at_s: float) -> int | None:
        """Return the number of the newest frame that is overdue, to be sent as a probe; None if there is no new one."""
        overdue = [one.number for one in self._unacknowledged.values() if at_s - one.at_s >= ACK_TIMEOUT_S]
        newest = max(overdue, default=0)
        if newest <= self._probed:
            return None
        self._probed = newest
        return newest

    def answer_probe(self, number: int, at_s: float) -> list[DisplayFrame]:
        """Free the places of the frames up to a probe's number; return the frames to send next."""
        arrived = min(number, self._probed)  # a browser cannot have been sent a probe for more
        self._unacknowledged = {name: one for name, one in self._unacknowledged.items() if one.number > arrived}
        return self._take_due(at_s)

    def forget_stale(self, at_s: float) -> None:
        """Drop frames that have waited too long to be sent."""
        self._waiting = {camera: frame for camera, frame in self._waiting.items() if at_s - frame.at_s < MAX_AGE_S}

    def _take_due(self, at_s: float) -> list[DisplayFrame]:
        """Take out the waiting frames that may be sent now, and record that they are sent."""
        due: list[DisplayFrame] = []
        while len(self._unacknowledged) < int(self._window):
            ready = [
                camera
                for camera, frame in self._waiting.items()
                if camera not in self._unacknowledged and at_s - frame.at_s < MAX_AGE_S
            ]
            if not ready:
                break
            camera = min(ready, key=lambda name: self._last_numbers.get(name, 0))
            frame = self._waiting.pop(camera)
            self._sent += 1
            self._last_numbers[camera] = self._sent
            self._unacknowledged[camera] = SentFrame(frame_id=frame.frame_id, number=self._sent, at_s=at_s)
            due.append(frame)
        return due


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
        send_probe: does the same with a probe, a number that the browser returns.
    """

    def __init__(
        self,
        send: Callable[[str, DisplayFrame], None],
        send_probe: Callable[[str, int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._send_probe = send_probe
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
            due = [(id_, mailbox.offer(frame, now)) for id_, mailbox in self._mailboxes.items()]
            for stream in self._streams:
                if stream.camera == frame.camera:
                    stream.put(frame)
        for id_, frames in due:
            self._send_all(id_, frames)

    def watch(self, id_: str, cameras: Iterable[str]) -> None:
        """Set the cameras that a browser watches; the browser may be new."""
        with self._lock:
            self._mailboxes.setdefault(id_, Mailbox()).watch(cameras)

    def acknowledge(self, id_: str, camera: str, frame_id: str) -> None:
        """Record that a browser has drawn a frame, and send it the next ones if any wait."""
        with self._lock:
            mailbox = self._mailboxes.get(id_)
            due = mailbox.acknowledge(camera, frame_id, self._clock()) if mailbox else []
        self._send_all(id_, due)

    def probe_overdue(self) -> None:
        """Send a probe to each browser that has not acknowledged a frame for long."""
        with self._lock:
            now = self._clock()
            probes = [(id_, mailbox.take_probe(now)) for id_, mailbox in self._mailboxes.items()]
        for id_, number in probes:
            if number is not None:
                self._send_probe(id_, number)

    def answer_probe(self, id_: str, number: int) -> None:
        """Record that a browser has answered a probe, and send it the next frames if any wait."""
        with self._lock:
            mailbox = self._mailboxes.get(id_)
            due = mailbox.answer_probe(number, self._clock()) if mailbox else []
        self._send_all(id_, due)

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

    def _send_all(self, id_: str, frames: Iterable[DisplayFrame]) -> None:
        for frame in frames:
            self._send(id_, frame)
