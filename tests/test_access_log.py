"""The access log says who looked at what, and nothing of it stops a viewer."""

from __future__ import annotations

import json
import os
import resource
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import wait_until
from feeding import Feed, Viewer, face, feeding, serving, viewing
from test_access import HASH, KEY, PASSWORD, Watcher, ask, fresh_cookie, sign_in
from werkzeug.test import EnvironBuilder

from pipeline.runtime.settings import BadSettings
from viewer.security.access_log import MAX_CHARACTERS, AccessLine, AccessLog, open_access_log
from viewer.security.api_tokens import create_token
from viewer.security.authenticator import SESSION, WITHOUT_LOGIN
from viewer.security.callers import CALLER_TOKEN


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("access")


@pytest.fixture(scope="module")
def token(folder: Path) -> str:
    return create_token(folder / "tokens.json", "door-bell", ("read",))


@pytest.fixture(scope="module")
def viewer(folder: Path, token: str) -> Iterator[Viewer]:
    settings = {"password_hash": HASH, "session_key": KEY, "tokens": str(folder / "tokens.json")}
    with (
        serving() as server,
        viewing(server.url, access_log=str(folder / "access.log"), **settings) as viewer,
        feeding([Feed(server)], [face()], fps=10),
    ):
        wait_until(lambda: ask(viewer, "/cameras/demo/snapshot.jpg", cookie=fresh_cookie())[0] == 200, 10, "frames")
        yield viewer


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "access.log").read_text().splitlines()]


def paths(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(line["phase"], line["path"]) for line in found]


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def closed_standard_output() -> Iterator[None]:
    """Let standard output be a pipe whose reader has gone."""
    before, (reader, writer) = os.dup(1), os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    yield
    os.dup2(before, 1)
    os.close(before)
    os.close(writer)


def answer(path: str, status: str = "200 OK", **keys: object) -> list[AccessLine]:
    """Return what is logged of a request that an application answers."""
    found: list[AccessLine] = []

    def app(_environ: object, start_response: Any) -> list[bytes]:
        start_response(status, [("Content-Type", "text/html")])
        return [b""]

    environ = EnvironBuilder(path="/", method=str(keys.pop("method", "GET"))).get_environ() | {"PATH_INFO": path} | keys
    list(AccessLog(app, found.append)(environ, lambda *_: lambda _: None))
    return found


def test_what_a_browser_looks_at_is_logged_from_its_sign_in_on(viewer: Viewer, folder: Path) -> None:
    before = len(lines(folder))
    sign_in(viewer, "a wrong one")
    cookie = sign_in(viewer, PASSWORD)[1]["Set-Cookie"].split("=", 1)[1].split(";")[0]
    ask(viewer, "/", cookie=cookie)
    ask(viewer, "/static/style.css", cookie=cookie)
    ask(viewer, "/healthz", cookie=cookie)
    ask(viewer, "/history?camera=demo", cookie=cookie, X_Forwarded_For="10.1.2.3")
    ask(viewer, "/cameras/none/snapshot.jpg", cookie=cookie)
    ask(viewer, "/history")

    signed_in, page, history, snapshot = lines(folder)[before:]

    assert (signed_in["who"], signed_in["path"], signed_in["status"]) == ("sign-in", "/login", 303)
    assert page["who"].startswith("session ")
    assert page["who"].removeprefix("session ") in cookie
    assert [one["who"] for one in (history, snapshot)] == [page["who"]] * 2
    assert (history["query"], history["forwarded_for"], history["address"]) == ("camera=demo", "10.1.2.3", "127.0.0.1")
    assert (snapshot["status"], snapshot["method"]) == (404, "GET")


def test_what_lasts_has_a_line_when_it_begins_and_one_when_it_ends(viewer: Viewer, folder: Path) -> None:
    before = len(lines(folder))
    watcher = Watcher(viewer, fresh_cookie())
    watcher.wait_for_frame()
    stream = requests.get(
        f"{viewer.url}cameras/demo/stream.mjpg", cookies={"maskwatch-session": fresh_cookie()}, stream=True, timeout=5
    )
    opened = paths(lines(folder)[before:])
    watcher.close()
    stream.close()

    wait_until(lambda: len(lines(folder)) == before + 4, 10, "both have ended")

    assert opened == [("began", "/socket.io/"), ("began", "/cameras/demo/stream.mjpg")]
    ends = lines(folder)[before + 2 :]
    assert sorted(paths(ends)) == [("ended", "/cameras/demo/stream.mjpg"), ("ended", "/socket.io/")]
    assert all(line["seconds"] > 0 for line in ends)


def test_a_websocket_that_is_refused_is_not_logged_as_one_that_showed_something(viewer: Viewer, folder: Path) -> None:
    before = len(lines(folder))
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}

    refused = ask(viewer, "/socket.io/?EIO=4&transport=websocket", cookie=fresh_cookie())[0]
    refused_by_engine = ask(viewer, "/socket.io/?EIO=4&transport=polling", cookie=fresh_cookie(), **upgrade)[0]

    assert (refused, refused_by_engine) == (400, 400)
    assert [(line["phase"], line.get("status")) for line in lines(folder)[before:]] == [("began", None), ("ended", 400)]


