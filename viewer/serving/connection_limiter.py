"""A limit to how many sockets and MJPEG streams are open at once: each holds a thread for as long as it lasts."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

SOCKETS = "/socket.io/"
SILENT_S = 20  # a page answers a ping every 5 s; a socket that says nothing for so long is closed
FULL = "the viewer has as many viewers as it takes; --max-viewers sets how many"


class ConnectionLimiter:
    """So many, and no more."""

    def __init__(self, most: int) -> None:
        self._free = threading.BoundedSemaphore(most)

    def take(self) -> bool:
        """Take a seat; False when none is free."""
        return self._free.acquire(blocking=False)

    def give_back(self) -> None:
        """Give a seat back."""
        self._free.release()


class LimitedSockets:
    """WSGI: each socket sits for as long as its request lasts, which is as long as the socket; the next gets 503."""

    def __init__(self, app: WSGIApplication, seats: ConnectionLimiter) -> None:
        self._app = app
        self._seats = seats

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        if not environ.get("PATH_INFO", "").startswith(SOCKETS):
            return self._app(environ, start_response)
        if not self._seats.take():
            start_response("503 Service Unavailable", [("Content-Type", "text/plain"), ("Retry-After", "5")])
            return [FULL.encode()]
        environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)  # JPEG does not get smaller by being deflated once more
        # by the kernel, not by settimeout(), under which Python may send half a message
        environ["gunicorn.socket"].setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", SILENT_S, 0))
        try:
            return self._app(environ, start_response)
        finally:
            self._seats.give_back()
