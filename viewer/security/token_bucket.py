"""A token bucket: a burst at once, and a steady rate after that."""

from __future__ import annotations

import threading


class TokenBucket:
    """Tokens that are used up and refilled. Threads may share it. Pure: the clock is an argument, monotonic seconds.

    Args:
        capacity: the tokens at first, and the most that there ever are.
        per_s: the tokens added each second.
    """

    def __init__(self, capacity: float, per_s: float, at_s: float) -> None:
        self._capacity = capacity
        self._per_s = per_s
        self._tokens = capacity
        self._at_s = at_s
        self._lock = threading.Lock()

    def take(self, amount: float, at_s: float) -> float:
        """Take tokens and return 0; if there are too few, take none and return the seconds until there are enough."""
        with self._lock:
            self._refill(at_s)
            if self._tokens < amount:
                return (amount - self._tokens) / self._per_s
            self._tokens -= amount
            return 0.0

    def give(self, amount: float) -> None:
        """Add tokens, up to the capacity."""
        with self._lock:
            self._tokens = min(self._capacity, self._tokens + amount)

    def is_full(self, at_s: float) -> bool:
        """Return whether no token is missing."""
        with self._lock:
            self._refill(at_s)
            return self._tokens >= self._capacity

    def _refill(self, at_s: float) -> None:
        self._tokens = min(self._capacity, self._tokens + self._per_s * max(0.0, at_s - self._at_s))
        self._at_s = at_s
