"""A log line for each rejected request: its address, method and path, and the reason.

The lines have a limit, so that many requests do not fill the disk; the next line counts those that were left out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from viewer.security.token_bucket import TokenBucket

log = logging.getLogger(__name__)

MAX_LINES, LINES_PER_S = 100, 1.0
MAX_CHARACTERS = 200  # of a path and of a reason: both may quote the request


class RejectionLog:
    """The log of rejected requests. Threads may share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lines = TokenBucket(MAX_LINES, LINES_PER_S, clock())
        self._left_out = 0
        self._lock = threading.Lock()

    def log(self, environ: Mapping[str, Any], reason: str) -> None:
        """Log that a request was rejected. environ: its WSGI environment; empty for one that could not be parsed."""
        with self._lock:
            if self._lines.take(1, self._clock()):
                self._left_out += 1
                return
            left_out, self._left_out = self._left_out, 0
        more = f" (and {left_out} more before this one)" if left_out else ""
        log.warning("rejected %s: %.*s%s", describe_request(environ), MAX_CHARACTERS, reason, more)


def describe_request(environ: Mapping[str, Any]) -> str:
    """Return a request's address, method and path on one line, whatever characters it contains."""
    if not environ:
        return "a malformed request"
    path = ascii(environ.get("PATH_INFO", ""))[:MAX_CHARACTERS]
    return f"{connection_address(environ)} {environ['REQUEST_METHOD']} {path}"


def connection_address(environ: Mapping[str, Any]) -> str:
    """Return the address that the connection comes from; the headers of a proxy can be forged."""
    return str(environ.get("REMOTE_ADDR", ""))
