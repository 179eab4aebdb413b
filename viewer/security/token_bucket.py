"""So much at once, and so much a second after that."""

from __future__ import annotations

import threading


class TokenBucket:
    """What somebody may use up. Threads may share it. Pure: the clock is an argument, monotonic seconds.

    Args:
        most: so much is there at first, and never more.
        per_s: so much comes back a second.
    """

    def __init__(self, most: float, per_s: float, at_s: float) -> None:
        self._most = most
        self._per_s = per_s
        self._left = most
        self._at_s = at_s
        self._lock = threading.Lock()

    def take(self, amount: float, at_s: float) -> float:
        """Take so much and return 0; if there is less, take nothing and return in how many seconds there will be."""
        with self._lock:
            self._refill(at_s)
            if self._left < amount:
                return (amount - self._left) / self._per_s
            self._left -= amount
            return 0.0

    def give(self, amount: float) -> None:
        """Give so much back, or let it be earned."""
        with self._lock:
            self._left = min(self._most, self._left + amount)

    def is_full(self, at_s: float) -> bool:
        """Return whether nothing of it is used up."""
        with self._lock:
            self._refill(at_s)
            return self._left >= self._most

    def _refill(self, at_s: float) -> None:
        self._left = min(self._most, self._left + self._per_s * max(0.0, at_s - self._at_s))
        self._at_s = at_s
