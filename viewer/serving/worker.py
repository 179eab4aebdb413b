"""gunicorn's worker, with threads for whole requests alone: who sends slowly, or nothing, holds none.

In: connections. Out: requests that have come completely, each to a thread; sockets and streams keep theirs as long as
they last. A request that does not come within ARRIVE_S in all, however its bytes drip, is refused and its connection
closed. So is the oldest of too many unfinished ones, so that there is always room for a request that comes at once.
What is no HTTP is answered with the headers that every answer has. All of it is logged within RejectionLog' limit.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import time
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn.http import errors
from gunicorn.workers.gthread import TConn, ThreadWorker

from viewer.security.middleware import HEADERS, MAX_BODY

ARRIVE_S = 10.0  # a request has come by then, or is refused
LEAVE_S = 2.0  # for the other end to take the answer and close; a close before that may cut the answer off
MAX_ARRIVING = 256  # connections with an unfinished request
MAX_LEAVING = 256  # connections that were answered and are not closed by the other end yet
MAX_HEAD = 16_384  # bytes of a request before its body: a browser with its cookies needs a quarter of it
READ_BYTES = 8192
HEAD_END = b"\r\n\r\n"
# Never less than gunicorn finds: then a thread would wait for the rest. What it refuses needs no body.
LENGTH = re.compile(rb"(?im)^content-length:[ \t]*(\d{1,4000})[ \t]*\r?$")
STATUS = {
    errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    errors.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
    errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
}
OURS = (errors.InvalidResponseHeader, errors.InvalidResponseHeaderName)  # gunicorn counts them among what came wrong
MAX_CHARACTERS = 200  # of what is told about a wrong request: it quotes it


class _Awaited:
    """A connection whose other end must do something until then. came: what it has sent."""

    __slots__ = ("came", "until_s")

    def __init__(self, within_s: float) -> None:
        self.until_s = time.monotonic() + within_s
        self.came = b""


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn ships no types
    """One process. All but `handle_error` runs in its main thread, which never waits for a connection.

    The application that it serves has `refusals`. Connections are not kept alive.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._refusals = self.app.refusals
        self._arriving: dict[TConn, _Awaited] = {}  # both in the order of their ends
        self._leaving: dict[TConn, _Awaited] = {}

    def enqueue_req(self, conn: TConn) -> None:
        """Take a new connection: wait for its request, then give it to a thread."""
        if len(self._arriving) >= MAX_ARRIVING:
            self._give_up(next(iter(self._arriving)), f"one of more than {MAX_ARRIVING} unfinished requests")
        self._arriving[conn] = _Awaited(ARRIVE_S)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._arrives, conn))

    def finish_request(self, conn: TConn, _done: Any) -> None:
        """Say that this was all, and let the other end close; gunicorn would wait for it here."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            ours = conn.sock.dup()  # a WebSocket's own thread may close the other at any moment
            ours.setblocking(False)
        except OSError:  # closed already
            self._close(conn)
            return
        conn.sock.close()
        conn.sock = ours
        if len(self._leaving) >= MAX_LEAVING:
            self._end(self._leaving, next(iter(self._leaving)))
        self._leaving[conn] = _Awaited(LEAVE_S)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._leaves, conn))

    def murder_pending(self) -> None:
        """Close what is late; gunicorn calls this at least once a second."""
        now = time.monotonic()
        for conn in [conn for conn, awaited in self._arriving.items() if awaited.until_s <= now]:
            self._give_up(conn, f"a request that has not come within {ARRIVE_S:g} s")
        for conn in [conn for conn, awaited in self._leaving.items() if awaited.until_s <= now]:
            self._end(self._leaving, conn)

    def handle_error(
        self,
        req: Any,  # noqa: ARG002 -- gunicorn's signature
        client: socket.socket,
        addr: Any,
        exc: Exception,
    ) -> None:
        """Answer what is no proper request, or failed in a way that nobody foresaw."""
        if isinstance(exc, errors.ParseException) and not isinstance(exc, OURS):
            status = STATUS.get(type(exc), HTTPStatus.BAD_REQUEST)
            self._refusals.tell(_from(addr), f"no proper request: {str(exc)!a:.{MAX_CHARACTERS}}")
        else:
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            self._refusals.tell(_from(addr), "answering it failed", exc)
        with contextlib.suppress(OSError):  # it is gone
            client.sendall(answer(status))

    def _arrives(self, conn: TConn, _sock: socket.socket) -> None:
        awaited = self._arriving.get(conn)
        if awaited is None or (came := _received(conn.sock)) is None:
            return  # given up in this very round, or there is nothing yet
        awaited.came += came
        if not came:
            self._end(self._arriving, conn)
        elif is_whole(awaited.came):
            self._forget(self._arriving, conn)
            conn.init()
            conn.parser.unreader.unread(awaited.came)
            super().enqueue_req(conn)
        elif HEAD_END not in awaited.came and len(awaited.came) > MAX_HEAD:
            self._forget(self._arriving, conn)
            self._refusals.tell(_from(conn.client), f"headers of more than {MAX_HEAD} bytes")
            with contextlib.suppress(OSError):
                conn.sock.send(answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
            self.finish_request(conn, None)

    def _leaves(self, conn: TConn, _sock: socket.socket) -> None:
        awaited = self._leaving.get(conn)
        if awaited is None or (came := _received(conn.sock)) is None:
            return
        awaited.came += came
        if not came or len(awaited.came) > MAX_HEAD:
            self._end(self._leaving, conn)

    def _give_up(self, conn: TConn, reason: str) -> None:
        """Close an unfinished one. One without a byte is not told of: browsers open some in advance."""
        if self._arriving[conn].came:
            self._refusals.tell(_from(conn.client), reason)
        self._end(self._arriving, conn)

    def _end(self, among: dict[TConn, _Awaited], conn: TConn) -> None:
        self._forget(among, conn)
        self._close(conn)

    def _forget(self, among: dict[TConn, _Awaited], conn: TConn) -> None:
        del among[conn]
        self.poller.unregister(conn.sock)

    def _close(self, conn: TConn) -> None:
        self.nr_conns -= 1
        conn.close()


def is_whole(came: bytes) -> bool:
    """Return whether a request has come completely, or so much of it that it can be refused."""
    head, end, body = came.partition(HEAD_END)
    length = max((int(found) for found in LENGTH.findall(head)), default=0)
    return bool(end) and (len(body) >= length or length > MAX_BODY)


def answer(status: HTTPStatus) -> bytes:
    """Return an answer that is given before any application is asked."""
    body = f"{status.phrase}\n"
    ours = HEADERS | {
        "Cache-Control": "no-store",
        "Connection": "close",
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(body)),
    }
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in ours.items())]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def _received(sock: socket.socket) -> bytes | None:
    """Return what has come: nothing when the other end is gone, None when there is nothing yet."""
    try:
        return sock.recv(READ_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _from(client: Any) -> dict[str, str]:
    """Return as much of a request's environment as is known of a connection."""
    return {"REMOTE_ADDR": str(client[0])}
