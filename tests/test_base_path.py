"""A viewer with a path of its own behind a reverse proxy, which strips the path or passes it on."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from conftest import Server, missing, wait_until
from feeding import Feed, Page, face, feeding, serving, viewing
from path_proxy import PathProxy, proxied
from playwright.sync_api import expect, sync_playwright

from pipeline.runtime.settings import BadSettings, Settings, settings_from
from viewer.security.authenticator import password_hash
from viewer.serving.base_path import OWN_PATHS, base_path_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PASSWORD = "correct horse battery staple"  # noqa: S105 -- it opens nothing
BASE = "/our/maskwatch"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module", params=[False, True], ids=["passes on", "strips"])
def proxy(request: pytest.FixtureRequest, server: Server) -> Iterator[PathProxy]:
    """A viewer with a password, behind a proxy."""
    with (
        viewing(server.url, base_path=BASE + "/", password_hash=password_hash(PASSWORD)) as viewer,
        proxied(viewer.url, BASE, strips=request.param) as proxy,
    ):
        yield proxy


@pytest.fixture(scope="module")
def session(proxy: PathProxy) -> requests.Session:
    """A browser that has signed in."""
    session = requests.Session()
    token = re.search(r'name="token" value="([^"]+)"', session.get(proxy.url).text)
    assert token
    signed_in = session.post(f"{proxy.url}login", {"token": token[1], "password": PASSWORD})
    assert signed_in.url == proxy.url
    return session


def test_a_stranger_is_led_to_the_login_below_the_path(proxy: PathProxy) -> None:
    answer = requests.get(proxy.url, allow_redirects=False, timeout=10)

    assert (answer.status_code, answer.headers["Location"]) == (303, f"{BASE}/login")


@pytest.mark.parametrize("proto", ["http", "https"])
def test_cookies_are_for_the_path_alone(proxy: PathProxy, proto: str) -> None:
    headers = {"X-Forwarded-Proto": proto}

    form = requests.get(f"{proxy.url}login", headers=headers, timeout=10)
    token = re.search(r'name="token" value="([^"]+)"', form.text)
    assert token
    sent = headers | {"Cookie": form.headers["Set-Cookie"].partition(";")[0]}
    given = {"token": token[1], "password": PASSWORD}
    answer = requests.post(f"{proxy.url}login", given, headers=sent, allow_redirects=False, timeout=10)

    cookies = answer.raw.headers.getlist("Set-Cookie")
    assert (answer.status_code, answer.headers["Location"], len(cookies)) == (303, f"{BASE}/", 2)
    prefix = "__Secure-maskwatch-" if proto == "https" else "maskwatch-"
    assert all(cookie.startswith(prefix) for cookie in cookies)
    assert all(f"Path={BASE}" in cookie.split("; ") for cookie in cookies)
    assert all(("Secure" in cookie.split("; ")) == (proto == "https") for cookie in cookies)


def test_everything_the_viewer_serves_is_below_the_path(
    proxy: PathProxy, session: requests.Session, server: Server
) -> None:
    with feeding([Feed(server)], [face()]):
        snapshot = f"{proxy.url}cameras/demo/snapshot.jpg"
        wait_until(lambda: session.get(snapshot).status_code == 200, 10, "there is a snapshot")
        stream = session.get(f"{proxy.url}cameras/demo/stream.mjpg", stream=True)
        begun = next(stream.iter_content(64))
        stream.close()
    found = {path: session.get(proxy.url + path) for path in ("", "api/status", "metrics", "static/app.js")}
    health = session.get(f"{proxy.url}healthz")
    without_slash = session.get(proxy.url.rstrip("/"))

    assert begun.startswith(b"--frame")
    assert {path: answer.status_code for path, answer in found.items()} == dict.fromkeys(found, 200)
    assert health.json()["ok"] is False
    assert without_slash.text.splitlines()[:5] == found[""].text.splitlines()[:5]
    assert re.findall(r'(?:href|src|action)="(/[^"]*)"', found[""].text)
    assert all(link.startswith(f"{BASE}/") for link in re.findall(r'(?:href|src|action)="(/[^"]*)"', found[""].text))


def test_a_path_that_is_not_there_is_not_found(proxy: PathProxy, session: requests.Session) -> None:
    assert session.get(f"{proxy.url}elsewhere").status_code == 404


def test_signing_out_leads_to_the_login_below_the_path(proxy: PathProxy) -> None:
    session = requests.Session()
    token = re.search(r'name="token" value="([^"]+)"', session.get(proxy.url).text)
    assert token
    page = session.post(f"{proxy.url}login", {"token": token[1], "password": PASSWORD})
    token = re.search(r'name="token" value="([^"]+)"', page.text)
    assert token

    answer = session.post(f"{proxy.url}logout", {"token": token[1]})

    assert answer.url == f"{proxy.url}login"
    assert [cookie.name for cookie in session.cookies if cookie.name == "maskwatch-session"] == []


def test_a_browser_signs_in_watches_and_signs_out_below_the_path(proxy: PathProxy, server: Server) -> None:
    if CHROMIUM is None:
        missing("there is no chromium on this machine")
    errors: list[str] = []
    before = list(proxy.astray)

    with sync_playwright() as playwright, feeding([Feed(server)], [face()]):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        tab: Any = browser.new_page()
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        tab.goto(proxy.url)
        tab.fill("#password", PASSWORD)
        tab.click("button")
        expect(tab.locator("#connection")).to_have_text("Connected", timeout=10_000)
        drawn = tab.locator("canvas[data-camera=demo]")
        wait_until(lambda: int(drawn.get_attribute("data-drawn-count", timeout=10_000)) > 3, 10, "frames are drawn")
        at = tab.url
        tab.click(".sign-out button")
        expect(tab.locator("h2")).to_have_text("Sign in")
        left_at = tab.url
        browser.close()

    assert (at, left_at) == (proxy.url, f"{proxy.url}login")
    assert errors == []
    assert proxy.astray == before


def test_the_address_that_is_printed_has_the_path_and_works_without_a_proxy(server: Server) -> None:
    with viewing(server.url, base_path=BASE) as viewer:
        answer = requests.get(viewer.url, timeout=10)
        health = requests.get(viewer.url.replace(BASE, "") + "healthz", timeout=10)
        page = Page(viewer.url)
        page.close()

    assert viewer.url.endswith(f"{BASE}/")
    assert (answer.status_code, health.status_code) == (200, 503)


@pytest.mark.parametrize("path", sorted(OWN_PATHS))
def test_a_path_that_the_viewer_has_itself_is_refused(path: str) -> None:
    with pytest.raises(BadSettings, match="choose another"):
        base_path_of(Settings(base_path=f"/{path}/x"))


@pytest.mark.parametrize(("given", "used"), [(None, ""), ("", ""), ("/", ""), ("/a", "/a"), ("/a/b.c/", "/a/b.c")])
def test_a_slash_at_the_end_does_not_matter(given: str | None, used: str) -> None:
    assert base_path_of(settings_from({"base_path": given})) == used


@pytest.mark.parametrize("path", ["maskwatch", "/a b", "/../x", "//x", "/a//b", "/a?b", "/\u00e4", "https://h/a"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(BadSettings, match="--base-path"):
        settings_from({"base_path": path})
