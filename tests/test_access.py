"""Access to a viewer with a password, tested as a process: sign-in, sessions, and requests that must be rejected.

Each attack is rejected and logged, and a browser that is signed in goes on receiving labelled frames.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import requests
import simple_websocket
from click.testing import CliRunner
from conftest import wait_until
from feeding import Feed, Page, Viewer, face, feeding, serving, viewing
from wsproto.events import Ping

from commands.password import password
from pipeline.runtime.settings import BadSettings, Settings
from viewer.security.authenticator import (
    DEVICE_RETENTION_S,
    SESSION_DURATION_S,
    Authenticator,
    check_access_settings,
    password_hash,
)
from viewer.security.login_throttle import ALL_BURST, ONE_BURST, LoginThrottle
from viewer.security.middleware import HEADERS, MAX_BODY
from viewer.security.rejection_log import MAX_LINES, RejectionLog
from viewer.serving.listening import IDLE_TIMEOUT_S
from viewer.serving.websocket_limiter import BURST_BYTES
from viewer.sockets import MAX_MESSAGE

PASSWORD = "correct horse battery staple"  # noqa: S105 -- it opens nothing
HASH = password_hash(PASSWORD)
TOKEN = "a token for metrics alone"  # noqa: S105
KEY = "a key that signs the sessions of these tests"
SETTINGS = Settings(password_hash=HASH, session_key=KEY)
KNOWN = Authenticator(SETTINGS)  # another viewer with the same key: what it signs holds on the one that is tested
TRAVERSALS = [
    "/cameras/../../etc/passwd/snapshot.jpg",
    "/cameras/..%2f..%2fetc%2fpasswd/snapshot.jpg",
    "/cameras/..%5c..%5csecret/stream.mjpg",
    "/cameras/demo%00/snapshot.jpg",
    "/cameras/DEMO/stream.mjpg",
    "/static/..%2faccess.py",
    "/static//etc/passwd",
]

NONSENSE = [
    *[
        "",
        "z",
        "4",
        "4{}",
        "4true",
        "4null",
        '42["probe",' + 200 * "9" + "]",
        "40",
        "42",
        "42[",
        "42{}",
        "42[7]",
        "42" + 9000 * "[",
        "4" + 9000 * "[",
        "43[]",
        "451-[]",
    ],
    *['40/other,{"a":1}', "44", "49", "b!", "bAA==", b"\x00"],
]
IGNORED = ["3", "5", "9", "2probe"]  # Engine.IO's own packets, which it ignores at the wrong time


class Watcher(Page):
    """The WebSocket of a browser that is signed in."""

    def __init__(self, viewer: Viewer, cookie: str) -> None:
        address = viewer.url.replace("http", "ws", 1) + "socket.io/?EIO=4&transport=websocket"
        self._socket = simple_websocket.Client(address, headers={"Cookie": f"maskwatch-session={cookie}"})
        self._socket.send("40")
        wait_until(lambda: (self._receive(1) or "").startswith("40"), 5, "the socket is open")
        self.emit("watch", ["demo"])

    def send(self, message: str | bytes) -> None:
        self._socket.send(message)

    def ping(self) -> None:
        self._socket.sock.send(self._socket.ws.send(Ping(b"x" * 100)))

    def is_closed(self) -> bool:
        with contextlib.suppress(simple_websocket.ConnectionClosed):
            while self._receive(0.01) is not None:
                pass
            return False
        return True


class Spectator(Watcher):
    """A signed-in browser that watches all the time. seen: metadata of the newest labelled frame."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer, fresh_cookie())
        self.seen: dict[str, Any] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        with contextlib.suppress(simple_websocket.ConnectionClosed):
            while not self._ended.is_set():
                if frame := self.next("frame"):
                    self.emit("ack", frame[0]["camera"], frame[0]["frame_id"])
                    self.seen = frame[0] if frame[0]["labelled"] else self.seen

    def still_receives_frames(self) -> None:
        last = self.seen.get("seq", 0)
        wait_until(lambda: self.seen.get("seq", 0) > last, 5, "labelled frames go on")
        assert self.seen["faces"][0]["text"] == "Mask (Confidence: 96%)"

    def leave(self) -> None:
        self._ended.set()
        self._thread.join()
        self.close()


