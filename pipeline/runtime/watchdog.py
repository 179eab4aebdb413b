"""Notice a loop that stands still while its process lives: a driver that hangs, a lock that is never given back.

Loops note their turns; another thread looks about once a second. Its looks are the clock by which the age of a turn is
measured, so that a process that was suspended as a whole does not count as stuck when it goes on.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

STUCK_S = 15.0  # a loop that has not turned for so long is stuck; a turn takes a second at most in a healthy process
LOOK_COUNTS_S = 3.0  # at most, however long ago the last look was
SHOWN = 3  # how many of the innermost calls tell where a loop stands


class Watchdog:
    """When each loop of a process last turned.

    A loop is the thread that made this object, from its first turn, and any thread inside `loop()`. What other threads
    note is ignored: they come and go.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._looked_at = monotonic()
        self._awake_s = 0.0
        self._turned_s: dict[int, float] = {}  # by thread, on the clock of the looks
        self._owner = threading.get_ident()

    def note(self) -> None:
        """Say that the calling thread's loop turns."""
        thread = threading.get_ident()
        if thread == self._owner or thread in self._turned_s:
            self._turned_s[thread] = self._awake_s

    @contextlib.contextmanager
    def loop(self) -> Iterator[None]:
        """Let the calling thread be a loop while the block runs."""
        thread = threading.get_ident()
        self._turned_s[thread] = self._awake_s
        try:
            yield
        finally:
            self._turned_s.pop(thread, None)

    def look(self) -> float:
        """Return for how many seconds the slowest loop has not turned; 0 without loops. One thread calls it."""
        now = self._monotonic()
        self._awake_s += min(now - self._looked_at, LOOK_COUNTS_S)
        self._looked_at = now
        return self._awake_s - min(self._turned_s.copy().values(), default=self._awake_s)

    def place(self) -> str:
        """Return where the slowest loop stands: its innermost calls, for people."""
        turned_s = self._turned_s.copy()
        frame = sys._current_frames().get(min(turned_s, key=turned_s.__getitem__, default=0))
        if frame is None:
            return "nowhere: its thread has ended"
        calls = traceback.extract_stack(frame)[-SHOWN:]
        return " in ".join(f"{call.name} ({Path(call.filename).name}:{call.lineno})" for call in reversed(calls))
