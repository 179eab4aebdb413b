"""The rate of what happens less than once a second, such as the pictures of a slow camera. Pure: times in, a rate out.

A count since the last heartbeat would be 0 most of the time, and such a camera would be shown as offline in between.
"""

from __future__ import annotations

SLOW_S = 1.0  # shorter intervals are counted by each heartbeat
INTERVALS = 3  # without an event, after which there is no rate any more


class SlowRate:
    """Watch one kind of event. now: on the monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._interval_s = 0.0

    def note(self, now: float) -> None:
        """Note an event."""
        if self._last is not None:
            self._interval_s = now - self._last
        self._last = now

    def get(self, now: float) -> float | None:
        """Return the rate, 1/s; None if events come faster than SLOW_S, or have ceased."""
        if self._last is None or self._interval_s <= SLOW_S or now - self._last > INTERVALS * self._interval_s:
            return None
        return 1 / self._interval_s
