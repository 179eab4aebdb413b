"""One clock for all hosts: a Redis client in, the time on its server's clock out."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.bus.cluster import server_time
from pipeline.bus.connection import Redis

ROUND_TRIPS = 5
# No further one after this time: a slow network would delay what the caller is about to do, such as renewing a lease.
ENOUGH_S = 0.3
MEASURE_INTERVAL_S = 60.0
TOLERANCE_S = 0.05  # an answer whose time differs by more, beyond its round trip, shows that the offset has changed


class Clock:
    """Return the time on Redis' clock, on any host; in a cluster on that of the primary that holds `key`.

    The offset between TIME and this process' monotonic clock is measured by the fastest of some round trips: once a
    minute, and when an answer of Redis shows that one of the clocks has stepped (a clock that was set, a suspended
    machine). So a wrong or adjusted wall clock of this host has no effect.

    Attributes:
        monotonic: this process' clock, in seconds.
    """

    def __init__(
        self, client: Redis, key: str = "{all}:processes", monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._key = key
        self.monotonic = monotonic
        self._offset = 0.0
        self._measured_at = float("-inf")

    def now(self) -> float:
        """Return Unix seconds on Redis' clock; measure the offset first if the last measurement is a minute old."""
        if self.monotonic() - self._measured_at > MEASURE_INTERVAL_S:
            self.measure()
        return self.monotonic() + self._offset

    def measure(self) -> None:
        """Measure the offset: ask Redis for the time up to five times and use the fastest answer."""
        best, offset = float("inf"), self._offset
        begun = self.monotonic()
        for _ in range(ROUND_TRIPS):
            before = self.monotonic()
            seconds, micros = server_time(self._client, self._key)
            after = self.monotonic()
            if after - before < best:
                best = after - before
                offset = seconds + micros / 1e6 - (before + after) / 2
            if after - begun > ENOUGH_S:
                break
        self._offset, self._measured_at = offset, self.monotonic()

    def expire(self) -> None:
        """Measure again before the next use: the connection was lost, and with it maybe the server."""
        self._measured_at = float("-inf")

    def compare(self, before: float, server: tuple[int | bytes, int | bytes]) -> None:
        """Compare the offset with the time in an answer of Redis, and measure it again if it has changed.

        Args:
            before: `monotonic()` before the request.
            server: seconds and microseconds of TIME.
        """
        after = self.monotonic()
        offset = int(server[0]) + int(server[1]) / 1e6 - (before + after) / 2
        if abs(offset - self._offset) > (after - before) / 2 + TOLERANCE_S:
            self.measure()
