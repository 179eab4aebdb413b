"""The viewer: labelled live video in browsers.

In: results and pixels from Redis. Out: a page, a socket for each browser, MJPEG, health and status over HTTP. While
Redis is away the page and /healthz stay up and say so; pictures come back by themselves.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from flask import Flask

from pipeline.bus import status
from pipeline.runtime.settings import Settings
from pipeline.runtime.worker_context import WorkerContext, worker_context
from viewer import health
from viewer.metrics import add_metrics
from viewer.routes import add_routes
from viewer.security.authenticator import Authenticator
from viewer.security.login import add_login
from viewer.security.middleware import SecurityMiddleware
from viewer.security.rejection_log import RejectionLog
from viewer.serving.connection_limiter import ConnectionLimiter, LimitedSockets
from viewer.serving.server import PortInUse, listen, serve, url
from viewer.sockets import Sockets
from viewer.watch import Watch

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["PortInUse", "main"]

log = logging.getLogger(__name__)

STATUS_S = 1.0
FROM_NPM = Path(__file__).parent / "static" / "vendor" / "socket.io.min.js"


def main(settings: Settings) -> int:
    """Serve until a signal or the parent's end; return the exit status.

    Raises:
        BadSettings: others than this machine would be served without a password.
        PortInUse: it cannot listen there.
        FileNotFoundError: the page is not complete.
    """
    if not FROM_NPM.is_file():
        raise FileNotFoundError("the page's part from npm is missing; `make setup` fetches it")
    access = Authenticator(settings)
    listening = listen(settings.host, settings.port)
    access.check_address(listening.getsockname()[0])  # a name may have meant another address when it was checked
    if settings.log_json:
        log.info("viewer at %s", url(listening))
    else:
        print(f"Viewer: {url(listening)}", flush=True)
    refusals = RejectionLog()
    return serve(listening, lambda tidy: start(settings, access, refusals, tidy), refusals)


def start(
    settings: Settings, access: Authenticator, refusals: RejectionLog, tidy: ExitStack
) -> tuple[WSGIApplication, WorkerContext]:
    """Make the app and start its threads, in the process that serves."""
    context = tidy.enter_context(worker_context("viewer", settings))
    app = Flask(__name__)
    seats = ConnectionLimiter(settings.max_viewers)
    sockets = Sockets(app, access, refusals)
    watch = Watch(context, sockets.audience)
    add_routes(app, context, watch, seats, access, refusals)
    add_login(app, access, refusals)
    add_metrics(app, context, settings.metrics_token)
    for work in (watch.follow, lambda: tell_status(context, sockets)):
        threading.Thread(target=_keep_alive, args=(context, work), daemon=True).start()
    return SecurityMiddleware(LimitedSockets(app, seats), access, refusals), context


def tell_status(context: WorkerContext, sockets: Sockets) -> None:
    """Tell every page once a second how things are."""
    while not context.wait(STATUS_S):
        sockets.audience.forget_stale()
        sockets.tell_all("health", msgspec.to_builtins(health.read(context)))
        with context.reconnecting():
            sockets.tell_all("status", msgspec.to_builtins(status.read(context.client, context.clock)))


def _keep_alive(context: WorkerContext, work: Callable[[], None]) -> None:
    """Do a thread's work. If it fails so does the process, and another takes its place: no page without pictures."""
    try:
        with context.watchdog.monitor():
            work()
    finally:
        if context.should_run():
            log.critical("a thread of the viewer ended; starting over", exc_info=True)
            os._exit(1)
