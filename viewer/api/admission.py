"""When a picture of a program may use the workers, so that live cameras lose next to nothing to it.

While live frames come, one picture is labelled at a time. While some of them are dropped, the machine has no time left:
then pictures together take at most PRESSED_SHARE of one core, and wait in between. Programs that are told to come again
are spread over time, because an answer in vain costs time, too.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from msgspec import Struct

from pipeline.bus.messages import FrameResult

WINDOW_S = 3.0  # the live frames of this time count
MAX_DROPPED = 0.01  # of the live frames; more of them show that the workers have no time left
PRESSED_SHARE = 0.04  # of one core, for pictures while there is no time left
MAX_COST_S = 0.2  # that counts of one picture, so that the next one begins within 5 s
MAX_BESIDE_LIVE = 2  # pictures that are taken beside live frames: one is labelled, and one waits
REJECTED_PER_S = 5.0  # how many programs come again in a second
MAX_RETRY_AFTER_S = 60


class Turn(Struct):
    """The time of one picture. cost_s: of processors, as far as it is known."""

    cost_s: float = 0.0


class Admission:
    """Lets pictures begin. Threads may share it.

    Args:
        most: pictures at a time while there are no live frames.
        monotonic: seconds.
    """

    def __init__(self, most: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._monotonic = monotonic
        self._live: deque[tuple[float, bool]] = deque()  # of each live frame, when it ended, and whether it was dropped
        self._dropped = 0  # of these
        self._changed = threading.Condition()
        self._taken = 0
        self._running = 0
        self._next_at = 0.0  # when the next picture may begin while there is no time left
        self._retry_at = 0.0  # when the last one of those comes again that were told to

    def note(self, result: FrameResult) -> None:
        """Take the result of a live frame."""
        is_dropped = result.outcome == "dropped"
        with self._changed:
            self._live.append((self._monotonic(), is_dropped))
            self._dropped += is_dropped
            self._forget_old()

    @contextlib.contextmanager
    def turn(self, timeout_s: float) -> Iterator[Turn | None]:
        """Let the block label one picture; None if it may not begin in time."""
        ends = self._monotonic() + timeout_s
        with self._changed:
            while (wait_s := self._wait_s()) > 0:
                left_s = ends - self._monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(min(wait_s, left_s))
            may_begin = wait_s <= 0
            self._running += may_begin
        turn = Turn()
        try:
            yield turn if may_begin else None
        finally:
            if may_begin:
                self._end(turn)

    @contextlib.contextmanager
    def slot(self) -> Iterator[bool]:
        """Let the block be one of the few that read a picture and wait for its turn; False if there are enough."""
        with self._changed:
            self._forget_old()
            is_free = self._taken < (MAX_BESIDE_LIVE if self._live else self._most)
            self._taken += is_free
        try:
            yield is_free
        finally:
            with self._changed:
                self._taken -= is_free

    def retry_after_s(self) -> int:
        """Return when one more program that is told to come again should do so, in seconds from now."""
        with self._changed:
            now = self._monotonic()
            self._retry_at = min(max(self._retry_at, now) + 1 / REJECTED_PER_S, now + MAX_RETRY_AFTER_S)
            return math.ceil(self._retry_at - now)

    def _end(self, turn: Turn) -> None:
        with self._changed:
            self._running -= 1
            pause_s = min(turn.cost_s, MAX_COST_S) * (1 / PRESSED_SHARE - 1)
            self._next_at = self._monotonic() + pause_s
            self._changed.notify_all()

    def _wait_s(self) -> float:
        """Return how long to wait before asking again whether a picture may begin; 0 if it may."""
        self._forget_old()
        if self._running >= (1 if self._live else self._most):
            return WINDOW_S
        is_pressed = self._dropped > MAX_DROPPED * len(self._live)
        return max(0.0, self._next_at - self._monotonic()) if is_pressed else 0.0

    def _forget_old(self) -> None:
        oldest = self._monotonic() - WINDOW_S
        while self._live and self._live[0][0] < oldest:
            self._dropped -= self._live.popleft()[1]
