"""One gunicorn worker with threads, on a socket that is bound before anything starts.

gunicorn's master only watches over the worker and starts another if it dies. Nothing that a fork would break (Redis,
threads) lives in the master. Whatever ends the one ends the other, within the time that a supervisor waits; a master
that is killed takes its worker with it at once, for the worker holds the port too.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import AppImportError
from gunicorn.glogging import Logger

from pipeline.runtime.logs import is_json
from pipeline.runtime.worker_context import WorkerContext
from viewer.security.rejection_log import RejectionLog
from viewer.serving.worker import Worker

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)

THREADS = 128  # one for each socket or stream, and some for everything else
GRACE_S = 1  # requests under way may take so long when the viewer ends
LEAVE_S = 0.7  # the worker ends by itself before its master would kill it
PORT_S = 1.5  # a port in use may become free for so long: a viewer that was just ended lets go of it
PORT_RETRY_S = 0.05
HEADER_BYTES, HEADERS = 4096, 50  # of a request: a browser with its cookies needs a tenth of it
UNREAD_MS = 20_000  # a connection whose other end takes nothing for so long is closed by the kernel

Start = Callable[[ExitStack], tuple["WSGIApplication", WorkerContext]]


class PortInUse(Exception):
    """The viewer cannot listen where it was told to; the message says why and what to do."""


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one.

    Raises:
        PortInUse: the port is in use, or the address is not this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = _bind((str(address[0]), int(address[1])), family)
    except OSError as error:
        number = error.errno or 0  # negative for a name that is not found
        reason = os.strerror(number) if number > 0 else error.strerror
        raise PortInUse(f"cannot listen on {host} port {port}: {reason}; choose another --port or --host") from error
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; accepted connections inherit it
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
    return listening


def _bind(address: tuple[str, int], family: socket.AddressFamily) -> socket.socket:
    """Listen there, waiting a little for a port in use."""
    ends = time.monotonic() + PORT_S
    while True:
        try:
            return socket.create_server(address, family=family, backlog=256)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > ends:
                raise
        time.sleep(PORT_RETRY_S)


def url(listening: socket.socket) -> str:
    """Return where a browser on this machine finds the viewer."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 -- asked for by the user; a browser needs a real address
        host = "127.0.0.1"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve(listening: socket.socket, start: Start, refusals: RejectionLog) -> int:
    """Serve until a signal or the parent's end; return the exit status.

    Args:
        start: makes the app inside the process that serves, and says when that process should end; what must be tidied
            up behind it goes on the stack.
        refusals: of connections that ask for nothing proper.
    """
    try:
        _Server(listening, start, refusals).run()
    except SystemExit as end:  # gunicorn's only way to return
        return 0 if end.code in (0, None) else 1
    return 0


class _Log(Logger):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's messages go where all of ours go, in the same form."""

    def setup(self, cfg: Any) -> None:
        """Take gunicorn's own way of writing away."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        self.error_log.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out connections that the kernel closed because nobody read them: UNREAD_MS wants it so."""
    return not (record.exc_info and isinstance(record.exc_info[1], TimeoutError))


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn, configured here and nowhere else."""

    def __init__(self, listening: socket.socket, start: Start, refusals: RejectionLog) -> None:
        self.refusals = refusals
        self._descriptor = listening.detach()
        self._start = start
        self._tidy = ExitStack()
        self._master_gone, self._master_here = os.pipe()  # the latter stays open in the master alone
        super().__init__()

    def load_config(self) -> None:
        """Tell gunicorn how to run."""
        values = {
            "bind": f"fd://{self._descriptor}",
            "workers": 1,
            "worker_class": Worker,
            "threads": THREADS,
            "graceful_timeout": GRACE_S,
            "keepalive": 0,  # a page asks for four files, then all goes over its socket
            "limit_request_line": HEADER_BYTES,
            "limit_request_field_size": HEADER_BYTES,
            "limit_request_fields": HEADERS,
            "control_socket_disable": True,
            "logger_class": _Log,
            "loglevel": "warning",
            "post_fork": self._forked,
            "post_worker_init": self._started,
            "worker_exit": self._ended,
        }
        for name, value in values.items():
            self.cfg.set(name, value)

    def load(self) -> WSGIApplication:
        """Make the app; gunicorn calls this in the worker."""
        try:
            app, self._running = self._start(self._tidy)
        except OSError as error:  # the metrics port is in use
            if is_json():
                log.error("%s", error)
                raise SystemExit(Arbiter.APP_LOAD_ERROR) from error  # as below, which would print a line of text
            raise AppImportError(str(error)) from error  # gunicorn's way to say: do not try again
        return app

    def _forked(self, _server: Any, _worker: Any) -> None:
        os.close(self._master_here)
        threading.Thread(target=self._end_with_master, name="master", daemon=True).start()

    def _end_with_master(self) -> None:
        """End at once when the master is gone, kill -9 included: its end of the pipe closes however it dies."""
        os.read(self._master_gone, 1)
        os._exit(1)

    def _started(self, worker: Any) -> None:
        threading.Thread(target=self._end_with, args=(worker,), name="end", daemon=True).start()

    def _end_with(self, worker: Any) -> None:
        """Wait until this process should end, then end it and its master, however many connections are open."""
        self._running.wait(threading.TIMEOUT_MAX)
        if os.getppid() == worker.ppid:
            os.kill(worker.ppid, signal.SIGTERM)
        worker.handle_exit(signal.SIGTERM, None)
        time.sleep(LEAVE_S)
        os._exit(0)

    def _ended(self, _server: Any, worker: Any) -> None:
        """Tidy up in the worker; leave without waiting for threads that still speak to somebody."""
        if worker.pid == os.getpid():
            self._tidy.close()
            end = sys.exc_info()[1]  # what the worker is leaving with
            os._exit(end.code if isinstance(end, SystemExit) and isinstance(end.code, int) else 0)