class Log:
    """The lines that a viewer logs from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._from = path.stat().st_size

    def text(self) -> str:
        return self._path.read_text()[self._from :]

    def says(self, part: str) -> bool:
        return wait_until(lambda: part in self.text(), 5, f"the log says {part!r}")


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Redirect the log of processes that are started in the block to a file."""
    before = os.dup(2)
    with path.open("ab") as log:
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


@contextmanager
def protected_viewer(path: Path) -> Iterator[tuple[Viewer, Spectator, Path]]:
    """Run a viewer with a password that logs to a file, and a spectator."""
    with ExitStack() as stack:
        server = stack.enter_context(serving())
        with logging_to(path):
            settings = {"password_hash": HASH, "session_key": KEY, "metrics_token": TOKEN}
            viewer = stack.enter_context(viewing(server.url, origins="https://cameras.example", **settings))
        spectator = Spectator(viewer)
        stack.callback(spectator.leave)
        stack.enter_context(feeding([Feed(server)], [face()], fps=10))
        yield viewer, spectator, path


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Viewer, Spectator, Path]]:
    with protected_viewer(tmp_path_factory.mktemp("access") / "log") as standing:
        yield standing


@pytest.fixture(scope="module")
def standing_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Viewer, Spectator, Path]]:
    with protected_viewer(tmp_path_factory.mktemp("apart") / "log") as standing:
        yield standing


@pytest.fixture
def viewer(standing: tuple[Viewer, Spectator, Path]) -> Iterator[Viewer]:
    """The viewer; after each test the spectator must still receive frames."""
    viewer, spectator, _ = standing
    yield viewer
    spectator.still_receives_frames()


@pytest.fixture
def stressed(standing_apart: tuple[Viewer, Spectator, Path]) -> Iterator[Viewer]:
    """Another viewer, for tests with more rejected requests than are logged."""
    viewer, spectator, _ = standing_apart
    yield viewer
    spectator.still_receives_frames()


@pytest.fixture
def stressed_log(standing_apart: tuple[Viewer, Spectator, Path]) -> Log:
    return Log(standing_apart[2])


@pytest.fixture
def log(standing: tuple[Viewer, Spectator, Path]) -> Log:
    return Log(standing[2])


def fresh_cookie() -> str:
    return KNOWN.new_cookie()


def ask(
    viewer: Viewer,
    path: str,
    method: str = "GET",
    body: dict[str, str] | str | Iterable[bytes] | None = None,
    *,
    cookie: str | None = None,
    at: str = "127.0.0.1",
    **headers: str,
) -> tuple[int, http.client.HTTPMessage, str]:
    """Send a request from an address of this machine; return status, headers and text."""
    place = urlsplit(viewer.url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=10, source_address=(at, 0))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if cookie:
        named["Cookie"] = f"maskwatch-session={cookie}"
    if isinstance(body, dict):
        named["Content-Type"] = "application/x-www-form-urlencoded"
    sent = urlencode(body) if isinstance(body, dict) else body
    with contextlib.closing(connection):
        connection.request(method, path, sent, named)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read(100_000).decode(errors="replace")


def ask_socket(viewer: Viewer, cookie: str | None = None, **headers: str) -> int:
    """Request a WebSocket; return the status with which it is rejected."""
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13"}
    return ask(viewer, "/socket.io/?EIO=4&transport=websocket", cookie=cookie, **upgrade, **headers)[0]


def connected(viewer: Viewer, sent: bytes) -> socket.socket:
    """Connect and send these bytes."""
    place = urlsplit(viewer.url)
    connection = socket.create_connection((str(place.hostname), int(place.port or 0)), 10)
    connection.sendall(sent)
    return connection


