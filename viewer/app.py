"""The viewer: labelled live video in browsers.

In: results and pixels from Redis. Out: a page, a WebSocket for each browser, MJPEG, health and status over HTTP. While
Redis is away, the page and /healthz stay available and report it; frames are shown again as soon as it answers.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from flask import Flask

from events.event_database import EventDatabase
from pipeline.bus import status
from pipeline.runtime.settings import Settings
from pipeline.runtime.worker_context import WorkerContext, worker_context
from viewer import health
from viewer.api.events import event_operations
from viewer.api.label import InMemoryRequest, label_operation
from viewer.api.labeller import PictureLabeller
from viewer.api.reading import JobListing, reading_operations
from viewer.api.routes import add_api
from viewer.api.rules import rule_operations
from viewer.error_answers import add_error_answers
from viewer.live_view import LiveView
from viewer.metrics import add_metrics
from viewer.page_parts import check_page_parts
from viewer.pages.routes import add_record_pages
from viewer.routes import add_api_routes, add_media_routes
from viewer.security.access_log import AccessLine, AccessLog, open_access_log
from viewer.security.api_tokens import TokenStore, tokens_path
from viewer.security.authenticator import Authenticator
from viewer.security.login import add_login
from viewer.security.middleware import MAX_BODY, SecurityMiddleware
from viewer.security.rejection_log import RejectionLog
from viewer.security.sign_outs import SignOuts
from viewer.serving.base_path import BasePathMiddleware, base_path_of
from viewer.serving.connection_limiter import ConnectionLimiter
from viewer.serving.listening import listen
from viewer.serving.server import page_url, serve
from viewer.serving.websocket_limiter import WebSocketLimiter
from viewer.snapshots import Snapshots
from viewer.sockets import PageSockets

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)

STATUS_INTERVAL_S = 1.0
NEW_PAGES_INTERVAL_S = 0.1  # pages that connect within this time get their first status together


def main(settings: Settings, jobs: JobListing | None = None) -> int:
    """Serve until a signal or the end of the parent; return the exit status.

    Args:
        jobs: how training jobs are listed; None for no list of them.

    Raises:
        BadSettings: other machines would be served without a password, the base path is that of a route, or the access
            log cannot be written.
        PortInUse: the viewer cannot listen on its address.
        FileNotFoundError: a part of the page is missing.
    """
    check_page_parts()
    authenticator = Authenticator(settings)
    base_path = base_path_of(settings)
    access_log = open_access_log(settings.access_log) if settings.access_log else None
    listening = listen(settings.host, settings.port)
    authenticator.check_address(listening.getsockname()[0])  # a name may have resolved to another address before
    if settings.log_json:
        log.info("viewer at %s", page_url(listening, base_path))
    else:
        print(f"Viewer: {page_url(listening, base_path)}", flush=True)
    rejections = RejectionLog()

    def start(cleanup: ExitStack) -> tuple[WSGIApplication, WorkerContext]:
        return create_app(settings, authenticator, rejections, jobs, cleanup, access_log)

    return serve(listening, start, rejections)


def create_app(
    settings: Settings,
    authenticator: Authenticator,
    rejections: RejectionLog,
    jobs: JobListing | None,
    cleanup: ExitStack,
    access_log: Callable[[AccessLine], None] | None,
) -> tuple[WSGIApplication, WorkerContext]:
    """Create the application and start its threads, in the worker process."""
    context = cleanup.enter_context(worker_context("viewer", settings))
    app = Flask(__name__)
    app.request_class = InMemoryRequest
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.url_map.merge_slashes = False  # a path with other slashes than a route's is not found
    limiter = ConnectionLimiter(settings.max_viewers)
    sockets = PageSockets(app, rejections)
    labeller = PictureLabeller(context, settings.label_redis)
    live_view = LiveView(context, sockets.audience, labeller.settle, labeller.is_waiting)
    snapshots = Snapshots(context, live_view)
    database = EventDatabase(settings.database)
    add_error_answers(app, rejections)
    add_api_routes(app, context, authenticator, database)
    add_media_routes(app, context, live_view, snapshots, limiter, authenticator, rejections)
    operations = [*reading_operations(context, snapshots, jobs), label_operation(labeller)]
    operations += [*event_operations(database), *rule_operations(database)]
    add_api(app, operations, base_path_of(settings))
    add_record_pages(app, database, authenticator)
    add_login(app, authenticator, rejections)
    add_metrics(app, context, settings.metrics_token)
    sign_outs = SignOuts(context.client, authenticator)
    for work in (live_view.follow, lambda: broadcast_status(context, sockets, database, sign_outs)):
        threading.Thread(target=_run_or_exit, args=(context, work), daemon=True).start()
    # not monitored: a database that is away keeps its thread waiting, and nothing else
    threading.Thread(target=database.watch, args=(context.wait,), name="database", daemon=True).start()
    logged: WSGIApplication = AccessLog(app, access_log) if access_log else app
    limited = WebSocketLimiter(logged, limiter, authenticator, rejections)
    secured = SecurityMiddleware(limited, authenticator, TokenStore(tokens_path(settings)), rejections)
    return BasePathMiddleware(secured, base_path_of(settings)), context


def broadcast_status(
    context: WorkerContext, sockets: PageSockets, database: EventDatabase, sign_outs: SignOuts
) -> None:
    """Send health and status to every page once a second, and to a page that has connected; exchange sign-outs."""
    sent_at = float("-inf")
    while not context.wait(NEW_PAGES_INTERVAL_S):
        pages = sockets.take_new_pages()
        if is_due := time.monotonic() - sent_at >= STATUS_INTERVAL_S:
            sent_at = time.monotonic()
            sockets.audience.forget_stale()
            sockets.audience.probe_overdue()
            sign_outs.exchange()
        elif not pages:
            continue
        send = sockets.broadcast if is_due else partial(sockets.send, pages)
        send("health", msgspec.to_builtins(health.read_health(context, database)))
        with context.reconnecting():
            send("status", msgspec.to_builtins(status.read_status(context.bus)))


def _run_or_exit(context: WorkerContext, work: Callable[[], None]) -> None:
    """Do the work of a thread. If it fails, the process exits and is replaced, because it can no longer show frames."""
    try:
        with context.watchdog.monitor():
            work()
    finally:
        if context.should_run():
            log.critical("a thread of the viewer failed; the process is replaced", exc_info=True)
            os._exit(1)
