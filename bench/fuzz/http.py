"""Requests to the viewer, with and without a password: no answer of 500, no traceback, no growth, and it lives on."""

from __future__ import annotations

import secrets
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random

import cv2
import numpy as np

from bench.fuzz.mutate import ODD_TEXTS, arbitrary_bytes, mutated_bytes, mutated_text
from bench.fuzz.rounds import BrokenPromise, Round, noting
from bench.fuzz.viewer import Camera, Viewer, running_viewer
from pipeline.bus.connection import connect
from pipeline.bus.shards import Bus
from pipeline.runtime.embedded_server import embedded_server
from pipeline.runtime.settings import Settings
from viewer.security.authenticator import Authenticator, password_hash

REQUESTS = 100  # of a round, to each of the two viewers
CONNECTIONS = 10  # at once
ANSWER_S = 0.25  # how long to wait for the end of an answer; a stream has none
PATHS = (
    *("/", "/login", "/logout", "/healthz", "/api/status", "/api/session", "/metrics", "/static/page.js"),
    *("/cameras/door/snapshot.jpg", "/cameras/door/stream.mjpg", "/cameras/none/snapshot.jpg", "/static/../app.py"),
    *("/socket.io/?EIO=4&transport=websocket", "/socket.io/?EIO=4&transport=polling&sid=x", "/static/style.css"),
    *("/api/v1/cameras", "/api/v1/cameras/door", "/api/v1/cameras/door/snapshot.jpg", "/api/v1/status"),
    *("/api/v1/models", "/api/v1/jobs", "/api/v1/label", "/api/v1/label?timeout_s=0.1", "/api/v1/openapi.json"),
)
METHODS = ("GET", "GET", "GET", "POST", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "CONNECT", "get", "X")
TYPES = (
    *(
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=b",
        "multipart/form-data",
        "application/json",
    ),
    *(
        "image/jpeg",
        "image/png",
        "text/plain; charset=utf-7",
        "application/x-www-form-urlencoded; charset=\xff",
        "multipart/mixed; boundary=b",
    ),
)
MULTIPART = (
    '--b\r\nContent-Disposition: form-data; name="token"\r\n\r\nt\r\n--b\r\nContent-Disposition: form-data; '
    'name="password"; filename="x"\r\nContent-Type: text/plain; charset=utf-16\r\n\r\np\r\n--b--\r\n'
)
FORMS = ("token=t&password=p", "token=%ff&password=%ed%a0%80", MULTIPART, '{"token": 1}', "&" * 900, "")
HEADERS = (
    *("Range: bytes=0-", "If-None-Match: *", "If-Modified-Since: x", "Accept: */*;q=nan", "Accept-Encoding: gzip;q=2"),
    *(
        "Origin: null",
        "Origin: http://a",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Dest: document",
        "Expect: 100-continue",
    ),
    *("X-Forwarded-Proto: https", "X-Forwarded-For: 1.2.3.4", "Transfer-Encoding: chunked", "Connection: Upgrade"),
    *("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Cookie: a=b"),
    *(
        "Authorization: Bearer x",
        "Authorization: Basic =",
        "Content-Length: 99",
        "Content-Length: -1",
        "If-Range: \xff",
    ),
    *(
        "Accept-Language: \xff",
        "Referer: //[",
        "Connection: keep-alive",
        "Sec-WebSocket-Extensions: permessage-deflate",
    ),
)
COOKIES = ("session", "form", "device")


@contextmanager
def ready() -> Iterator[Round]:
    """Yield the round, with a viewer without a password, and one with a password and the cookie of a session."""
    image = np.full((48, 64, 3), 90, np.uint8)
    key, hashed = secrets.token_hex(16), password_hash("password of the fuzzer")
    cookie = Authenticator(Settings(password_hash=hashed, session_key=key)).new_cookie()
    with embedded_server() as server:
        server.wait()
        with (
            connect(server.url) as client,
            running_viewer(server.url) as unprotected,
            running_viewer(server.url, password_hash=hashed, session_key=key) as protected,
            ThreadPoolExecutor(CONNECTIONS) as pool,
        ):
            camera = Camera(Bus(client), "door", cv2.imencode(".jpg", image)[1].tobytes(), (64, 48))

            def one_round(random: Random) -> int:
                camera.publish()
                for viewer in (unprotected, protected):
                    requests = [request(random, viewer, cookie) for _ in range(REQUESTS)]
                    with noting(requests):
                        for _ in pool.map(send, [viewer] * REQUESTS, requests):
                            pass
                        send(
                            viewer,
                            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                            answers=True,
                        )
                        viewer.check()
                return 2 * REQUESTS

            yield one_round


def request(random: Random, viewer: Viewer, cookie: str) -> bytes:
    """Return a request: valid parts, damaged parts, or arbitrary bytes."""
    if random.random() < 0.05:
        return arbitrary_bytes(random)
    path = random.choice(PATHS)
    if random.random() < 0.6:
        path = mutated_text(random, path, PATHS)
    if random.random() < 0.7:
        path = urllib.parse.quote(path, safe="/?&=%:", errors="surrogatepass")
    method, body = random.choice(METHODS), random.choice(FORMS)
    if random.random() < 0.5:
        body = mutated_text(random, body, FORMS)
    packed = body.encode(errors="surrogatepass")[: random.choice((100, 4096, 5000))] if method == "POST" else b""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {_odd(random, viewer.url.partition('://')[2])}"]
    lines += [_odd(random, random.choice(HEADERS)) for _ in range(random.choice((0, 0, 1, 2, 4)))]
    if random.random() < 0.7:
        lines.append("Cookie: " + "; ".join(_cookies(random, cookie)))
    if packed or random.random() < 0.2:
        lines += [f"Content-Type: {_odd(random, random.choice(TYPES))}", f"Content-Length: {len(packed)}"]
    lines.append("Connection: close")
    head = "\r\n".join(lines).encode("latin-1", errors="backslashreplace") + b"\r\n\r\n"
    whole = head + packed
    return mutated_bytes(random, whole) if random.random() < 0.1 else whole


def send(viewer: Viewer, content: bytes, *, answers: bool = False) -> None:
    """Send a request and read what comes, for a while. answers: an answer must come.

    Raises:
        BrokenPromise: the answer is 500, or none came though one must.
    """
    received = b""
    with viewer.connect() as connection:
        try:
            connection.sendall(content)
            connection.settimeout(5.0 if answers else ANSWER_S)
            ends = time.monotonic() + 1.0
            while (piece := connection.recv(65_536)) and time.monotonic() < ends:
                received += piece[:200] if len(received) < 200 else b""
        except OSError:  # it has closed the connection, or waits for more
            pass
    status = received.split(b" ", 2)[1:2]
    if status == [b"500"] or (answers and not status):
        raise BrokenPromise(f"answered {received[:200]!r} to {content!r}")


def _odd(random: Random, text: str) -> str:
    return mutated_text(random, text, HEADERS) if random.random() < 0.15 else text


def _cookies(random: Random, cookie: str) -> Iterator[str]:
    yield f"maskwatch-session={_odd(random, cookie)}"
    while random.random() < 0.5:
        prefix = random.choice(("maskwatch-", "__Host-maskwatch-", ""))
        yield f"{prefix}{random.choice(COOKIES)}={_odd(random, random.choice((cookie, 'x', *ODD_TEXTS)))}"
