"""Keep a live view of a source: a thread reads it, it is reopened when it fails, and abandoned when it hangs.

Frames come out by `take`. A camera, and a video that plays at its own speed, leave only their newest frame here, so the
delay cannot grow. A source without timestamps (a folder, the demo) waits until each frame is taken. A source that may
come back (a camera, a stream) is reopened for ever, and so is a file or folder that is played again and again, once it
has delivered a frame; for any other, `take` raises its SourceFailed. An error of another class counts as a failure of
the source, too, after which no file is reopened; its traceback is logged once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from producer.sources.source import Source, SourceFailed, SourceFrame

log = logging.getLogger(__name__)

REOPEN_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)  # waits before the source is reopened; a frame resets them to the first
SILENCE_TIMEOUT_S = 4.0  # no frame for this long: the camera hangs
NETWORK_SILENCE_TIMEOUT_S = 70.0  # the same of a network camera, which knows its own pace; only libraries hang so long
OPEN_TIMEOUT_S = 15.0  # limit for opening (a name server that does not answer, a disk that spins up) and for closing
CLOSE_TIMEOUT_S = 0.5
MAX_HUNG = 4  # no further reader thread is started once this many hang: the driver hangs
MAX_UNREADABLE = 10  # frames in a row that cannot be read, after which the state says so
MAX_TIMESTAMP_STEP_S = 10.0  # a step in a video's timestamps that is a fault, not a pause


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedFrame:
    """A frame, and when it was captured, on the monotonic clock.

    skipped: pictures that the source left out since the frame that was taken before.
    """

    source_frame: SourceFrame
    captured_s: float
    skipped: int = 0


class Feed:
    """A source's frames, from now to `close()`. One thread uses it.

    state: "opening", "running", or "unreadable: " or "retrying: " and why; for the heartbeat.
    ended: the source has delivered its last frame and is not played again.

    Args:
        may_come_back: whether a source that fails is reopened, for ever, even if it has never delivered a frame.
        loop: whether a source that ends is opened again.
    """

    def __init__(self, open_source: Callable[[], Source], *, may_come_back: bool, loop: bool) -> None:
        self.state = "opening"
        self.ended = False
        self._open_source = open_source
        self._may_come_back = may_come_back
        self._loop = loop
        self._has_played = False
        self._unreadable = 0  # frames in a row
        self._failures = 0
        self._retry_at = 0.0
        self._logged: set[type[Exception]] = set()  # classes of errors whose traceback is in the log
        self._hung: list[_ReaderThread] = []
        self._reader: _ReaderThread | None = _ReaderThread(open_source)

    def take(self, within_s: float) -> CapturedFrame | None:
        """Return the newest frame that was not taken before, waiting for it; None when none came."""
        reader = self._reader
        if reader is None:
            self._reopen(within_s)
            return None
        captured = reader.take(within_s)
        if captured:
            self._failures = 0
            self._has_played = True
            self._note_frame(captured.source_frame)
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

    def _note_frame(self, source_frame: SourceFrame) -> None:
        if source_frame.error is None:
            self.state, self._unreadable = "running", 0
            return
        self._unreadable += 1
        if self._unreadable >= MAX_UNREADABLE:
            self.state = f"unreadable: {source_frame.error}"

    def _on_end(self, error: Exception | None) -> None:
        if isinstance(error, SourceFailed):
            self._on_failure(error, expected=True)
        elif error is not None:
            self._on_failure(self._failure(error))
        else:
            self.ended = not self._loop
            self._reader = _ReaderThread(self._open_source) if self._loop else None

    def _failure(self, error: Exception) -> SourceFailed:
        """Return the failure for an error that no source raises on purpose; log its traceback once for each class."""
        if type(error) not in self._logged:
            self._logged.add(type(error))
            log.error("the source failed with an unexpected error", exc_info=error)
        reason = " ".join(str(error).split())
        failure = SourceFailed(f"{type(error).__name__}: {reason}" if reason else type(error).__name__)
        failure.__cause__ = error
        return failure

    def _on_failure(self, error: SourceFailed, *, expected: bool = False) -> None:
        """Wait to reopen the source, or raise its failure. expected: the source itself has raised it."""
        if not self._may_come_back and not (expected and self._has_played and self._loop):
            raise error
        if self._reader:
            self._reader.stop()
        self._reader = None
        self._retry_at = time.monotonic() + REOPEN_PAUSES_S[min(self._failures, len(REOPEN_PAUSES_S) - 1)]
        self._failures += 1
        self.state = f"retrying: {error}"

    def _reopen(self, within_s: float) -> None:
        """Wait until the source is to be opened again, and do so; only wait while too many threads hang."""
        self._hung = [reader for reader in self._hung if reader.is_alive()]
        if len(self._hung) >= MAX_HUNG:
            self.state = f"retrying: it hangs: {MAX_HUNG} threads that read it have not returned"
            time.sleep(within_s)
            return
        time.sleep(min(within_s, max(0.0, self._retry_at - time.monotonic())))
        if not self.ended and time.monotonic() >= self._retry_at:
            self._reader = _ReaderThread(self._open_source)


class _ReaderThread(threading.Thread):
    """A thread that opens a source once and reads it to its end.

    finished: no more frames follow, and the last one was taken. error: why it ended; None when the source ended.
    """

    def __init__(self, open_source: Callable[[], Source]) -> None:
        super().__init__(name="source", daemon=True)
        self.finished = False
        self.error: Exception | None = None
        self._open_source = open_source
        self._changed = threading.Condition()
        self._newest: CapturedFrame | None = None
        self._skipped = 0  # since the last frame was taken
        self._stopping = threading.Event()
        self._hangs_at: float | None = None  # None while the thread itself waits
        self._has_times = False
        self._zero_s: float | None = None  # when a frame of at_s 0 is due
        self.start()

    def hangs(self) -> bool:
        """Return whether the source has blocked the thread for too long."""
        hangs_at = self._hangs_at
        return hangs_at is not None and time.monotonic() > hangs_at

    def take(self, within_s: float) -> CapturedFrame | None:
        """Return the newest frame, waiting for it; None when none came."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest or self.finished, within_s)
            captured, self._newest = self._newest, None
            skipped, self._skipped = (self._skipped, 0) if captured else (0, self._skipped)
            self._changed.notify_all()
        if captured is None:
            return None
        return replace(
            captured, captured_s=captured.captured_s if self._has_times else time.monotonic(), skipped=skipped
        )

    def stop(self) -> None:
        """Ask the thread to close the source and end; frames that still come are dropped."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    def run(self) -> None:
        """Read the source to its end; Thread.start() calls it."""
        try:
            self._read_source()
        except Exception as error:  # noqa: BLE001 -- an error that ended the thread unseen would stop the camera for good
            self.error = error
        self._hangs_at = None
        with self._changed:
            self._wait_until_taken()
            self.finished = True
            self._changed.notify_all()

    def _read_source(self) -> None:
        self._expect_within(OPEN_TIMEOUT_S)
        source = self._open_source()
        try:
            self._read_frames(source)
        finally:
            self._expect_within(OPEN_TIMEOUT_S)
            source.close()  # only here: closing what another thread reads from crashes in the libraries below

    def _read_frames(self, source: Source) -> None:
        self._expect_within(_max_silence_s(source))
        for source_frame in source:
            self._hangs_at = None
            self._has_times = source.is_live or source_frame.at_s is not None
            if not source.is_live:
                self._wait_until_due(source_frame)
            self._offer(source_frame)
            if self._stopping.is_set():
                return
            self._expect_within(_max_silence_s(source))

    def _expect_within(self, limit_s: float) -> None:
        """Count as hanging when the source does not return within this time from now."""
        self._hangs_at = time.monotonic() + limit_s

    def _offer(self, source_frame: SourceFrame) -> None:
        with self._changed:
            if not self._has_times:
                self._wait_until_taken()
            self._newest = CapturedFrame(source_frame=source_frame, captured_s=time.monotonic())
            self._skipped += source_frame.skipped
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


def _max_silence_s(source: Source) -> float:
    """Return how long a source may block before it counts as hanging."""
    if not source.is_live:
        return float("inf")
    return SILENCE_TIMEOUT_S if source.kind == "webcam" else NETWORK_SILENCE_TIMEOUT_S
