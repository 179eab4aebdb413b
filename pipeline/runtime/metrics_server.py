"""Serve a process' metrics over HTTP at GET /metrics: prometheus_client's WSGI app behind a token check.

With a token the port listens on all interfaces and answers 401 without it; without a token it listens on loopback only.
Rejected requests are counted, and logged once a minute. At most `MAX_CONNECTIONS` connections are served at once, and
one that sends nothing for `IDLE_TIMEOUT_S` is closed.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer, choose_encoder
from prometheus_client.registry import Collector

from pipeline.runtime import metrics

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 16
IDLE_TIMEOUT_S = 5.0
LOG_INTERVAL_S = 60.0
SHUTDOWN_POLL_S = 0.1  # how often the server checks whether its process ends
LOOPBACK = "127.0.0.1"


@contextlib.contextmanager
def serve_metrics(port: int, token: str | None) -> Iterator[int]:
    """Serve this process' metrics while the block runs; yield the port. port: 0 takes a free one.

    Raises:
        OSError: the port is in use; the message says so in one line.
    """
    server_class = _DualStackServer if token and socket.has_dualstack_ipv6() else ThreadingWSGIServer
    try:
        server = server_class(("" if token else LOOPBACK, port), _Request)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise OSError(f"cannot serve metrics on port {port}: {reason}; choose another --metrics-port") from error
    server.set_app(_metrics_app(token))
    thread = threading.Thread(target=server.serve_forever, args=(SHUTDOWN_POLL_S,), name="metrics", daemon=True)
    thread.start()
    log.info(
        "metrics on port %d, %s", server.server_port, "with the token" if token else "loopback only: no token is set"
    )
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def has_token(token: str, header: str | None) -> bool:
    """Return whether an Authorization header contains the token, in constant time."""
    scheme, _, shown = (header or "").partition(" ")
    return hmac.compare_digest(shown.strip().encode(), token.encode()) and scheme.lower() == "bearer"


def exposition(collector: Collector, accept: str | None) -> tuple[bytes, str]:
    """Return metrics as text, and its content type, in the format that an Accept header asks for."""
    encode, content_type = choose_encoder(accept or "")
    return encode(collector), content_type


class RejectionCounter:
    """Count rejected requests, and log one a minute."""

    def __init__(self) -> None:
        self._logged_at = float("-inf")

    def note(self, address: str) -> None:
        """Count a request from this address."""
        metrics.rejected.inc()
        if time.monotonic() - self._logged_at > LOG_INTERVAL_S:
            self._logged_at = time.monotonic()
            log.warning(
                "rejected a request for metrics without the right token from %s (logged once a minute)", address
            )


def _metrics_app(token: str | None) -> WSGIApplication:
    """Return the app. token: what requests must contain; None accepts all."""
    metrics_page: WSGIApplication = make_wsgi_app()
    rejections = RejectionCounter()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def answer(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [*headers, ("Server", "maskwatch")], exc_info)

        if token is not None and not has_token(token, environ.get("HTTP_AUTHORIZATION")):
            rejections.note(environ["REMOTE_ADDR"])
            answer("401 Unauthorized", [("WWW-Authenticate", "Bearer"), ("Content-Type", "text/plain")])
            return [b"metrics need the token\n"]
        if environ["PATH_INFO"] != "/metrics":
            answer("404 Not Found", [("Content-Type", "text/plain")])
            return [b"metrics are at /metrics\n"]
        return metrics_page(environ, answer)

    return app


class _DualStackServer(ThreadingWSGIServer):
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        """Listen on IPv4 too, whatever the system's default is."""
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class _Request(WSGIRequestHandler):
    timeout = IDLE_TIMEOUT_S
    connections = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def handle(self) -> None:
        """Serve a connection, unless too many are open."""
        if self.connections.acquire(blocking=False):
            try:
                with contextlib.suppress(OSError):  # it was idle, or closed by the other side
                    super().handle()
            finally:
                self.connections.release()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- http.server's signature
        """Log no requests."""
