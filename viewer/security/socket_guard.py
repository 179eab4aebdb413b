"""A WebSocket that trusts nobody: what a page may send has a size, a form and a rate, and ends with its session.

In: what a page sends. Out: what Engine.IO and Socket.IO understand. Anything else is refused and closes the socket;
they would answer it with a traceback, and hold a message of any size before they look at its size.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from engineio.async_drivers._websocket_wsgi import SimpleWebSocketWSGI
from simple_websocket import ConnectionClosed  # type: ignore[import-untyped]  # it ships none

from viewer.security.authenticator import Authenticator, Session, session_of
from viewer.security.rejection_log import RejectionLog
from viewer.security.token_bucket import TokenBucket

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

MAX_RECEIVED = 20_000  # bytes of one message from a page
# What a page may send, in bytes. Each message takes MESSAGE beside its bytes; each that is sent to the page, most of
# all frames, lets it earn ANSWER, which is more than an acknowledgement takes. The rest is for what a hand can do.
MOST, PER_S = 100_000, 8_000
MESSAGE, ANSWER = 200, 400
CONTROL = frozenset({"1", "3", "40", "41"})  # close, pong, connect, disconnect
EVENT = "42"  # before the JSON of an event: a list, its name first
Word: TypeAlias = str | int | float | bool | None
Event: TypeAlias = list[Word | list[Word | list[Word]]]  # deeper than any event of ours, and no deeper
POLL_INTERVAL_S = 1.0  # how often a silent socket is looked at


def guard(server: Any, access: Authenticator, refusals: RejectionLog) -> None:
    """Let an Engine.IO server use this WebSocket; it offers no other way to choose one."""
    server._async = server._async | {"websocket": partial(GuardedSocket, access=access, refusals=refusals)}


class GuardedSocket(SimpleWebSocketWSGI):  # type: ignore[misc]  # Engine.IO ships no types
    """One page's WebSocket, with the methods that Engine.IO calls."""

    def __init__(self, handler: Any, server: Any, *, access: Authenticator, refusals: RejectionLog) -> None:
        super().__init__(handler, server, max_message_size=MAX_RECEIVED)
        self._access = access
        self._refusals = refusals
        self._allowance = TokenBucket(MOST, PER_S, time.monotonic())
        self._session: Session | None = None
        self._environ: WSGIEnvironment = {}
        self._is_over = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve the socket until it closes."""
        self._environ = environ
        self._session = session_of(environ)
        behind = environ | {"gunicorn.socket": _Metered(environ["gunicorn.socket"], self._take)}
        served: Iterable[bytes] = super().__call__(behind, start_response)
        return served

    def send(self, message: str | bytes) -> None:
        """Send a message.

        Raises:
            OSError: the socket is closed, or its session has ended.
        """
        if self._session is None or not self._access.lasts(self._session):
            self._close()
            raise OSError("the session has ended")
        super().send(message)
        self._allowance.give(ANSWER)

    def wait(self) -> str | bytes | None:
        """Return the next message; None when the socket is closed."""
        try:
            message: str | bytes | None = None
            while message is None:  # silence, or a message that was too big: the next look finds out
                message = self.ws.receive(POLL_INTERVAL_S)
        except ConnectionClosed:
            if self.ws.incoming_message_len > MAX_RECEIVED:
                self._refuse(f"a message of more than {MAX_RECEIVED} bytes")
            return None
        if not self._take(MESSAGE):
            return None
        if not is_said_by_a_page(message):
            self._refuse("a message that no page sends")
            return None
        return message

    def close(self) -> None:
        """Close the socket; it may have been closed from the other side at this very moment."""
        with contextlib.suppress(OSError, ConnectionClosed):
            super().close()

    def _take(self, amount: int) -> bool:
        """Take from what the page may send; when it has sent too much, its socket is closed."""
        if self._allowance.take(amount, time.monotonic()) == 0:
            return True
        self._refuse("more messages than a page sends")
        return False

    def _refuse(self, reason: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._refusals.tell(self._environ, f"{reason}; its socket is closed")
        self._close()

    def _close(self) -> None:
        """Close at once: what is on its way to us is not read any more."""
        with contextlib.suppress(OSError):  # closed already
            self._environ["gunicorn.socket"].shutdown(socket.SHUT_RDWR)


def is_said_by_a_page(message: str | bytes) -> bool:
    """Return whether a message is one of those few that a page sends."""
    if not isinstance(message, str) or not message.startswith(EVENT):
        return message in CONTROL
    try:
        event = msgspec.json.decode(message[len(EVENT) :], type=Event)
    except msgspec.MsgspecError:
        return False
    return bool(event) and isinstance(event[0], str)


class _Metered:
    """A socket of which it is counted what is read, control messages included."""

    def __init__(self, behind: socket.socket, take: Any) -> None:
        self._behind = behind
        self._take = take

    def recv(self, size: int) -> bytes:
        """Return what came, nothing when the page has sent too much."""
        came = self._behind.recv(size)
        return came if self._take(len(came)) else b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)
