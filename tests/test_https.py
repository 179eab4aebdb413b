"""docker-compose.https.yml on a real engine: the page over TLS, and a proxy that keeps slow clients from the viewer.

Certificates are verified with the root certificate of the proxy's own authority.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest
import requests
from conftest import missing, wait_until
from containers import BUILD_S, HTTPS_FILE, SITE, Deployment, Watching, bring_engine_up, docker, free_port
from feeding import REPOSITORY
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect, sync_playwright

from viewer.security.middleware import HEADERS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OFFLINE = ["--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
STARTED_WITHIN_S = 90
HALF_REQUESTS = 200
CLOSED_WITHIN_S = 90  # the proxy waits 10 s for a request
BEGINNINGS = (
    b"",
    b"G",
    b"GET /login HTTP/1.1\r\nHost: localhost\r\nX: ",
    b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000\r\n\r\nto",
)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    bring_engine_up()
    folder = tmp_path_factory.mktemp("https")
    variables = {"SITE": SITE, "TLS": "internal", "HTTPS_ADDRESS": "127.0.0.1", "HTTP_PORT": free_port()}
    deployment = Deployment(folder, HTTPS_FILE, CADDY_REQUEST_BUFFERS=buffers(), **variables)
    deployment.compose("build", "detector", within_s=BUILD_S)
    try:
        deployment.compose("up", "-d", "camera", "detector", "classifier", "caddy")
        wait_until(deployment.trust_authority, STARTED_WITHIN_S, "the proxy has an authority")
        wait_until(deployment.answers, STARTED_WITHIN_S, "the viewer answers")
        yield deployment
    finally:
        deployment.remove()


def buffers() -> str:
    """Return the directive with which this version of Caddy buffers requests."""
    version = docker("run", "--rm", "--entrypoint", "caddy", "caddy:2", "version").removeprefix("v")
    return "buffer_requests" if tuple(map(int, version.split()[0].split("."))) < (2, 6, 3) else "request_buffers 8KB"


@pytest.fixture
def tab(deployment: Deployment) -> Iterator[Tab]:
    """A tab of a browser that accepts the proxy's certificate, which is verified here, and no other unknown one."""
    if CHROMIUM is None:
        missing("there is no chromium on this machine")
    pinned = f"--ignore-certificate-errors-spki-list={public_key_hash(deployment)}"
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", pinned, *OFFLINE]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser.new_page()
        browser.close()


def public_key_hash(deployment: Deployment) -> str:
    """Return the SHA-256 of the public key of a certificate that was verified, as Chromium takes it."""
    tls = deployment.tls()
    assert tls is not None
    with connected(deployment, b"", tls) as connection:
        assert isinstance(connection, ssl.SSLSocket)
        certificate = connection.getpeercert(binary_form=True)
    command = ["openssl", "x509", "-inform", "DER", "-noout", "-pubkey"]
    key = subprocess.run(command, input=certificate, stdout=subprocess.PIPE, check=True).stdout
    der = base64.b64decode("".join(key.decode().strip().splitlines()[1:-1]))
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


def connected(deployment: Deployment, sent: bytes, tls: ssl.SSLContext | None) -> socket.socket:
    """Connect to the proxy and send these bytes; without tls not even its handshake begins."""
    place = urlsplit(deployment.url)
    connection = socket.create_connection((str(place.hostname), int(place.port or 0)), 10)
    if tls:
        connection = tls.wrap_socket(connection, server_hostname=place.hostname)
    connection.sendall(sent)
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Return whether the other end has closed a connection; what it sent before that is left out."""
    connection.settimeout(0.001)
    try:
        while connection.recv(4096):
            pass
    except (TimeoutError, ssl.SSLWantReadError):
        return False
    except OSError:
        pass
    return True


def sign_in(deployment: Deployment, tab: Tab) -> None:
    """Sign in and wait for the camera's frames."""
    tab.goto(deployment.url)
    tab.get_by_label("Password").fill(deployment.secrets["VIEWER_PASSWORD"])
    tab.get_by_role("button", name="Sign in").click()
    expect(tab.locator("article .state")).to_have_text("Live", timeout=30_000)