def answered(viewer: Viewer, sent: bytes) -> tuple[int, http.client.HTTPMessage]:
    """Send these bytes; return the status and the headers of the answer."""
    with connected(viewer, sent) as connection:
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.headers


def is_closed(connection: socket.socket) -> bool:
    """Return whether the viewer has closed a connection; what it sent before that is left out."""
    connection.settimeout(0.001)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def token_in(page: str) -> str:
    return re.findall(r'name="token" value="([^"]+)"', page)[0]


def sign_in(
    viewer: Viewer, text: str, at: str = "127.0.0.1", device: str = "", **headers: str
) -> tuple[int, http.client.HTTPMessage]:
    """Load the form and send it with this password; return status and headers."""
    return send_form(viewer, text, at, device, **headers)[:2]


def send_form(
    viewer: Viewer, text: str, at: str = "127.0.0.1", device: str = "", **headers: str
) -> tuple[int, http.client.HTTPMessage, str]:
    """Load the form and send it with this password; return status, headers and text."""
    _, form, page = ask(viewer, "/login", at=at, **headers)
    sent = {"token": token_in(page), "password": text}
    cookies = f"{form['Set-Cookie'].split(';')[0]}; maskwatch-device={device}"
    return ask(viewer, "/login", "POST", sent, at=at, cookie=None, Cookie=cookies, **headers)


def test_the_password_lets_in_and_signing_out_ends_all_that_the_session_had_open(viewer: Viewer, log: Log) -> None:
    status, answer = sign_in(viewer, PASSWORD)
    cookie = answer["Set-Cookie"].split("=", 1)[1].split(";")[0]
    watcher = Watcher(viewer, cookie)
    frame, _ = watcher.wait_for_frame()
    address = viewer.url + "cameras/demo/stream.mjpg"
    stream = requests.get(address, cookies={"maskwatch-session": cookie}, stream=True, timeout=5)
    token = token_in(ask(viewer, "/", cookie=cookie)[2])

    out, back, _ = ask(viewer, "/logout", "POST", {"token": token}, cookie=cookie)
    wait_until(watcher.is_closed, 5, "the socket is closed")
    rest = list(stream.iter_content(1 << 20))

    assert (status, answer["Location"], frame["labelled"]) == (303, "/", True)
    assert all(part in answer["Set-Cookie"] for part in ("HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=43200"))
    assert (out, back["Location"]) == (303, "/login")
    assert "maskwatch-session=;" in back["Set-Cookie"]
    assert rest
    assert ask(viewer, "/api/status", cookie=cookie)[0] == 401
    assert PASSWORD not in log.text()


def test_over_https_cookies_are_for_https_alone(viewer: Viewer) -> None:
    _, answer = sign_in(viewer, PASSWORD, X_Forwarded_Proto="https")
    _, plain = sign_in(viewer, PASSWORD)

    assert re.match(r"__Host-maskwatch-session=.*; Secure;", answer["Set-Cookie"])
    assert "Secure" not in plain["Set-Cookie"]


def test_a_wrong_password_is_refused_and_logged_without_it(viewer: Viewer, log: Log) -> None:
    status, answer = sign_in(viewer, "open sesame please", at="127.0.0.2")

    assert status == 401
    assert "maskwatch-session" not in str(answer["Set-Cookie"])
    assert log.says("rejected 127.0.0.2 POST '/login': sign-in with a wrong password")
    assert "sesame" not in log.text()


def test_guessing_is_slowed_down_for_the_guesser_alone(viewer: Viewer, log: Log) -> None:
    guesses = [sign_in(viewer, f"guess number {number}", at="127.0.0.3")[0] for number in range(ONE_BURST)]

    late, answer, text = send_form(viewer, PASSWORD, at="127.0.0.3")
    other, _ = sign_in(viewer, PASSWORD, at="127.0.0.4")

    assert guesses == [401] * ONE_BURST
    assert (late, other) == (429, 303)
    assert 0 < int(answer["Retry-After"]) <= 12
    assert f"Too many attempts. Try again in {answer['Retry-After']} s." in text
    assert log.says("rejected 127.0.0.3 POST '/login': sign-in, too many wrong passwords before")


