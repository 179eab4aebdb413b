"""One clock for all hosts: a Redis client in, the time on its server's clock out."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.bus.connection import Redis

CLOCK_TRIES = 5
CLOCK_S = 60.0


class Clock:
    """Tell the time as Redis' clock does, wherever this process runs.

    The offset between TIME and this process' monotonic clock is taken from the fastest of five round trips and taken
    again every minute, so neither a wrong wall clock nor a step of it matters.
    """

    def __init__(self, client: Redis, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._monotonic = monotonic
        self._offset = 0.0
        self._measured_at = float("-inf")

    def now(self) -> float:
        """Return Unix seconds on Redis' clock; it is measured first if a minute has passed."""
        if self._monotonic() - self._measured_at > CLOCK_S:
            self.measure()
        return self._monotonic() + self._offset

    def measure(self) -> None:
        """Ask Redis for the time, five times, and keep the fastest answer."""
        best = float("inf")
        for _ in range(CLOCK_TRIES):
            before = self._monotonic()
            seconds, micros = self._client.time()
            after = self._monotonic()
            if after - before < best:
                best = after - before
                self._offset = seconds + micros / 1e6 - (before + after) / 2
        self._measured_at = self._monotonic()
