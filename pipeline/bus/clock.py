"""One clock for all hosts: a Redis client in, the time on its server's clock out."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.bus.connection import Redis

ROUND_TRIPS = 5
MEASURE_INTERVAL_S = 60.0


class Clock:
    """Return the time on Redis' clock, on any host.

    The offset between TIME and this process' monotonic clock is measured by the fastest of five round trips, once a
    minute, so a wrong or adjusted wall clock has no effect.
    """

    def __init__(self, client: Redis, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._monotonic = monotonic
        self._offset = 0.0
        self._measured_at = float("-inf")

    def now(self) -> float:
        """Return Unix seconds on Redis' clock; measure the offset first if the last measurement is a minute old."""
        if self._monotonic() - self._measured_at > MEASURE_INTERVAL_S:
            self.measure()
        return self._monotonic() + self._offset

    def measure(self) -> None:
        """Measure the offset: ask Redis for the time five times and use the fastest answer."""
        best = float("inf")
        for _ in range(ROUND_TRIPS):
            before = self._monotonic()
            seconds, micros = self._client.time()
            after = self._monotonic()
            if after - before < best:
                best = after - before
                self._offset = seconds + micros / 1e6 - (before + after) / 2
        self._measured_at = self._monotonic()