def test_a_browser_that_signed_in_before_is_not_kept_out_by_strangers_who_guess(viewer: Viewer) -> None:
    _, answer = sign_in(viewer, PASSWORD, at="127.0.0.5")
    (given,) = [one for one in answer.get_all("Set-Cookie", []) if one.startswith("maskwatch-device=")]
    device = given.split("=", 1)[1].split(";")[0]
    while sign_in(viewer, "a guess", at="127.0.0.5")[0] == 401:
        pass

    stranger, _ = sign_in(viewer, PASSWORD, at="127.0.0.5")
    forged, _ = sign_in(viewer, PASSWORD, at="127.0.0.5", device=device[:-1])
    known, _ = sign_in(viewer, PASSWORD, at="127.0.0.5", device=device)

    assert (stranger, forged, known) == (429, 429, 303)
    assert all(part in given for part in ("HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=15552000"))
    assert ask(viewer, "/api/status", cookie=device)[0] == 401


def test_a_known_browser_has_its_own_few_attempts_and_takes_none_from_others(viewer: Viewer) -> None:
    device = KNOWN.new_device()

    guesses = [sign_in(viewer, "a guess", at="127.0.0.6", device=device)[0] for _ in range(ONE_BURST + 1)]
    other, _ = sign_in(viewer, PASSWORD, at="127.0.0.6")

    assert guesses == [401] * ONE_BURST + [429]
    assert other == 303


def test_a_known_browser_is_a_stranger_again_after_another_password_or_key_or_a_long_time() -> None:
    now = [0.0]
    access = Authenticator(SETTINGS, clock=lambda: now[0])
    device, others = access.new_device(), access.new_device()
    password_changed = Authenticator(Settings(password_hash=OTHER_HASH, session_key=KEY), clock=lambda: now[0])
    key_changed = Authenticator(Settings(password_hash=HASH, session_key=KEY[::-1]), clock=lambda: now[0])

    known = access.device(device)
    elsewhere = password_changed.device(device), key_changed.device(device)
    now[0] = DEVICE_RETENTION_S + 1

    assert known
    assert known != Authenticator(SETTINGS, clock=lambda: 0.0).device(others)
    assert elsewhere == (None, None)
    assert (access.device(device), access.device(None), access.device(access.new_cookie())) == (None, None, None)


def test_a_guesser_with_many_addresses_gets_no_further_and_is_not_remembered_for_ever() -> None:
    attempts = LoginThrottle(0.0)

    begun = [attempts.begin(f"10.0.{number // 250}.{number % 250}", None, 0.0) for number in range(1000)]
    later = attempts.begin("10.9.9.9", None, 2.0)

    assert begun.count(0) == ALL_BURST
    assert later == 0
    assert len(attempts._by_one) <= ALL_BURST + 1


def test_an_ipv6_network_is_one_guesser_and_who_knows_the_password_is_none() -> None:
    attempts = LoginThrottle(0.0)

    guesses = [attempts.begin(f"2001:db8::{number}", None, 0.0) for number in range(ONE_BURST + 1)]
    for _ in range(2 * ONE_BURST):
        assert attempts.begin("192.0.2.1", None, 0.0) == 0
        attempts.succeeded("192.0.2.1", None)

    assert [wait_s > 0 for wait_s in guesses] == [False] * ONE_BURST + [True]


@pytest.mark.parametrize(
    "path",
    ["/api/status", "/api/session", "/cameras/demo/snapshot.jpg", "/cameras/demo/stream.mjpg", "/static/app.js", "/x"],
)
def test_strangers_get_nothing(viewer: Viewer, log: Log, path: str) -> None:
    status, _, text = ask(viewer, path)

    assert status == 401
    assert "not signed in" in (json.loads(text)["error"] if path.startswith("/api/") else text)
    assert log.says(f"rejected 127.0.0.1 GET '{path}': not signed in")


