"""After a sign-in a browser is led to the page that it wanted, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import requests
from feeding import Viewer, serving, viewing

from viewer.security.authenticator import password_hash

PASSWORD = "correct horse battery staple"  # noqa: S105 -- it opens nothing
EVENT = "/history/" + "0a" * 16


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with serving() as server, viewing(server.url, base_path="/our", password_hash=password_hash(PASSWORD)) as viewer:
        yield viewer


def sign_in(viewer: Viewer, path: str, password: str = PASSWORD, **query: str) -> requests.Response:
    """Ask for a path without a session, fill in the form that is shown, and return the answer to it."""
    with requests.Session() as browser:
        form = browser.get(f"{viewer.url}{path}", params=query, timeout=10)
        token, action = (re.search(rf'{name}="([^"]+)"', form.text) for name in ('name="token" value', "action"))
        assert token
        assert action
        address = requests.compat.urljoin(viewer.url, action[1])
        return browser.post(address, {"token": token[1], "password": password}, allow_redirects=False, timeout=10)


@pytest.mark.parametrize("path", ["/", "/history", "/compliance", EVENT])
def test_a_sign_in_leads_to_the_page_that_was_asked_for(viewer: Viewer, path: str) -> None:
    answer = sign_in(viewer, path[1:])

    assert (answer.status_code, answer.headers["Location"]) == (303, f"/our{path}")


def test_the_filters_of_the_page_are_kept(viewer: Viewer) -> None:
    query = "camera=demo&kind=no_mask&from=2026-01-01T00%3A00&zone=caf%C3%A9+2"

    answer = sign_in(viewer, f"history?{query}")

    assert (answer.status_code, answer.headers["Location"]) == (303, f"/our/history?{query}")


@pytest.mark.parametrize("query", ["a=\r\nSet-Cookie: b", "a=\\", "a=#b", "a=\N{SNOWMAN}", 'a="'])
def test_filters_that_no_address_can_hold_are_left_out(viewer: Viewer, query: str) -> None:
    answer = sign_in(viewer, "login", next=f"/history?{query}")

    assert (answer.status_code, answer.headers["Location"]) == (303, "/our/history")


@pytest.mark.parametrize(
    "path",
    ["//example.com", "https://example.com", "/\\example.com", f"{EVENT}/../../..", "/logout", "/history\r\nA: b", ""],
)
def test_a_link_to_the_form_cannot_lead_elsewhere(viewer: Viewer, path: str) -> None:
    answer = sign_in(viewer, "login", next=path)

    assert (answer.status_code, answer.headers["Location"]) == (303, "/our/")


def test_the_page_is_kept_when_the_password_was_wrong(viewer: Viewer) -> None:
    answer = sign_in(viewer, EVENT[1:], password="wrong")

    assert answer.status_code == 401
    assert f'action="/our/login?next={EVENT}"' in answer.text
