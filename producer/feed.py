"""Keep a live view of a source: a thread reads it, it is reopened when it fails, and abandoned when it hangs.

Frames come out by `take`. A camera, and a video that plays at its own speed, leave only their newest frame here, so the
delay cannot grow. A source without timestamps (a folder, the demo) waits until each frame is taken. A source that may
come back (a camera, a stream) is reopened for ever; for any other, `take` raises its SourceFailed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from producer.sources.source import Source, SourceFailed, SourceFrame

REOPEN_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)  # waits before the source is reopened; a frame resets them to the first
SILENCE_TIMEOUT_S = 4.0  # no frame for this long: the camera hangs
FIRST_FRAME_TIMEOUT_S = 15.0  # limit for a stream's first frame; a silent network times out earlier
OPEN_TIMEOUT_S = 15.0  # limit for opening: a name server that does not answer, a disk that spins up
CLOSE_TIMEOUT_S = 0.5
MAX_HUNG = 4  # no further reader thread is started once this many hang: the driver hangs
MAX_TIMESTAMP_STEP_S = 10.0  # a step in a video's timestamps that is a fault, not a pause


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedFrame:
    """A frame, and when it was captured, on the monotonic clock."""

    source_frame: SourceFrame
    captured_s: float


class Feed:
    """A source's frames, from now to `close()`. One thread uses it.

    state: "opening", "running", or "retrying: " and why; for the heartbeat.
    ended: the source has delivered its last frame and is not played again.

    Args:
        may_come_back: whether a source that fails is reopened, for ever.
        loop: whether a source that ends is opened again.
    """

    def __init__(self, open_source: Callable[[], Source], *, may_come_back: bool, loop: bool) -> None:
        self.state = "opening"
        self.ended = False
        self._open_source = open_source
        self._may_come_back = may_come_back
        self._loop = loop
        self._failures = 0
        self._retry_at = 0.0
        self._hung: list[_ReaderThread] = []
        self._reader: _ReaderThread | None = _ReaderThread(open_source)

    def take(self, within_s: float) -> CapturedFrame | None:
        """Return the newest frame that was not taken before, waiting for it; None when none came."""
        reader = self._reader
        if reader is None:
            time.sleep(min(within_s, max(0.0, self._retry_at - time.monotonic())))
            self._reopen()
            return None
        captured = reader.take(within_s)
        if captured:
            self._failures = 0
            self.state = "running"
        elif reader.finished:
            self._on_end(reader.error)
        elif reader.hangs():
            self._hung.append(reader)
            self._on_failure(SourceFailed("it hangs: it has delivered no frame"))
        return captured

    def close(self) -> None:
        """Stop reading; a thread that hangs is abandoned."""
        if self._reader:
            self._reader.stop()
            self._reader.join(CLOSE_TIMEOUT_S)

    @property
    def has_hung_thread(self) -> bool:
        """Whether an abandoned thread is still alive."""
        return any(reader.is_alive() for reader in (*self._hung, self._reader) if reader)

    def _on_end(self, error: SourceFailed | None) -> None:
        if error:
            self._on_failure(error)
        else:
            self.ended = not self._loop
            self._reader = _ReaderThread(self._open_source) if self._loop else None

    def _on_failure(self, error: SourceFailed) -> None:
        if not self._may_come_back:
            raise error
        if self._reader:
            self._reader.stop()
        self._reader = None
        self._retry_at = time.monotonic() + REOPEN_PAUSES_S[min(self._failures, len(REOPEN_PAUSES_S) - 1)]
        self._failures += 1
        self.state = f"retrying: {error}"

    def _reopen(self) -> None:
        self._hung = [reader for reader in self._hung if reader.is_alive()]
        if not self.ended and time.monotonic() >= self._retry_at and len(self._hung) < MAX_HUNG:
            self._reader = _ReaderThread(self._open_source)


class _ReaderThread(threading.Thread):
    """A thread that opens a source once and reads it to its end.

    finished: no more frames follow, and the last one was taken. error: why it ended; None when the source ended.
    """

    def __init__(self, open_source: Callable[[], Source]) -> None:
        super().__init__(name="source", daemon=True)
        self.finished = False
        self.error: SourceFailed | None = None
        self._open_source = open_source
        self._changed = threading.Condition()
        self._newest: CapturedFrame | None = None
        self._stopping = threading.Event()
        self._max_silence_s = OPEN_TIMEOUT_S
        self._blocked_since: float | None = None  # None while the thread itself waits
        self._has_times = False
        self._zero_s: float | None = None  # when a frame of at_s 0 is due
        self.start()

    def hangs(self) -> bool:
        """Return whether the source has blocked the thread for too long."""
        since = self._blocked_since
        return since is not None and time.monotonic() - since > self._max_silence_s

    def take(self, within_s: float) -> CapturedFrame | None:
        """Return the newest frame, waiting for it; None when none came."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest or self.finished, within_s)
            captured, self._newest = self._newest, None
            self._changed.notify_all()
        if captured and not self._has_times:
            return CapturedFrame(source_frame=captured.source_frame, captured_s=time.monotonic())
        return captured

    def stop(self) -> None:
        """Ask the thread to close the source and end; frames that still come are dropped."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    def run(self) -> None:
        """Read the source to its end; Thread.start() calls it."""
        try:
            self._read_source()
        except SourceFailed as error:
            self.error = error
        with self._changed:
            self._wait_until_taken()
            self.finished = True
            self._changed.notify_all()

    def _read_source(self) -> None:
        self._blocked_since = time.monotonic()
        source = self._open_source()
        try:
            self._max_silence_s = _max_silence_s(source, delivered=False)
            for source_frame in source:
                self._blocked_since = None
                self._max_silence_s = _max_silence_s(source, delivered=True)
                self._has_times = source.is_live or source_frame.at_s is not None
                if not source.is_live:
                    self._wait_until_due(source_frame)
                self._offer(source_frame)
                if self._stopping.is_set():
                    return
                self._blocked_since = time.monotonic()
        finally:
            self._blocked_since = None
            source.close()  # only here: closing what another thread reads from crashes in the libraries below

    def _offer(self, source_frame: SourceFrame) -> None:
        with self._changed:
            if not self._has_times:
                self._wait_until_taken()
            self._newest = CapturedFrame(source_frame=source_frame, captured_s=time.monotonic())
            self._changed.notify_all()

    def _wait_until_taken(self) -> None:
        self._changed.wait_for(lambda: self._newest is None or self._stopping.is_set())

    def _wait_until_due(self, source_frame: SourceFrame) -> None:
        """Play at the source's own speed, counted from its first frame or from the last jump in its times."""
        if source_frame.at_s is None:
            return
        now = time.monotonic()
        if self._zero_s is None or abs(self._zero_s + source_frame.at_s - now) > MAX_TIMESTAMP_STEP_S:
            self._zero_s = now - source_frame.at_s
        self._stopping.wait(max(0.0, self._zero_s + source_frame.at_s - now))


def _max_silence_s(source: Source, *, delivered: bool) -> float:
    """Return how long a source may block before it counts as hanging."""
    if not source.is_live:
        return float("inf")
    return SILENCE_TIMEOUT_S if delivered or source.kind == "webcam" else FIRST_FRAME_TIMEOUT_S