def test_strangers_are_shown_the_way_and_what_the_form_needs(viewer: Viewer) -> None:
    status, answer, _ = ask(viewer, "/")

    assert (status, answer["Location"]) == (303, "/login")
    for path in ("/login", "/static/style.css", "/static/icon.svg"):
        assert ask(viewer, path)[0] == 200
    assert json.loads(ask(viewer, "/healthz")[2]) == {"ok": False, "reasons": ["sign in to see why"]}


def test_metrics_have_a_token_of_their_own(viewer: Viewer) -> None:
    assert ask(viewer, "/metrics", cookie=fresh_cookie())[0] == 401
    assert ask(viewer, "/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert ask(viewer, "/api/status", Authorization=f"Bearer {TOKEN}")[0] == 401


OTHER_HASH = password_hash("the password after this one")
FORGED = {
    "nothing": None,
    "nonsense": "x",
    "another key's": Authenticator(Settings(password_hash=HASH, session_key=KEY[::-1])).new_cookie(),
    "another password's": Authenticator(Settings(password_hash=OTHER_HASH, session_key=KEY)).new_cookie(),
    "an old one": Authenticator(SETTINGS, clock=lambda: 1e9 - SESSION_DURATION_S).new_cookie(),
    "a changed one": fresh_cookie().replace(":1", ":2", 1),
}


@pytest.mark.parametrize("cookie", FORGED.values(), ids=FORGED.keys())
def test_no_session_but_a_true_one_opens_a_socket_or_a_picture(viewer: Viewer, log: Log, cookie: str | None) -> None:
    assert ask_socket(viewer, cookie) == 401
    assert ask(viewer, "/cameras/demo/snapshot.jpg", cookie=cookie)[0] == 401
    assert log.says("rejected 127.0.0.1 GET '/socket.io/': not signed in")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "https://{host}", "X_Forwarded_Host": "elsewhere.example", "Host": "elsewhere.example"},
        {"Origin": "http://{host}", "X_Forwarded_Proto": "https"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Dest": "image"},
    ],
)
def test_other_sites_are_refused_even_with_a_session(viewer: Viewer, log: Log, headers: dict[str, str]) -> None:
    cookie, place = fresh_cookie(), urlsplit(viewer.url).netloc
    headers = {name: value.format(host=place) for name, value in headers.items()}
    both = {"Cookie": f"maskwatch-session={cookie}; __Host-maskwatch-session={cookie}"}

    answers = [
        ask(viewer, "/logout", "POST", {"token": KNOWN.token("x")}, **both, **headers)[0],
        ask(viewer, "/cameras/demo/stream.mjpg", **both, **headers)[0],
        ask_socket(viewer, **both, **headers),
    ]

    assert answers == [403] * 3
    assert log.says("POST '/logout': sent by another site")
    assert log.says("GET '/socket.io/': sent by another site")
    assert ask(viewer, "/api/session", cookie=cookie)[0] == 204


def test_our_own_pages_and_named_origins_and_links_are_welcome(viewer: Viewer) -> None:
    cookie, place = fresh_cookie(), urlsplit(viewer.url).netloc

    for origin in (f"http://{place}", f"https://{place}", "https://cameras.example"):
        assert ask(viewer, "/api/session", cookie=cookie, Origin=origin)[0] == 204
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Dest": "document"}
    assert ask(viewer, "/", cookie=cookie, **link)[0] == 200


@pytest.mark.parametrize(
    "token", [None, "", "forged", KNOWN.token("another form")], ids=["none", "empty", "forged", "another form's"]
)
def test_a_form_without_its_token_changes_nothing(viewer: Viewer, log: Log, token: str | None) -> None:
    cookie, sent = fresh_cookie(), {} if token is None else {"token": token}

    login, answer, _ = ask(viewer, "/login", "POST", sent | {"password": PASSWORD})
    logout = ask(viewer, "/logout", "POST", sent, cookie=cookie)[0]

    assert (login, logout) == (403, 403)
    assert "maskwatch-session" not in str(answer["Set-Cookie"])
    assert log.says("sign-in with a forged token, or none")
    assert log.says("sign-out with a forged token, or none")
    assert ask(viewer, "/api/session", cookie=cookie)[0] == 204


