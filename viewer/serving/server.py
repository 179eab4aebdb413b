"""Serve a WSGI application with gunicorn: a master process and one worker process with threads.

The socket is bound before anything starts, so that a port in use is reported in one line. The master only supervises
the worker and replaces it if it dies; Redis connections and our threads exist in the worker alone. A signal to either,
or the end of the parent process, ends both. If the master is killed, the worker notices within a second and ends.

gunicorn reads requests in the threads that answer them. Slow and half-sent requests therefore occupy threads, each
until it has sent nothing for IDLE_TIMEOUT_S; on a network, a reverse proxy in front of the viewer prevents that.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from pipeline.runtime.worker_context import WorkerContext
from viewer.security.rejection_log import RejectionLog

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)

THREADS = 128  # one for each WebSocket and stream, and some for everything else
WORKER_STOP_TIMEOUT_S = 1  # how long the master waits for its worker before it kills it
# Kept open after an answer: gunicorn's main thread waits up to 2 s for the other end of a connection that it closes.
KEEP_ALIVE_S = 5
HEADER_BYTES, HEADERS = 4096, 50  # limits of a request; a browser with its cookies needs a tenth of them

Start = Callable[[ExitStack], tuple["WSGIApplication", WorkerContext]]


def page_url(listening: socket.socket, base_path: str) -> str:
    """Return the URL of the viewer for a browser on this machine. base_path: as in BasePathMiddleware."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 -- asked for by the user; a browser needs a real address
        host = "127.0.0.1"
    return f"http://[{host}]:{port}{base_path}/" if ":" in host else f"http://{host}:{port}{base_path}/"


def serve(listening: socket.socket, start: Start, rejections: RejectionLog) -> int:
    """Serve until a signal or the end of the parent; return the exit status.

    Args:
        start: creates the application and the worker's context, in the worker process; what must be cleaned up when
            the worker ends goes on the stack.
    """
    try:
        _Server(listening, start, rejections).run()
    except SystemExit as end:  # gunicorn's only way to return
        return 0 if end.code in (0, None) else 1
    return 0


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn with its configuration and hooks."""

    def __init__(self, listening: socket.socket, start: Start, rejections: RejectionLog) -> None:
        self._descriptor = listening.detach()
        self._start = start
        self._rejections = rejections
        self._cleanup = ExitStack()
        super().__init__()

    def load_config(self) -> None:
        """Configure gunicorn."""
        values = {
            "bind": f"fd://{self._descriptor}",
            "proc_name": "maskwatch view",
            "workers": 1,
            "worker_class": "gthread",
            "threads": THREADS,
            "graceful_timeout": WORKER_STOP_TIMEOUT_S,
            "keepalive": KEEP_ALIVE_S,
            "limit_request_line": HEADER_BYTES,
            "limit_request_field_size": HEADER_BYTES,
            "limit_request_fields": HEADERS,
            "control_socket_disable": True,
            "errorlog": None,
            "loglevel": "warning",
            "on_starting": self._configure_log,
            "worker_exit": self._worker_exit,
        }
        for name, value in values.items():
            self.cfg.set(name, value)

    def load(self) -> WSGIApplication:
        """Create the application; gunicorn calls this in the worker."""
        try:
            app, context = self._start(self._cleanup)
        except OSError as error:  # the metrics port is in use
            log.error("%s", error)
            raise SystemExit(Arbiter.APP_LOAD_ERROR) from error  # the master does not try again
        threading.Thread(target=_stop_with, args=(context, os.getppid()), name="stop", daemon=True).start()
        return app

    def _configure_log(self, _arbiter: Any) -> None:
        """Let gunicorn's log records reach our handlers."""
        gunicorn_log = logging.getLogger("gunicorn.error")
        gunicorn_log.propagate = True
        gunicorn_log.addFilter(self._is_worth_logging)

    def _is_worth_logging(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record; malformed requests go to the rejection log, which has a limit."""
        if str(record.msg).startswith("Invalid request"):
            self._rejections.log({}, ascii(record.getMessage()))
            return False
        return not (record.exc_info and isinstance(record.exc_info[1], (TimeoutError, BlockingIOError)))  # idle

    def _worker_exit(self, _arbiter: Any, worker: Any) -> None:
        """Clean up in the worker and exit; threads of open connections would keep Python from exiting by itself."""
        if worker.pid == os.getpid():
            self._cleanup.close()
            end = sys.exc_info()[1]  # the reason of the exit
            os._exit(end.code if isinstance(end, SystemExit) and isinstance(end.code, int) else 0)


def _stop_with(context: WorkerContext, master: int) -> None:
    """Wait until the context stops, then stop the master and with it this worker; QUIT waits for no open connection."""
    context.wait(threading.TIMEOUT_MAX)
    if os.getppid() == master:  # otherwise it was killed
        os.kill(master, signal.SIGQUIT)
