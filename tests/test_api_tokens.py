"""Tokens of programs: the commands that manage them, and what a viewer with a password lets each of them do."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner, Result
from conftest import Server
from feeding import Viewer, serving, viewing

import maskwatch
from pipeline.runtime.settings import Settings
from viewer.security.api_tokens import (
    SCOPES,
    TokenStore,
    create_token,
    hash_of,
    read_tokens,
    revoke_token,
    tokens_path,
)
from viewer.security.authenticator import Authenticator, password_hash

KEY = "a key that signs the sessions of these tests"
SETTINGS = Settings(password_hash=password_hash("correct horse battery staple"), session_key=KEY)
KNOWN = Authenticator(SETTINGS)  # another viewer with the same key: what it signs holds on the one that is tested


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens") / "tokens.json"


@pytest.fixture(scope="module")
def viewer(tokens: Path) -> Iterator[Viewer]:
    """A viewer with a password."""
    settings = {"password_hash": SETTINGS.password_hash, "session_key": KEY, "tokens": str(tokens)}
    with serving() as server, viewing(server.url, **settings) as viewer:
        yield viewer


def run(*words: object) -> Result:
    return CliRunner().invoke(maskwatch.cli, ["tokens", *map(str, words)])


def ask(viewer: Viewer, path: str = "/status", method: str = "GET", **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.request(method, f"{viewer.url}api/v1{path}", headers=named, timeout=5)


def bearer(token: str) -> str:
    return f"Bearer {token}"


def session() -> tuple[str, str]:
    """Return the cookie of a new session, and its CSRF token."""
    cookie = KNOWN.new_cookie()
    found = KNOWN.session(cookie)
    assert found
    return f"maskwatch-session={cookie}", KNOWN.token(found.id)


def test_a_token_is_shown_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "tokens.json"

    created = run("create", "door-bell", "--scope", "label", "--scope", "read", "--tokens", path)
    listed = run("list", "--tokens", path)
    as_json = json.loads(run("list", "--json", "--tokens", path).output)

    token = created.output.strip()
    assert re.fullmatch(r"mw_[A-Za-z0-9_-]{43}", token)
    assert token not in path.read_text() + listed.output
    assert hash_of(token) in path.read_text()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert re.search(r"^door-bell +read, label +\d{4}-", listed.output, re.MULTILINE)
    assert [(one["name"], one["scopes"]) for one in as_json] == [("door-bell", ["read", "label"])]


def test_a_token_without_a_scope_may_read(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"

    run("create", "reader", "--tokens", path)

    assert [one.scopes for one in read_tokens(path)] == [("read",)]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("create", "taken"), "there is a token taken already"),
        (("create", "a b"), "'a b' cannot name a token"),
        (("create", "x" * 65), "cannot name a token"),
        (("revoke", "nobody"), "there is no token 'nobody'"),
    ],
)
def test_what_cannot_be_done_with_tokens_is_one_line(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    path = tmp_path / "tokens.json"
    create_token(path, "taken", ["read"])
    before = path.read_text()

    result = run(*words, "--tokens", path)

    assert result.exit_code == 1
    assert len(result.output.strip().splitlines()) == 1
    assert says in result.output
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (b"", 0o600, "not a file of tokens"),
        (b"[]", 0o600, "not a file of tokens"),
        (b"\xff\xfe", 0o600, "not a file of tokens"),
        (b'{"tokens": [{"name": "a", "scopes": ["all"], "sha256": "0", "created_at": 0}]}', 0o600, "not a file"),
        (b'{"tokens": []}', 0o666, "run `chmod 600"),
    ],
)
def test_a_file_of_tokens_that_cannot_be_used_admits_nobody_and_is_not_overwritten(
    tmp_path: Path, content: bytes, mode: int, says: str
) -> None:
    path = tmp_path / "tokens.json"
    path.write_bytes(content)
    path.chmod(mode)

    listed, created = run("list", "--tokens", path), run("create", "mine", "--tokens", path)

    assert (listed.exit_code, created.exit_code) == (1, 1)
    assert says in listed.output
    assert says in created.output
    assert path.read_bytes() == content
    assert TokenStore(path).find("anything") is None


def test_tokens_that_are_created_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    threads = [threading.Thread(target=create_token, args=(path, f"program-{n}", ["read"])) for n in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(read_tokens(path)) == 8


def test_the_default_file_is_in_the_folder_of_configurations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    in_it = tokens_path(Settings())
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert in_it == tmp_path / "maskwatch" / "tokens.json"
    assert tokens_path(Settings()) == tmp_path / ".config" / "maskwatch" / "tokens.json"


def test_a_revoked_token_is_no_longer_found_and_a_new_one_is(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    store = TokenStore(path)
    first = create_token(path, "first", ["read"])
    found = store.find(first)

    revoke_token(path, "first")
    second = create_token(path, "second", SCOPES)

    assert found and found.name == "first"
    assert store.find(first) is None
    assert store.find(second) and store.find("mw_" + "x" * 10_000) is None


def test_with_a_password_a_request_needs_a_token(viewer: Viewer, tokens: Path) -> None:
    token = create_token(tokens, "needs", ["read"])

    without = ask(viewer)
    wrong = [
        ask(viewer, Authorization=text) for text in ("Bearer", "Bearer mw_wrong", "Basic YTpi", bearer(token[:-1]))
    ]
    right = [ask(viewer, Authorization=text) for text in (bearer(token), f"bearer  {token}")]

    assert (without.status_code, without.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "maskwatch tokens create" in without.json()["detail"]
    assert [answer.status_code for answer in wrong] == [401] * 4
    assert wrong[1].headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert [answer.status_code for answer in right] == [200, 200]


def test_a_token_is_revoked_without_a_restart(viewer: Viewer, tokens: Path) -> None:
    token = create_token(tokens, "short-lived", ["read"])
    before = ask(viewer, Authorization=bearer(token))

    revoke_token(tokens, "short-lived")

    assert before.status_code == 200
    assert ask(viewer, Authorization=bearer(token)).status_code == 401


def test_a_token_may_do_what_its_scopes_say_and_nothing_else(viewer: Viewer, tokens: Path) -> None:
    reader, labeller, admin = (create_token(tokens, f"only-{scope}", [scope]) for scope in SCOPES)

    answers = {
        (name, path): ask(viewer, path, method, Authorization=bearer(token))
        for name, token in (("reader", reader), ("labeller", labeller), ("admin", admin))
        for path, method in (("/status", "GET"), ("/openapi.json", "GET"), ("/label", "POST"), ("/rules", "PUT"))
    }

    statuses = {key: answer.status_code for key, answer in answers.items()}
    assert statuses == {
        ("reader", "/status"): 200,
        ("reader", "/openapi.json"): 200,
        ("reader", "/label"): 403,
        ("reader", "/rules"): 403,
        ("labeller", "/status"): 403,
        ("labeller", "/openapi.json"): 403,
        ("labeller", "/label"): 415,  # it sends no picture
        ("labeller", "/rules"): 403,
        ("admin", "/status"): 403,
        ("admin", "/openapi.json"): 403,
        ("admin", "/label"): 403,
        ("admin", "/rules"): 415,  # it sends no rules
    }
    assert "lacks the scope label" in answers["reader", "/label"].json()["detail"]


def test_a_token_is_for_the_api_alone(viewer: Viewer, tokens: Path) -> None:
    token = create_token(tokens, "everywhere", SCOPES)

    statuses = [
        requests.get(viewer.url + path, headers={"Authorization": bearer(token)}, timeout=5).status_code
        for path in ("api/status", "cameras/door/snapshot.jpg", "metrics")
    ]

    assert statuses == [401, 401, 200]  # this machine may read metrics


def test_a_session_may_read_but_needs_its_csrf_token_to_label(viewer: Viewer) -> None:
    cookie, csrf = session()
    _, of_another = session()

    reads = ask(viewer, Cookie=cookie)
    alone = ask(viewer, "/label", "POST", Cookie=cookie)
    forged = ask(viewer, "/label", "POST", Cookie=cookie, X_CSRF_Token=of_another)
    complete = ask(viewer, "/label", "POST", Cookie=cookie, X_CSRF_Token=csrf)

    assert [answer.status_code for answer in (reads, alone, forged, complete)] == [200, 403, 403, 415]
    assert "X-CSRF-Token" in alone.json()["detail"]


def test_another_site_may_not_use_a_token_or_session(viewer: Viewer, tokens: Path) -> None:
    token, (cookie, csrf) = create_token(tokens, "leaked", SCOPES), session()

    answers = [
        ask(viewer, Origin="https://evil.example", Authorization=bearer(token)),
        ask(viewer, "/label", "POST", Origin="https://evil.example", Cookie=cookie, X_CSRF_Token=csrf),
    ]

    assert [answer.status_code for answer in answers] == [403, 403]
    assert all(answer.headers["Content-Type"] == "application/problem+json" for answer in answers)


def test_many_large_bodies_without_a_token_are_denied_and_delay_nobody(viewer: Viewer, tokens: Path) -> None:
    token = create_token(tokens, "not-delayed", ["read"])
    body = bytes(200_000)  # gunicorn would wait for the client to close the connection

    with requests.Session() as client:
        denied = [client.post(f"{viewer.url}api/v1/label", data=body, timeout=10).status_code for _ in range(20)]
        reused = len(client.adapters["http://"].poolmanager.pools)  # type: ignore[attr-defined]

    assert denied == [401] * 20
    assert reused == 1
    assert ask(viewer, Authorization=bearer(token)).status_code == 200


def test_without_a_password_no_token_is_needed_but_a_wrong_one_is_refused(server: Server, tmp_path: Path) -> None:
    with viewing(server.url, tokens=str(tmp_path / "none.json")) as open_viewer:
        statuses = [ask(open_viewer).status_code, ask(open_viewer, Authorization="Bearer mw_wrong").status_code]
        foreign = ask(open_viewer, Host="evil.example")

    assert statuses == [200, 401]
    assert (foreign.status_code, foreign.headers["Content-Type"]) == (421, "application/problem+json")
