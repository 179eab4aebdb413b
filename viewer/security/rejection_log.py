"""One line in the log for each thing that is refused: who asked, for what, and why not.

Somebody who asks a thousand times a second must not fill the disk: the lines have a limit too, and what was left out is
counted in the next one.
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
MAX_CHARACTERS = 200  # of what was asked for; it is somebody else's text


class RejectionLog:
    """The log of refusals. Threads may share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lines = TokenBucket(MAX_LINES, LINES_PER_S, clock())
        self._left_out = 0
        self._lock = threading.Lock()

    def tell(self, environ: Mapping[str, Any], reason: str, error: BaseException | None = None) -> None:
        """Log that what this request asks for was refused. error: what went wrong, if that is ours to mend."""
        with self._lock:
            if self._lines.take(1, self._clock()):
                self._left_out += 1
                return
            left_out, self._left_out = self._left_out, 0
        more = f" (and {left_out} more were refused before this one)" if left_out else ""
        log.log(
            logging.ERROR if error else logging.WARNING,
            "refused %s: %s%s",
            asked(environ),
            reason,
            more,
            exc_info=error,
        )


def asked(environ: Mapping[str, Any]) -> str:
    """Return who asked for what, on one line whatever it contains; who alone where nothing proper was asked for."""
    if "REQUEST_METHOD" not in environ:
        return address(environ)
    path = ascii(environ.get("PATH_INFO", ""))[:MAX_CHARACTERS]
    return f"{address(environ)} {environ['REQUEST_METHOD']} {path}"


def address(environ: Mapping[str, Any]) -> str:
    """Return the address that the connection comes from; what proxies say about it can be made up."""
    return str(environ.get("REMOTE_ADDR", ""))