def drawn(tab: Tab) -> int:
    """Return how many frames the page has drawn."""
    return int(tab.locator("canvas").get_attribute("data-drawn-count") or 0)


def test_the_page_is_served_over_tls_with_login_socket_and_labelled_frames(deployment: Deployment, tab: Tab) -> None:
    sign_in(deployment, tab)

    wait_until(lambda: "confidence" in (tab.locator("canvas").get_attribute("data-faces") or ""), 30, "faces are drawn")
    assert tab.evaluate("isSecureContext")
    (session,) = [one for one in tab.context.cookies() if one["name"].endswith("-session")]
    assert (session["name"], session["secure"], session["httpOnly"]) == ("__Host-maskwatch-session", True, True)


def test_certificates_are_verified_and_plain_http_leads_to_tls(deployment: Deployment) -> None:
    page = Watching(deployment, "demo")  # with the authority
    wait_until(lambda: page.labelled("demo"), 30, "a labelled frame is shown")
    page.close()

    with pytest.raises(requests.exceptions.SSLError):
        requests.get(deployment.url, timeout=10)
    plain = docker("port", deployment.containers("caddy")[0], "80/tcp").strip()
    redirected = requests.get(f"http://{plain}/", headers={"Host": SITE}, allow_redirects=False, timeout=10)
    answer = requests.get(deployment.url + "login", verify=deployment.verify(), timeout=10)

    assert (redirected.status_code, redirected.headers["Location"]) == (308, f"https://{SITE}/")
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS


def test_a_client_that_names_no_server_is_served_and_http_1_is_all_it_is_offered(deployment: Deployment) -> None:
    tls = ssl.create_default_context(cafile=str(deployment.authority))
    tls.check_hostname = False  # an address in the URL is sent without a name
    tls.set_alpn_protocols(["h2", "http/1.1"])
    place = urlsplit(deployment.url)

    with (
        socket.create_connection((str(place.hostname), int(place.port or 0)), 10) as plain,
        tls.wrap_socket(plain) as connection,
    ):
        protocol = connection.selected_alpn_protocol()

    assert protocol == "http/1.1"


