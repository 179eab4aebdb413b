"""Serve a process' metrics over HTTP: GET /metrics for those who show the token, or for this machine alone.

With a token the port listens on all interfaces and answers 401 to whoever does not show it; without one it listens on
loopback only. Strangers cost a count and one line a minute: at most `MOST` connections are open at once, and one that
says nothing is closed.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from pipeline.runtime import metrics

log = logging.getLogger(__name__)

MOST = 16
SILENT_S = 5.0  # a connection that sends nothing for so long is closed
TELL_S = 60.0  # refusals are logged at most so often
POLL_S = 0.1  # a process that ends waits so long for its port
LOOPBACK = "127.0.0.1"


@contextlib.contextmanager
def serving(port: int, token: str | None) -> Iterator[int]:
    """Serve this process' metrics while the block runs; yield the port. port: 0 takes a free one.

    Raises:
        OSError: the port is in use; the message says so in one line.
    """
    server = _Server(port, token)
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,), name="metrics", daemon=True)
    thread.start()
    taken = int(server.server_address[1])
    log.info("metrics on port %d, %s", taken, "with the token" if token else "for this machine alone: no token is set")
    try:
        yield taken
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def allowed(token: str, header: str | None) -> bool:
    """Return whether an Authorization header shows the token, in a time that says nothing about it."""
    scheme, _, shown = (header or "").partition(" ")
    return hmac.compare_digest(shown.strip().encode(), token.encode()) and scheme.lower() == "bearer"


def exposition(collector: Collector, accept: str | None) -> tuple[bytes, str]:
    """Return metrics as text, and its content type, in the format that a reader's Accept header asks for."""
    encode, content_type = choose_encoder(accept or "")
    return encode(collector), content_type


class RejectionCounter:
    """Count refused requests, and log one a minute."""

    def __init__(self) -> None:
        self._told_at = float("-inf")

    def note(self, address: str) -> None:
        """Note a request from this address."""
        metrics.refused.inc()
        if time.monotonic() - self._told_at > TELL_S:
            self._told_at = time.monotonic()
            log.warning("%s asked for metrics without the right token: refused, as more may be in this minute", address)


class _Server(socketserver.ThreadingTCPServer):
    """The port."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, port: int, token: str | None) -> None:
        self.token = token
        self.refusals = RejectionCounter()
        self._room = threading.BoundedSemaphore(MOST)
        both = token is not None and socket.has_dualstack_ipv6()
        self.address_family = socket.AF_INET6 if both else socket.AF_INET
        try:
            super().__init__(("" if token else LOOPBACK, port), _Request)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise OSError(f"cannot serve metrics on port {port}: {reason}; choose another --metrics-port") from error

    def server_bind(self) -> None:
        """Listen on IPv6 and IPv4 where there are both."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer, unless too many are being answered."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room for another."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 -- socketserver's signature
        """Leave a connection that broke off; log anything else as everything is logged."""
        if not isinstance(sys.exc_info()[1], OSError):
            log.exception("a request for metrics from %s failed", client_address[0])


class _Request(BaseHTTPRequestHandler):
    """One request."""

    timeout = SILENT_S
    server: _Server

    def do_GET(self) -> None:
        """Answer with the metrics, to whoever may read them."""
        token = self.server.token
        if token is not None and not allowed(token, self.headers.get("Authorization")):
            self.server.refusals.note(self.client_address[0])
            self._answer(HTTPStatus.UNAUTHORIZED, b"metrics need the token\n", "text/plain")
        elif self.path.partition("?")[0] != "/metrics":
            self._answer(HTTPStatus.NOT_FOUND, b"metrics are at /metrics\n", "text/plain")
        else:
            self._answer(HTTPStatus.OK, *exposition(REGISTRY, self.headers.get("Accept")))

    def version_string(self) -> str:
        """Say nothing about what runs here."""
        return "maskwatch"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- http.server's signature
        """Log no requests."""

    def _answer(self, status: HTTPStatus, content: bytes, content_type: str) -> None:
        self.send_response(status)
        if status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
