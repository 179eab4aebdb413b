"""A limit on the WebSockets and MJPEG streams that are open at once: each of them occupies a thread until it ends."""

from __future__ import annotations

import threading

FULL = "the viewer has as many open connections as --max-viewers allows"


class ConnectionLimiter:
    """A counter of open connections with a maximum. Threads may share it."""

    def __init__(self, maximum: int) -> None:
        self._free = threading.BoundedSemaphore(maximum)

    def acquire(self) -> bool:
        """Count one more connection; return False when the maximum is reached."""
        return self._free.acquire(blocking=False)

    def release(self) -> None:
        """Count one connection less."""
        self._free.release()
