"""WSGI middleware for WebSockets: limits how many are open, how much each may receive, and how long it lasts.

In: a request for a WebSocket, and the bytes that its page sends. Out: the same for Engine.IO. A WebSocket is closed
when its session ends, when its page sends more bytes than a page does, and when Engine.IO cannot decode a message.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Response

from viewer.security.authenticator import Authenticator, session_of
from viewer.security.rejection_log import RejectionLog
from viewer.security.token_bucket import TokenBucket
from viewer.serving.connection_limiter import FULL, ConnectionLimiter

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

WEBSOCKETS = "/socket.io/"
NOT_A_WEBSOCKET = "not a request for a WebSocket"
SOCKET = "gunicorn.socket"  # in a request's environment; Engine.IO finds its connection there
# How many bytes a page may send, control frames included: at once, and each second. Each message of at least
# EARNING_BYTES that the viewer sends, such as a frame, adds EARNED_BYTES; an acknowledgement takes less.
BURST_BYTES, BYTES_PER_S = 100_000, 8_000
EARNING_BYTES, EARNED_BYTES = 1_000, 200


class WebSocketLimiter:
    """WSGI middleware for the WebSockets among the requests."""

    def __init__(
        self,
        app: WSGIApplication,
        limiter: ConnectionLimiter,
        authenticator: Authenticator,
        rejections: RejectionLog,
    ) -> None:
        self._app = app
        self._limiter = limiter
        self._authenticator = authenticator
        self._rejections = rejections

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request; one for a WebSocket lasts as long as the WebSocket."""
        if not environ.get("PATH_INFO", "").startswith(WEBSOCKETS):
            return self._app(environ, start_response)
        if not _asks_for_websocket(environ):  # Engine.IO would answer some of these with a traceback in the log
            self._rejections.log(environ, NOT_A_WEBSOCKET)
            return Response(f"{NOT_A_WEBSOCKET}\n", 400)(environ, start_response)
        if not self._limiter.acquire():
            return Response(FULL, 503, {"Retry-After": "5"})(environ, start_response)
        environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)  # compressing JPEG again would only cost time
        environ[SOCKET] = _GuardedSocket(environ, self._authenticator, self._rejections)
        try:
            return self._app(environ, start_response)
        except (ValueError, RecursionError) as error:  # Engine.IO cannot decode a packet
            self._rejections.log(environ, "an invalid message; its WebSocket is closed")
            close_websocket(environ)
            raise StopIteration from error  # gunicorn closes the connection without an answer
        finally:
            self._limiter.release()


def close_websocket(environ: WSGIEnvironment) -> None:
    """Close the WebSocket of a request at once; what is on its way to us is not read any more."""
    with contextlib.suppress(OSError):  # closed already
        environ[SOCKET].shutdown(socket.SHUT_RDWR)


def _asks_for_websocket(environ: WSGIEnvironment) -> bool:
    """Return whether a request has the headers that open a WebSocket."""
    connection = environ.get("HTTP_CONNECTION", "").lower().split(",")
    return "upgrade" in map(str.strip, connection) and environ.get("HTTP_UPGRADE", "").lower() == "websocket"


class _GuardedSocket:
    """The connection of a WebSocket: counts what is received and sends only while the session is valid."""

    def __init__(self, environ: WSGIEnvironment, authenticator: Authenticator, rejections: RejectionLog) -> None:
        self._socket: socket.socket = environ[SOCKET]
        self._environ = environ
        self._session = session_of(environ)
        self._authenticator = authenticator
        self._rejections = rejections
        self._bucket = TokenBucket(BURST_BYTES, BYTES_PER_S, time.monotonic())

    def recv(self, size: int) -> bytes:
        """Return what was received; nothing, as at the end, when the page has sent too much."""
        received = self._socket.recv(size)
        if self._bucket.take(len(received), time.monotonic()) == 0:
            return received
        self._rejections.log(self._environ, "more messages than a page sends; its WebSocket is closed")
        close_websocket(self._environ)
        return b""

    def send(self, content: bytes) -> int:
        """Send all of it.

        Raises:
            BrokenPipeError: the connection is closed, or its session has ended.
        """
        if self._session is None or not self._authenticator.is_valid(self._session):
            close_websocket(self._environ)
            raise BrokenPipeError("the session has ended")
        try:
            self._socket.sendall(content)
        except OSError as error:
            raise BrokenPipeError("the connection is closed") from error  # the one that simple_websocket expects
        if len(content) >= EARNING_BYTES:
            self._bucket.give(EARNED_BYTES)
        return len(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)
