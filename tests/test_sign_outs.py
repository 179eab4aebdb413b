"""A session that has ended stays ended: on other viewers of the same Redis, and after a worker was replaced."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

import pytest
import requests
from conftest import wait_until
from feeding import Viewer, serving, viewing
from locked import Locked, locked
from test_viewer import worker_of

from pipeline.bus.connection import connect
from pipeline.bus.keys import ENDED_SESSIONS
from pipeline.runtime.settings import Settings
from viewer.security.authenticator import Authenticator, password_hash
from viewer.security.sign_outs import SignOuts

PASSWORD = "correct horse battery staple"  # noqa: S105 -- it opens nothing
SETTINGS = Settings(password_hash=password_hash(PASSWORD), session_key="a key that signs the sessions of these tests")


@pytest.fixture(scope="module")
def own() -> Iterator[Locked]:
    with locked("redis") as found:
        yield found


def signed_in(viewer: Viewer) -> requests.Session:
    browser = requests.Session()
    form = browser.get(f"{viewer.url}login", timeout=10)
    token = re.findall(r'name="token" value="([^"]+)"', form.text)[0]
    assert browser.post(f"{viewer.url}login", {"token": token, "password": PASSWORD}, timeout=10).ok
    return browser


def test_who_signs_out_is_signed_out_on_each_viewer_and_after_redis_lost_its_memory(own: Locked) -> None:
    with connect(own.url("viewer")) as client:
        here, there, later = (Authenticator(SETTINGS) for _ in range(3))
        cookie, other = here.new_cookie(), here.new_cookie()
        session = here.session(cookie)
        assert session
        here.end(session)

        SignOuts(client, here).exchange()
        SignOuts(client, there).exchange()
        on_the_other_viewer = there.session(cookie)
        own.server.client.delete(ENDED_SESSIONS)
        SignOuts(client, there).exchange()
        SignOuts(client, later).exchange()

    assert on_the_other_viewer is None
    assert later.session(cookie) is None
    assert later.session(other) is not None
    assert 0 < own.server.client.pttl(ENDED_SESSIONS) <= 12 * 3_600_000


def test_a_session_that_would_have_ended_by_now_is_removed(own: Locked) -> None:
    authenticator = Authenticator(SETTINGS)
    own.server.client.zadd(ENDED_SESSIONS, {"long ago": 1.0, "not a number": float("inf")})
    session = authenticator.session(authenticator.new_cookie())
    assert session
    authenticator.end(session)

    with connect(own.url("viewer")) as client:
        SignOuts(client, authenticator).exchange()

    assert own.server.client.zscore(ENDED_SESSIONS, "long ago") is None
    assert own.server.client.zscore(ENDED_SESSIONS, session.id) == session.ends_at


def test_a_redis_that_does_not_let_us_share_them_is_told_once(own: Locked, caplog: pytest.LogCaptureFixture) -> None:
    with connect(own.url("recorder")) as client:
        sign_outs = SignOuts(client, Authenticator(SETTINGS))
        sign_outs.exchange()
        sign_outs.exchange()

    assert [record.message for record in caplog.records if "who has signed out" in record.message][1:] == []
    assert "other viewers do not learn who has signed out" in caplog.text


def test_a_session_stays_ended_when_the_worker_is_replaced() -> None:
    with serving() as server, viewing(server.url, password_hash=SETTINGS.password_hash) as viewer:
        browser = signed_in(viewer)
        stolen = dict(browser.cookies)
        page = browser.get(viewer.url, timeout=10).text
        token = re.findall(r'name="token" value="([^"]+)"', page)[0]
        browser.post(f"{viewer.url}logout", {"token": token}, timeout=10)
        wait_until(lambda: server.client.zcard(ENDED_SESSIONS), 10, "Redis knows of it")

        os.kill(worker_of(viewer), signal.SIGKILL)

        def answers() -> bool:
            return requests.get(f"{viewer.url}api/status", cookies=stolen, timeout=10).status_code == 401

        wait_until(answers, 10, "the copy of the cookie opens nothing")
        assert signed_in(viewer).get(f"{viewer.url}api/status", timeout=10).ok
