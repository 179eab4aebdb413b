"""Keep a live view of a source: it is read in a thread, opened again when it fails, and given up when it hangs.

Pictures come out by `take`. A camera, and a video that plays at its own speed, leave only their newest picture here, so
no delay can grow. A source without times of its own (a folder, the demo) waits until each picture is taken. What may
come back (a camera, a stream) is tried for ever; of anything else `take` raises the SourceFailed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from producer.sources.source import Source, SourceFailed, SourceFrame

RETRY_S = (0.5, 1.0, 2.0, 5.0, 10.0)  # waits before the source is opened again; a picture starts them anew
SILENT_S = 4.0  # a camera that delivers nothing for so long hangs
FIRST_S = 15.0  # a stream may send its first whole picture so late; if it is silent, the network's time-out says so
OPENING_S = 15.0  # opening may take so long: a name server that does not answer, a disk that spins up
CLOSE_S = 0.5
MAX_HUNG = 4  # hung threads at which no more are started: the driver hangs, and more threads do not help
JUMP_S = 10.0  # a step in a video's timestamps that is a fault, not a pause


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A picture, and when it was captured on the monotonic clock."""

    picture: SourceFrame
    captured_s: float


class Feed:
    """A source's pictures, from now to `close()`. One thread uses it.

    state: "opening", "running", or "retrying: " and why; for the heartbeat.
    ended: a source that is not played again has given its last picture.

    Args:
        open_it: opens the source.
        may_come_back: a source that fails is opened again, for ever.
        loop: a source that ends is opened again.
    """

    def __init__(self, open_it: Callable[[], Source], *, may_come_back: bool, loop: bool) -> None:
        self.state = "opening"
        self.ended = False
        self._open_it = open_it
        self._may_come_back = may_come_back
        self._loop = loop
        self._failures = 0
        self._retry_at = 0.0
        self._hung: list[_Reading] = []
        self._reading: _Reading | None = _Reading(open_it)

    def take(self, within_s: float) -> Taken | None:
        """Return the newest picture that was not taken before, waiting for it; None when none came.

        Raises:
            SourceFailed: the source failed and is not of a kind that comes back.
        """
        reading = self._reading
        if reading is None:
            time.sleep(min(within_s, max(0.0, self._retry_at - time.monotonic())))
            self._open_again()
            return None
        taken = reading.take(within_s)
        if taken:
            self._failures = 0
            self.state = "running"
        elif reading.error:
            self._failed(reading.error)
        elif reading.done:
            self._ended()
        elif reading.hangs():
            self._hung.append(reading)
            self._failed(SourceFailed("it hangs: nothing came from it"))
        return taken

    def close(self) -> None:
        """Stop reading; a thread that hangs is left behind."""
        if self._reading:
            self._reading.stop()
            self._reading.thread.join(CLOSE_S)

    @property
    def left_behind(self) -> bool:
        """Whether a thread is left behind."""
        return any(reading.thread.is_alive() for reading in (*self._hung, self._reading) if reading)

    def _failed(self, error: SourceFailed) -> None:
        if not self._may_come_back:
            raise error
        if self._reading:
            self._reading.stop()
        self._reading = None
        self._retry_at = time.monotonic() + RETRY_S[min(self._failures, len(RETRY_S) - 1)]
        self._failures += 1
        self.state = f"retrying: {error}"

    def _ended(self) -> None:
        self.ended = not self._loop
        self._reading = _Reading(self._open_it) if self._loop else None

    def _open_again(self) -> None:
        self._hung = [reading for reading in self._hung if reading.thread.is_alive()]
        if not self.ended and time.monotonic() >= self._retry_at and len(self._hung) < MAX_HUNG:
            self._reading = _Reading(self._open_it)


class _Reading:
    """One opening of a source, read by a thread of its own to its end.

    error: why it failed. done: it gave its last picture. Both only after that picture is taken.
    """

    def __init__(self, open_it: Callable[[], Source]) -> None:
        self._open_it = open_it
        self._changed = threading.Condition()
        self._newest: Taken | None = None
        self._outcome: SourceFailed | None = None
        self._finished = False
        self._over = threading.Event()
        self._silent_s = OPENING_S
        self._blocked_since: float | None = None  # None while the thread itself waits
        self._own_times = False
        self._zero_s: float | None = None  # when a picture of at_s 0 is due
        self.thread = threading.Thread(target=self._read, name="source", daemon=True)
        self.thread.start()

    @property
    def error(self) -> SourceFailed | None:
        return self._outcome if self._finished else None

    @property
    def done(self) -> bool:
        return self._finished

    def hangs(self) -> bool:
        """Return whether the source has blocked the thread for too long."""
        since = self._blocked_since
        return since is not None and time.monotonic() - since > self._silent_s

    def take(self, within_s: float) -> Taken | None:
        with self._changed:
            self._changed.wait_for(lambda: self._newest or self._finished, within_s)
            taken, self._newest = self._newest, None
            self._changed.notify_all()
        if taken and not self._own_times:
            return Taken(picture=taken.picture, captured_s=time.monotonic())
        return taken

    def stop(self) -> None:
        """Ask the thread to close the source and end; pictures that still come are dropped."""
        self._over.set()
        with self._changed:
            self._changed.notify_all()

    def _read(self) -> None:
        try:
            self._read_through()
        except SourceFailed as error:
            self._outcome = error
        with self._changed:
            self._wait_until_taken()
            self._finished = True
            self._changed.notify_all()

    def _read_through(self) -> None:
        self._blocked_since = time.monotonic()
        source = self._open_it()
        try:
            self._silent_s = _silence_allowed_s(source, delivered=False)
            for picture in source:
                self._blocked_since = None
                self._silent_s = _silence_allowed_s(source, delivered=True)
                self._own_times = source.is_live or picture.at_s is not None
                if not source.is_live:
                    self._wait_until_due(picture)
                self._offer(picture)
                if self._over.is_set():
                    return
                self._blocked_since = time.monotonic()
        finally:
            self._blocked_since = None
            source.close()  # only here: to close what another thread reads from crashes in the libraries below

    def _offer(self, picture: SourceFrame) -> None:
        with self._changed:
            if not self._own_times:
                self._wait_until_taken()
            self._newest = Taken(picture=picture, captured_s=time.monotonic())
            self._changed.notify_all()

    def _wait_until_taken(self) -> None:
        self._changed.wait_for(lambda: self._newest is None or self._over.is_set())

    def _wait_until_due(self, picture: SourceFrame) -> None:
        """Play at the source's own speed, counted from its first picture or from behind a jump in its times."""
        if picture.at_s is None:
            return
        now = time.monotonic()
        if self._zero_s is None or abs(self._zero_s + picture.at_s - now) > JUMP_S:
            self._zero_s = now - picture.at_s
        self._over.wait(max(0.0, self._zero_s + picture.at_s - now))


def _silence_allowed_s(source: Source, *, delivered: bool) -> float:
    """Return how long a source may block before it counts as hanging."""
    if not source.is_live:
        return float("inf")
    return SILENT_S if delivered or source.kind == "webcam" else FIRST_S