@pytest.mark.parametrize("path", TRAVERSALS)
def test_a_name_that_is_a_path_leads_nowhere(viewer: Viewer, log: Log, path: str) -> None:
    status, _, text = ask(viewer, path, cookie=fresh_cookie())

    assert status == 404
    assert "root:" not in text
    assert log.says("rejected 127.0.0.1 GET")


def test_a_socket_that_asks_for_a_path_gets_what_else_it_asked_for(viewer: Viewer, log: Log) -> None:
    watcher = Watcher(viewer, fresh_cookie())

    watcher.emit("watch", ["../../etc/passwd", "demo", 7])

    assert log.says("watch with an invalid camera name")
    assert watcher.wait_for_frame()[0]["camera"] == "demo"
    watcher.close()


def test_nobody_may_send_much(viewer: Viewer, log: Log) -> None:
    large = "x" * (MAX_BODY + 1)

    body = ask(viewer, "/login", "POST", large)[0]
    chunked = ask(viewer, "/login", "POST", iter([large.encode()]))[0]
    header = ask(viewer, "/login", X=large)[0]
    line = ask(viewer, "/login?" + large)[0]

    assert (body, chunked) == (413, 411)
    assert header in (400, 431)
    assert line in (400, 414)
    assert log.says(f"rejected 127.0.0.1 POST '/login': a body of more than {MAX_BODY} bytes")


@pytest.mark.parametrize("size", [MAX_MESSAGE + 1, BURST_BYTES, 10 * BURST_BYTES])
def test_a_large_message_closes_its_socket(viewer: Viewer, log: Log, size: int) -> None:
    watcher = Watcher(viewer, fresh_cookie())

    with contextlib.suppress(OSError, simple_websocket.ConnectionClosed):
        watcher.emit("watch", ["x" * size])

    wait_until(watcher.is_closed, 10, "the socket is closed")
    assert "Traceback" not in log.text()


@pytest.mark.parametrize("what", ["events", "control messages"])
def test_a_flood_ends_its_own_socket_and_is_logged_once(viewer: Viewer, log: Log, what: str) -> None:
    watcher = Watcher(viewer, fresh_cookie())
    send = watcher.ping if what == "control messages" else lambda: watcher.emit("watch", ["demo"])

    with contextlib.suppress(OSError, simple_websocket.ConnectionClosed):
        for _ in range(20_000):
            send()

    wait_until(watcher.is_closed, 10, "the socket is closed")
    assert log.says("more messages than a page sends; its WebSocket is closed")
    assert log.text().count("more messages") == 1


def test_a_socket_that_speaks_nonsense_is_closed(viewer: Viewer, log: Log) -> None:
    for message in NONSENSE:
        watcher = Watcher(viewer, fresh_cookie())

        watcher.send(message)

        wait_until(watcher.is_closed, 5, f"the socket that said {message!r} is closed")
    wait_until(lambda: log.text().count("an invalid message; its WebSocket") == len(NONSENSE), 5, "each is logged")
    assert "Traceback" not in log.text()


@pytest.mark.parametrize("goodbye", ["1", "41"])
def test_a_page_that_goes_on_after_it_has_left_is_closed(viewer: Viewer, log: Log, goodbye: str) -> None:
    watcher = Watcher(viewer, fresh_cookie())

    with contextlib.suppress(simple_websocket.ConnectionClosed):
        for message in (goodbye, "40", '42["watch",["demo"]]', "40"):
            watcher.send(message)

    wait_until(watcher.is_closed, 5, "the socket is closed")
    assert "Traceback" not in log.text()