def test_a_program_is_logged_by_the_name_of_its_token(viewer: Viewer, folder: Path, token: str) -> None:
    before = len(lines(folder))
    ask(viewer, "/api/v1/cameras", Authorization=f"Bearer {token}")
    ask(viewer, "/api/v1/cameras", Authorization="Bearer mw_unknown")

    (line,) = lines(folder)[before:]

    assert (line["who"], line["path"], line["status"]) == ("token door-bell", "/api/v1/cameras", 200)
    assert token not in (folder / "access.log").read_text()


def test_a_file_that_was_moved_away_is_begun_anew_for_its_owner_alone(viewer: Viewer, folder: Path) -> None:
    ask(viewer, "/api/status", cookie=fresh_cookie())
    (folder / "access.log").rename(folder / "access.log.1")

    ask(viewer, "/compliance", cookie=fresh_cookie())

    assert paths(lines(folder)) == [("answered", "/compliance")]
    assert stat.S_IMODE((folder / "access.log").stat().st_mode) == 0o600


def test_what_a_request_chooses_stays_on_one_short_line() -> None:
    (line,) = answer("/history\n{}\u2028" + 5_000 * "x", **{SESSION: WITHOUT_LOGIN, "QUERY_STRING": 5_000 * "y"})

    assert line.who == "local"
    assert (len(line.path), len(line.query)) == (MAX_CHARACTERS, MAX_CHARACTERS)


def test_a_token_that_was_sent_in_an_address_is_not_in_a_line(token: str) -> None:
    (line,) = answer(f"/history/{token}", **{SESSION: WITHOUT_LOGIN, "QUERY_STRING": f"camera=demo&token={token}"})

    assert (line.path, line.query) == ("/history/***", "camera=demo&token=***")


def test_no_character_of_a_request_ends_a_line_or_moves_a_cursor(tmp_path: Path) -> None:
    write = open_access_log(str(tmp_path / "access.log"))
    (line,) = answer("/history\x85\u2028\x9b2J\x7f", **{SESSION: WITHOUT_LOGIN})

    write(line)

    (written,) = (tmp_path / "access.log").read_text().splitlines()
    assert written.isprintable()
    assert json.loads(written)["path"] == line.path


def test_who_may_see_nothing_is_not_logged() -> None:
    assert answer("/history") == []
    assert answer("/login", "401 Unauthorized", method="POST") == []
    assert [line.who for line in answer("/api/v1/label", **{CALLER_TOKEN: "gate", SESSION: None})] == ["token gate"]


def test_a_file_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"--access-log .*/missing/access.log: No such file or directory"):
        open_access_log(str(tmp_path / "missing" / "access.log"))


def test_a_full_disk_is_reported_once_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    write = open_access_log("/dev/full")
    (line,) = answer("/", **{SESSION: WITHOUT_LOGIN})

    for _ in range(3):
        write(line)

    assert [record.getMessage() for record in caplog.records] == [
        "--access-log /dev/full: lines are missing: No space left on device"
    ]


def test_a_line_that_was_cut_off_by_a_full_disk_spoils_no_other_one(tmp_path: Path) -> None:
    write = open_access_log(str(tmp_path / "access.log"))
    (line,) = answer("/", **{SESSION: WITHOUT_LOGIN})
    write(line)
    length = (tmp_path / "access.log").stat().st_size

    with room_for(length + 20):
        write(line)
    write(line)

    whole, cut, following = (tmp_path / "access.log").read_text().splitlines()
    assert (len(cut), following) == (20, whole)


def test_a_fifo_that_nobody_reads_is_refused_at_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    with pytest.raises(BadSettings, match=r"--access-log .*/fifo: No such device or address"):
        open_access_log(str(tmp_path / "fifo"))


def test_a_reader_of_a_fifo_that_falls_behind_or_goes_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    write = open_access_log(str(tmp_path / "fifo"))
    (line,) = answer("/", **{SESSION: WITHOUT_LOGIN})

    while not caplog.records:
        write(line)
    os.close(reader)
    write(line)

    assert "lines are missing: Resource temporarily unavailable" in caplog.text


def test_lines_of_many_threads_are_whole_on_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    write = open_access_log("-")
    (line,) = answer("/", **{SESSION: WITHOUT_LOGIN})
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=lambda: [write(line) for _ in range(200)]) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)

    written = capfd.readouterr().out.splitlines()
    assert (len(written), len(set(written))) == (8 * 200, 1)


def test_a_standard_output_that_nobody_reads_any_more_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    write = open_access_log("-")
    (line,) = answer("/", **{SESSION: WITHOUT_LOGIN})

    with closed_standard_output():
        write(line)

    assert [record.getMessage() for record in caplog.records] == ["--access-log -: lines are missing: Broken pipe"]
