"""Detect a loop that is stuck while its process lives: in a driver call that hangs, or waiting for a lock.

Each loop kicks the watchdog in every iteration, and another thread polls it once a second. The time since a kick is
summed up from these polls, so a process that was suspended as a whole does not count as stuck when it resumes.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

STUCK_S = 15.0  # a loop without a kick for this long is stuck; a healthy iteration takes a second at most
MAX_POLL_GAP_S = 3.0  # a longer time between two polls counts as this much
MAX_CALLS = 3  # innermost calls shown of a stuck loop


class Watchdog:
    """Track when each loop of a process last made progress.

    The monitored threads are the one that created this object, from its first kick on, and any thread inside
    `monitor()`. Kicks of other threads are ignored.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._polled_at = monotonic()
        self._running_s = 0.0
        self._kicked_s: dict[int, float] = {}  # by thread, in terms of _running_s
        self._owner = threading.get_ident()

    def kick(self) -> None:
        """Record that the calling thread's loop makes progress."""
        thread = threading.get_ident()
        if thread == self._owner or thread in self._kicked_s:
            self._kicked_s[thread] = self._running_s

    @contextlib.contextmanager
    def monitor(self) -> Iterator[None]:
        """Monitor the calling thread while the block runs."""
        thread = threading.get_ident()
        self._kicked_s[thread] = self._running_s
        try:
            yield
        finally:
            self._kicked_s.pop(thread, None)

    def poll(self) -> float:
        """Return the seconds since the last kick of the slowest loop, 0 without loops. Only one thread may call it."""
        now = self._monotonic()
        self._running_s += min(now - self._polled_at, MAX_POLL_GAP_S)
        self._polled_at = now
        return self._running_s - min(self._kicked_s.copy().values(), default=self._running_s)

    def slowest_stack(self) -> str:
        """Return the innermost calls of the slowest loop, as text for people."""
        kicked_s = self._kicked_s.copy()
        frame = sys._current_frames().get(min(kicked_s, key=kicked_s.__getitem__, default=0))
        if frame is None:
            return "nowhere: its thread has ended"
        calls = traceback.extract_stack(frame)[-MAX_CALLS:]
        return " in ".join(f"{call.name} ({Path(call.filename).name}:{call.lineno})" for call in reversed(calls))