@pytest.mark.parametrize("message", IGNORED)
def test_a_packet_at_the_wrong_time_changes_nothing(viewer: Viewer, log: Log, message: str) -> None:
    watcher = Watcher(viewer, fresh_cookie())

    for _ in range(20):
        watcher.send(message)

    assert watcher.wait_for_frame()
    assert "Traceback" not in log.text()
    watcher.close()


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_there_is_no_socket_over_plain_requests(viewer: Viewer, log: Log, transport: str) -> None:
    cookie = fresh_cookie()
    path = f"/socket.io/?EIO=4&transport={transport}"

    answers = [ask(viewer, path, method, cookie=cookie)[0] for method in ("GET", "POST")]
    answers += [ask(viewer, path, cookie=cookie, **{name: "websocket"})[0] for name in ("Upgrade", "Connection")]

    assert answers == [400, 400, 400, 400]
    assert log.says("GET '/socket.io/': not a request for a WebSocket")
    assert not any(word in log.text() for word in ("Traceback", "ERROR"))


@pytest.mark.parametrize("path", ["/login", "/", "/healthz", "/api/status", "/static/style.css", "/nothing"])
def test_every_answer_keeps_other_sites_out(viewer: Viewer, path: str) -> None:
    for cookie in (None, fresh_cookie()):
        _, headers, _ = ask(viewer, path, cookie=cookie)

        assert {name: headers[name] for name in HEADERS} == HEADERS
        assert (headers["Cache-Control"] == "no-store") == (path != "/static/style.css" or headers["Allow"] is not None)
    assert "unsafe" not in HEADERS["Content-Security-Policy"]


def test_without_a_password_only_this_machines_names_are_answered(log: Log, tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(serving())
        with logging_to(tmp_path / "log"):
            viewer = stack.enter_context(viewing(server.url, origins="https://cameras.example"))

        foreign = [ask(viewer, "/api/status", Host=name)[0] for name in ("elsewhere.example", "10.0.0.1:8000", "[", "")]
        socket = ask_socket(viewer, Host="elsewhere.example")
        names = ("localhost:9000", "127.0.0.1", "[::1]:8000", "cameras.example")
        ours = [ask(viewer, "/api/status", Host=name)[0] for name in names]
        login = ask(viewer, "/login")

        assert foreign == [421] * 4
        assert socket == 421
        assert ours == [200] * 4
        assert (login[0], login[1]["Location"]) == (303, "/")
        assert Log(tmp_path / "log")._path.read_text().count("' is not accepted") == 5
        assert "Sign out" not in ask(viewer, "/")[2]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104 -- to be refused
def test_without_a_password_others_are_not_served(host: str) -> None:
    with pytest.raises(BadSettings) as refused:
        check_access_settings(Settings(host=host))
    with pytest.raises(BadSettings) as as_late:
        Authenticator(Settings()).check_address(host)

    assert f"--host {host} serves other machines, and no password is set" in str(refused.value)
    assert str(as_late.value) == str(refused.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"password_hash": PASSWORD}, "--password-hash: this is not what `maskwatch password` prints"),
        ({"password_hash": HASH[:40]}, "--password-hash: this is not what `maskwatch password` prints"),
        ({"origins": "cameras.example"}, "--origins: 'cameras.example' is not an origin"),
        ({"origins": "https://cameras.example/page"}, "--origins: 'https://cameras.example/page' is not an origin"),
    ],
)
def test_settings_that_would_not_protect_are_refused(settings: dict[str, str], words: str) -> None:
    with pytest.raises(BadSettings, match=re.escape(words)):
        Authenticator(Settings(**settings))


def test_the_command_prints_the_hash_of_a_password_that_is_long_enough() -> None:
    made = CliRunner().invoke(password, input=f"{PASSWORD}\n")
    short = CliRunner().invoke(password, input="short\n")

    assert made.exit_code == 0
    assert Authenticator(Settings(password_hash=made.stdout.strip())).is_password(PASSWORD)
    assert short.exit_code == 2
    assert short.stderr == "maskwatch: the password has 5 characters; take 8 to 1024\n"


