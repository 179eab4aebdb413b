"""An access log: who looked at what, a JSON line for each request of somebody who may see something.

In: requests whose sender the SecurityMiddleware knows. Out: lines in a file, or on standard output. A WebSocket and an
MJPEG stream have a line when they begin and one when they end. Left out: files of the page itself, health and metrics,
which show nobody; and rejected requests, which are in the log of the process (viewer/security/rejection_log.py).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct
from werkzeug.wsgi import ClosingIterator

from pipeline.runtime.redaction import HIDDEN
from pipeline.runtime.settings import BadSettings
from viewer.security.api_tokens import PREFIX
from viewer.security.authenticator import session_of
from viewer.security.callers import CALLER_TOKEN
from viewer.security.rejection_log import connection_address
from viewer.security.wanted_page import LOGIN

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

STANDARD_OUTPUT, STDOUT_DESCRIPTOR = "-", 1
SESSION_CHARACTERS = 8  # of a session's id: enough to tell sessions apart
MAX_CHARACTERS = 500  # of what a request may choose: its path, its query, the address that a proxy reports
TOKEN = re.compile(PREFIX + r"[\w-]+")
SILENT = ("/static/", "/healthz", "/metrics", "/api/session")
WEBSOCKETS, STREAM_TYPE = "/socket.io/", "multipart/x-mixed-replace"
SIGNED_IN = "303"  # the status that answers a form with the right password

Phase = Literal["answered", "began", "ended"]


class AccessLine(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. who: "session ID", "token NAME", "local" where there is no password, or "sign-in".

    at: UTC. address: of the connection. forwarded_for: what a proxy reports of it, which a client may have forged.
    seconds: how long what has ended was open. status: None for a WebSocket, unless Engine.IO has refused it.
    """

    at: str
    phase: Phase
    who: str
    address: str
    method: str
    path: str
    forwarded_for: str = ""
    query: str = ""
    status: int | None = None
    seconds: float | None = None


class AccessLog:
    """WSGI middleware between the SecurityMiddleware and the application. write: takes each line."""

    def __init__(self, app: WSGIApplication, write: Callable[[AccessLine], None]) -> None:
        self._app = app
        self._write = write

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, and write that it was."""
        who = _sender(environ)
        if not who or environ["PATH_INFO"].startswith(SILENT):
            return self._app(environ, start_response)
        access = _Access(environ, who, self._write)

        def start(
            status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None, /
        ) -> Callable[[bytes], object]:
            access.answer(status, headers)
            return start_response(status, headers, exc_info)

        if access.is_stream:
            access.note("began")
            try:
                return self._app(environ, start)
            finally:
                access.note("ended")
        answer = self._app(environ, start)
        return ClosingIterator(answer, lambda: access.note("ended")) if access.is_stream else answer


class _Access:
    """One request. is_stream: its answer lasts until it is closed; known of a WebSocket before it is answered."""

    def __init__(self, environ: WSGIEnvironment, who: str, write: Callable[[AccessLine], None]) -> None:
        self.is_stream: bool = environ["PATH_INFO"].startswith(WEBSOCKETS)
        self._environ = environ
        self._who = who
        self._write = write
        self._status: int | None = None
        self._began_at = time.monotonic()

    def answer(self, status: str, headers: list[tuple[str, str]]) -> None:
        """Note the status of the answer."""
        if self._who == "sign-in" and not status.startswith(SIGNED_IN):
            return  # rejected
        self._status = int(status[:3])
        if self.is_stream:
            return  # a WebSocket that is refused: its last line has the status
        self.is_stream = any(name == "Content-Type" and value.startswith(STREAM_TYPE) for name, value in headers)
        self.note("began" if self.is_stream else "answered")

    def note(self, phase: Phase) -> None:
        """Write a line."""
        environ = self._environ
        self._write(
            AccessLine(
                at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                phase=phase,
                who=self._who,
                address=connection_address(environ),
                method=environ["REQUEST_METHOD"],
                path=_quoted(environ["PATH_INFO"]),
                forwarded_for=_quoted(environ.get("HTTP_X_FORWARDED_FOR", "")),
                query=_quoted(environ.get("QUERY_STRING", "")),
                status=self._status,
                seconds=round(time.monotonic() - self._began_at, 3) if phase == "ended" else None,
            )
        )


def open_access_log(path: str) -> Callable[[AccessLine], None]:
    """Return what writes lines to a file, or to standard output for "-". Threads may share it.

    Raises:
        BadSettings: the file cannot be written.
    """
    try:
        return _LogFile(path).write
    except OSError as error:
        raise BadSettings(f"--access-log {path}: {error.strerror}") from error


class _LogFile:
    """A file that is begun anew after it was moved away, as by logrotate; or standard output.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._is_whole = True  # no line is missing since the last one
        self._is_cut = False  # the last line has no end
        self._descriptor = STDOUT_DESCRIPTOR if path == STANDARD_OUTPUT else self._opened()

    def write(self, line: AccessLine) -> None:
        """Write a line. If that fails, a line of the process' log says so, until it succeeds again."""
        content = json.dumps(msgspec.to_builtins(line), separators=(",", ":")).encode() + b"\n"  # ASCII
        with self._lock:
            try:
                if self._path != STANDARD_OUTPUT:
                    self._follow()
                self._append(content)
            except OSError as error:
                if self._is_whole:
                    log.error("--access-log %s: lines are missing: %s", self._path, error.strerror)
                self._is_whole = False
            else:
                self._is_whole = True

    def _append(self, content: bytes) -> None:
        """Write a line, and end one before it of which the disk had room for a part."""
        left = b"\n" + content if self._is_cut else content
        while left:
            left = left[os.write(self._descriptor, left) :]
            self._is_cut = bool(left)

    def _follow(self) -> None:
        """Open the file that has the name now."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(Path(self._path).stat(), os.fstat(self._descriptor)):
                return
        following = self._opened()
        os.close(self._descriptor)
        self._descriptor, self._is_cut = following, False

    def _opened(self) -> int:
        # no request waits for the reader of a FIFO: while it does not read, lines are missing
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        return os.open(self._path, flags, 0o600)


def _quoted(text: str) -> str:
    """Return what a request has chosen, without tokens, which belong into a header."""
    return TOKEN.sub(HIDDEN, text)[:MAX_CHARACTERS]


def _sender(environ: WSGIEnvironment) -> str:
    """Return who sends a request; empty for somebody who may see nothing."""
    token: Any = environ.get(CALLER_TOKEN)
    if token:
        return f"token {token}"
    session = session_of(environ)
    if session is not None:
        return f"session {session.id[:SESSION_CHARACTERS]}" if session.id else "local"
    return "sign-in" if (environ["REQUEST_METHOD"], environ["PATH_INFO"]) == ("POST", LOGIN) else ""
