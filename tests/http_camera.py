"""HTTP cameras for tests: each has a manner of its own of sending JPEGs, and may ask for a password."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import io
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL import Image

REALM, NONCE = "camera", "5ae62b"
POLL_S = 0.02  # how soon a server notices that it is to end


def grey_jpeg(grey: int, size: tuple[int, int] = (64, 48), **options: object) -> bytes:
    """Return a JPEG of one grey, 0 to 255."""
    packed = io.BytesIO()
    Image.new("L", size, grey).save(packed, "JPEG", **options)
    return packed.getvalue()


@dataclass(kw_only=True)
class Manners:
    """How a camera behaves.

    jpegs: its pictures, in turn. wrap: what it sends for one of them. lead: what it sends first.
    is_still: one picture for each request. period_s: between two pictures of a stream; count: how many it sends before
    it falls silent, None for no end.
    password: of the user admin; None for none. scheme: how it is asked for. algorithm: of a digest.
    status: the answer to all requests; headers: what is added to them.
    """

    jpegs: list[bytes] = field(default_factory=lambda: [grey_jpeg(50), grey_jpeg(200)])
    content_type: str = "multipart/x-mixed-replace; boundary=picture"
    lead: bytes = b""
    wrap: Callable[[bytes], bytes] = lambda jpeg: b"--picture\r\nContent-Type: image/jpeg\r\n\r\n" + jpeg + b"\r\n"
    is_still: bool = False
    keeps_connection: bool = True
    period_s: float = 0.02
    count: int | None = None
    password: str | None = None
    scheme: str = "Basic"
    algorithm: str = "MD5"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class HttpCamera(http.server.ThreadingHTTPServer):
    """A camera that listens on a port of its own. connections, requests: how many it has had."""

    daemon_threads = True

    def __init__(self, manners: Manners) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.manners = manners
        self.connections = 0
        self.requests = 0
        self.closing = threading.Event()
        self.address = f"127.0.0.1:{self.server_port}/camera"
        self.url = f"http://{self.address}"


@contextmanager
def http_camera(manners: Manners) -> Iterator[HttpCamera]:
    """Serve a camera until the block ends."""
    with HttpCamera(manners) as camera:
        threading.Thread(target=camera.serve_forever, args=(POLL_S,), daemon=True).start()
        yield camera
        camera.closing.set()
        camera.shutdown()


class _Request(http.server.BaseHTTPRequestHandler):
    server: HttpCamera
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        manners = self.server.manners
        self.server.requests += 1
        with contextlib.suppress(ConnectionError):  # a client that leaves
            if manners.password is not None and not self._is_authorized(manners.password):
                digest = f', nonce="{NONCE}", qop="auth", algorithm={manners.algorithm}'
                extra = digest if manners.scheme == "Digest" else ""
                self._answer(401, {"WWW-Authenticate": f'{manners.scheme} realm="{REALM}"{extra}'}, b"no")
            elif manners.status != 200:
                self._answer(manners.status, manners.headers, b"")
            elif manners.is_still:
                jpeg = manners.jpegs[self.server.requests % len(manners.jpegs)]
                self._answer(200, {"Content-Type": manners.content_type}, jpeg)
                self.close_connection = not manners.keeps_connection
            else:
                self._stream(manners)

    def log_message(self, *_arguments: object) -> None:
        pass

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, manners: Manners) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", manners.content_type)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(manners.lead)
        sent = 0
        while manners.count is None or sent < manners.count:
            self.wfile.write(manners.wrap(manners.jpegs[sent % len(manners.jpegs)]))
            sent += 1
            if self.server.closing.wait(manners.period_s):
                return
        self.server.closing.wait()

    def _is_authorized(self, password: str) -> bool:
        header = self.headers.get("Authorization", "")
        if self.server.manners.scheme == "Basic":
            return header == "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()
        given = dict(re.findall(r'(\w+)="?([^",]*)"?', header))

        def hashed(*parts: str) -> str:
            name = self.server.manners.algorithm.replace("-", "").lower()
            return hashlib.new(name, ":".join(parts).encode()).hexdigest()

        secret, request = hashed("admin", REALM, password), hashed("GET", given.get("uri", ""))
        salt = (NONCE, given.get("nc", ""), given.get("cnonce", ""), "auth")
        return given.get("response") == hashed(secret, *salt, request)