def test_refusals_do_not_fill_the_log_and_stay_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    rejections = RejectionLog(clock=lambda: now[0])
    request = {"REMOTE_ADDR": "192.0.2.1", "REQUEST_METHOD": "GET", "PATH_INFO": "/a\nb\x1b[2J" + "c" * 1000}

    for _ in range(MAX_LINES + 10):
        rejections.log(request, "not signed in")
    now[0] = 1.5
    rejections.log(request, "not signed in")

    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == MAX_LINES + 1
    assert lines[0].startswith(r"rejected 192.0.2.1 GET '/a\nb\x1b[2Jccc")
    assert len(lines[0]) < 300
    assert lines[-1].endswith("(and 10 more before this one)")


def test_a_request_that_stops_half_way_gives_its_thread_back(stressed: Viewer, stressed_log: Log) -> None:
    body = b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\nto"
    begun = [b"GET /login HTTP/1.1\r\nX: ", b"G", body]
    with ExitStack() as stack:
        halves = [stack.enter_context(connected(stressed, sent)) for sent in (*begun, b"")]

        wait_until(lambda: all(map(is_closed, halves)), 2 * IDLE_TIMEOUT_S + 10, "all are closed")

        assert ask(stressed, "/login")[0] == 200
    assert "Traceback" not in stressed_log.text()


def test_what_is_no_http_is_answered_and_does_not_fill_the_log(stressed: Viewer, stressed_log: Log) -> None:
    wrong = b"GET /" + 3000 * b"\xff" + b"\r\n\r\n"

    statuses = {answered(stressed, wrong)[0] for _ in range(3 * MAX_LINES)}
    wait_until(
        lambda: answered(stressed, wrong) and "a malformed request" in stressed_log.text(),
        10,
        "some of them are logged",
    )

    assert statuses == {400}
    assert max(map(len, stressed_log.text().splitlines())) < 400
    assert stressed_log.text().count("rejected a malformed request: ") < 2 * MAX_LINES


ODD = bytes(range(1, 256)).replace(b"\r", b"").replace(b"\n", b"")


def assert_harmless(status: int, headers: http.client.HTTPMessage) -> None:
    """Assert that the viewer answered with its headers, or gunicorn that this is no request."""
    assert status < 500
    assert status == 400 or {name: headers[name] for name in HEADERS} == HEADERS


@pytest.mark.parametrize(
    "odd", [b"\xff", b"\xc3(", b"\xed\xa0\x80", b"%ff%00", b'"\\777"', bytes(range(128, 256)), ODD]
)
@pytest.mark.parametrize(
    "name",
    [
        *["Cookie: x", "Cookie: maskwatch-session", "Cookie: maskwatch-form", "Host:", "Origin:", "Authorization:"],
        *["Content-Type:", "Content-Length:", "X-Forwarded-Proto:", "Sec-Fetch-Site:", "Range:", "Accept:", "X", ""],
    ],
)
def test_whatever_bytes_a_header_holds_it_does_no_harm(
    stressed: Viewer, stressed_log: Log, name: str, odd: bytes
) -> None:
    header = name.encode() + (b"=" if name.startswith("Cookie") else b" ") + odd

    for path in (b"/login", b"/", b"/metrics", b"/static/style.css"):
        status, headers = answered(stressed, b"GET " + path + b" HTTP/1.1\r\n" + header + b"\r\n\r\n")
        assert_harmless(status, headers)
    assert "Traceback" not in stressed_log.text()


@pytest.mark.parametrize(
    "odd", [b"/\xff", b"/%ff%fe", b"/login?\xff", b"/cameras/\xff/stream.mjpg", b"*", b"http://[", b"/" + ODD]
)
def test_whatever_bytes_a_path_holds_it_does_no_harm(stressed: Viewer, stressed_log: Log, odd: bytes) -> None:
    status, headers = answered(stressed, b"GET " + odd + b" HTTP/1.1\r\nHost: a\r\n\r\n")

    assert_harmless(status, headers)
    assert "Traceback" not in stressed_log.text()