@pytest.mark.parametrize(("tls", "is_internal"), [("acme", False), ("internal", True)])
def test_public_names_get_public_certificates_and_browsers_keep_to_tls(tls: str, is_internal: bool) -> None:
    bring_engine_up()
    variables = ("SITE=cameras.example", f"TLS={tls}", f"REQUEST_BUFFERS={buffers()}")
    flags = [part for variable in variables for part in ("-e", variable)]
    mount = f"{REPOSITORY}/deploy/caddy:/etc/caddy:ro"
    adapt = ("caddy:2", "adapt", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile")

    config = json.loads(docker("run", "--rm", *flags, "-v", mount, "--entrypoint", "caddy", *adapt))

    assert config["admin"] == {"disabled": True}
    assert ('"module": "internal"' in json.dumps(config)) == is_internal
    assert ("Strict-Transport-Security" in json.dumps(config)) == (not is_internal)


def test_signing_out_closes_the_socket_through_the_proxy(deployment: Deployment) -> None:
    page = Watching(deployment, "demo")
    headers, verify = {"Cookie": page.cookie}, deployment.verify()
    front = requests.get(deployment.url, headers=headers, verify=verify, timeout=10).text
    token = re.search(r'name="token" value="([^"]+)"', front)
    assert token

    form = {"token": token[1]}
    out = requests.post(
        deployment.url + "logout", form, headers=headers, verify=verify, allow_redirects=False, timeout=10
    )

    wait_until(page.has_ended, 10, "the socket is closed")
    assert out.status_code == 303


def test_the_proxy_alone_is_published_and_reaches_nothing_but_the_viewer(deployment: Deployment) -> None:
    published, networks = {}, {}
    for container in deployment.inspected():
        service = container["Config"]["Labels"]["com.docker.compose.service"]
        bound = container["NetworkSettings"]["Ports"]
        published[service] = sorted(port for port, host in bound.items() if host)
        networks[service] = {
            name.removeprefix(f"{deployment.name}_") for name in container["NetworkSettings"]["Networks"]
        }

    assert {service: ports for service, ports in published.items() if ports} == {"caddy": ["443/tcp", "80/tcp"]}
    assert {service for service, on in networks.items() if on & networks["caddy"]} == {"caddy", "viewer"}
    (proxy,) = json_of(deployment, "caddy")
    assert proxy["HostConfig"]["ReadonlyRootfs"]
    assert proxy["HostConfig"]["CapDrop"] == ["ALL"]
    assert proxy["HostConfig"]["CapAdd"] in (["NET_BIND_SERVICE"], ["CAP_NET_BIND_SERVICE"])


def json_of(deployment: Deployment, service: str) -> list[dict[str, object]]:
    return [one for one in deployment.inspected() if one["Id"] in deployment.containers(service)]


def test_what_is_too_large_does_not_reach_the_viewer(deployment: Deployment) -> None:
    def status(**asked: object) -> int:
        return requests.post(deployment.url + "login", verify=deployment.verify(), timeout=10, **asked).status_code

    assert status(data="x" * 10_000) in (413, 502)  # 502 in versions of Caddy that buffer without a limit
    assert status(headers={"X": "x" * 40_000}) == 431


@contextmanager
def half_requests(deployment: Deployment) -> Iterator[list[socket.socket]]:
    """Keep half-sent requests open; each that the proxy closes is replaced until the block ends."""
    tls, ended = deployment.tls(), threading.Event()

    def half(number: int) -> socket.socket:
        return connected(deployment, BEGINNINGS[number % len(BEGINNINGS)], tls if number % 8 else None)

    halves = [half(number) for number in range(HALF_REQUESTS)]

    def replace() -> None:
        while not ended.wait(0.1):
            for number, one in enumerate(halves):
                if is_closed(one):
                    one.close()
                    halves[number] = half(number)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        yield halves
    finally:
        ended.set()
        thread.join()


def test_two_hundred_half_sent_requests_slow_no_browser_and_are_closed(deployment: Deployment, tab: Tab) -> None:
    sign_in(deployment, tab)

    with half_requests(deployment) as halves:
        before = drawn(tab)
        wait_until(lambda: drawn(tab) >= before + 50, 30, "frames go on")
        tab.reload()
        expect(tab.locator("article .state")).to_have_text("Live", timeout=30_000)
        wait_until(lambda: drawn(tab) >= 50, 30, "frames go on in a page that was loaded meanwhile")

    wait_until(lambda: all(map(is_closed, halves)), CLOSED_WITHIN_S, "the proxy closes all of them")
    for half in halves:
        half.close()


def test_connections_that_clients_leave_open_delay_nobody(deployment: Deployment) -> None:
    whole = b"GET /login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    tls = deployment.tls()
    with ExitStack() as stack:
        left_open = [stack.enter_context(connected(deployment, whole, tls)) for _ in range(HALF_REQUESTS)]

        page = Watching(deployment, "demo")
        wait_until(lambda: page.labelled("demo"), 30, "a labelled frame is shown")
        page.close()

        assert {one.recv(12) for one in left_open} == {b"HTTP/1.1 200"}


def test_a_socket_without_a_session_is_denied_through_the_proxy(deployment: Deployment) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    address = deployment.url + "socket.io/?EIO=4&transport=websocket"

    answer = requests.get(address, headers=upgrade, verify=deployment.verify(), timeout=10)

    assert answer.status_code == 401
