"""`maskwatch discover`: cameras that answer ONVIF's discovery, and what they say of their streams."""

from __future__ import annotations

import base64
import hashlib
import http.server
import re
import socket
import threading
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from maskwatch import cli
from producer.discovery import probe
from producer.discovery.onvif import OnvifCamera, OnvifFailed, Stream
from producer.discovery.probe import Device, devices_in, find_devices

SOAP = (
    '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:t="http://www.onvif.org/ver10/schema" '
    'xmlns:m="http://www.onvif.org/ver10/media/wsdl" xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery">'
    "<s:Body>{}</s:Body></s:Envelope>"
)
DATE = (
    "<t:UTCDateTime><t:Time><t:Hour>3</t:Hour><t:Minute>4</t:Minute><t:Second>5</t:Second></t:Time>"
    "<t:Date><t:Year>2001</t:Year><t:Month>1</t:Month><t:Day>2</t:Day></t:Date></t:UTCDateTime>"
)
PROFILES = (
    '<m:GetProfilesResponse><m:Profiles token="main&amp;1"><t:VideoEncoderConfiguration><t:Encoding>H264</t:Encoding>'
    "<t:Resolution><t:Width>1920</t:Width><t:Height>1080</t:Height></t:Resolution></t:VideoEncoderConfiguration>"
    '</m:Profiles><m:Profiles token="sub"/></m:GetProfilesResponse>'
)


class OnvifServer(http.server.ThreadingHTTPServer):
    """The web service of a camera whose clock is in 2001.

    password: of the user admin; None for none. without_stream: tokens of the profiles that have no stream.
    """

    daemon_threads = True

    def __init__(self, password: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _OnvifRequest)
        self.password = password
        self.without_stream: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_port}/onvif/device_service"


class _OnvifRequest(http.server.BaseHTTPRequestHandler):
    server: OnvifServer

    def do_POST(self) -> None:
        question = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if "GetSystemDateAndTime" in question:
            self._answer(DATE)
        elif self.server.password is not None and not is_authorized(question, self.server.password):
            self._answer("<s:Fault><s:Value>ter:NotAuthorized</s:Value></s:Fault>", 400)
        elif "GetCapabilities" in question:
            self._answer(f"<t:Media><t:XAddr>{self.server.url}</t:XAddr></t:Media>")
        elif "GetProfiles" in question:
            self._answer(PROFILES)
        else:
            token = re.search("ProfileToken>(.*)</m:ProfileToken", question)[1]
            if token in self.server.without_stream:
                self._answer("<s:Fault/>", 500)
            else:
                self._answer(f"<t:Uri> rtsp://127.0.0.1/{token}?a=1&amp;b=2 </t:Uri>")

    def log_message(self, *_arguments: object) -> None:
        pass

    def _answer(self, body: str, status: int = 200) -> None:
        content = SOAP.format(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def is_authorized(question: str, password: str) -> bool:
    """Return whether a request carries the digest of the password, at the camera's time."""
    parts = {name: re.search(f"{name}[^>]*>([^<]*)<", question) for name in ("Nonce", "Created", "Password ")}
    if not all(parts.values()):
        return False
    nonce, created, digest = (parts[name][1] for name in ("Nonce", "Created", "Password "))
    expected = hashlib.sha1(base64.b64decode(nonce) + created.encode() + password.encode()).digest()  # noqa: S324 -- the standard's
    return created.startswith("2001-01-02T03:04:") and digest == base64.b64encode(expected).decode()


def served(server: OnvifServer) -> Iterator[OnvifServer]:
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def open_camera() -> Iterator[OnvifServer]:
    yield from served(OnvifServer())


@pytest.fixture
def locked_camera() -> Iterator[OnvifServer]:
    yield from served(OnvifServer(password="right & long"))


def match(
    services: str, scopes: str = "onvif://www.onvif.org/name/Yard%20West onvif://www.onvif.org/hardware/X1"
) -> str:
    return SOAP.format(
        f"<d:ProbeMatches><d:ProbeMatch><d:Scopes>{scopes}</d:Scopes><d:XAddrs>{services}</d:XAddrs></d:ProbeMatch>"
        "</d:ProbeMatches>"
    )


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A network in which a question is answered with these texts."""
    answers: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        monkeypatch.setattr(probe, "MULTICAST", listening.getsockname())

        def answer() -> None:
            while question := listening.recvfrom(65_536):
                content, sender = question
                if content == b"end":
                    return
                for text in answers:
                    listening.sendto(text.encode(), sender)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield answers
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
            ending.sendto(b"end", listening.getsockname())
        thread.join()


def discovered(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, ["discover", "--within-s", "0.5", *arguments], env=environment)


def test_each_camera_that_answers_is_found_once_whatever_else_answers(network: list[str]) -> None:
    network += [match("http://127.0.0.1/onvif"), "no xml", match(""), match("ftp://127.0.0.1/x"), "<a/>"]

    found = find_devices(0.5, probe.MULTICAST)

    assert found == [Device(host="127.0.0.1", service="http://127.0.0.1/onvif", name="Yard West X1")]


@pytest.mark.parametrize(
    ("services", "chosen"),
    [
        ("http://[fe80::1]/onvif http://10.0.0.7/onvif", "http://10.0.0.7/onvif"),
        ("http://192.168.1.9/onvif", "http://192.168.1.9/onvif"),
        ("http://[broken/ https://10.0.0.7:8443/onvif", "https://10.0.0.7:8443/onvif"),
    ],
)
def test_of_several_addresses_the_one_that_answered_is_used(services: str, chosen: str) -> None:
    (device,) = devices_in(match(services).encode(), "10.0.0.7")

    assert device.service == chosen


@given(st.binary(max_size=400))
def test_no_answer_stops_the_search(answer: bytes) -> None:
    assert devices_in(answer, "10.0.0.7") == []


def test_a_camera_says_its_streams(open_camera: OnvifServer) -> None:
    found = OnvifCamera(service=open_camera.url).streams()

    assert found == [
        Stream(url="rtsp://127.0.0.1/main&1?a=1&b=2", encoding="H264", size="1920x1080"),
        Stream(url="rtsp://127.0.0.1/sub?a=1&b=2", encoding="", size=""),
    ]


def test_a_profile_without_a_stream_hides_no_other(open_camera: OnvifServer) -> None:
    camera = OnvifCamera(service=open_camera.url)
    open_camera.without_stream = {"sub"}

    assert [stream.url for stream in camera.streams()] == ["rtsp://127.0.0.1/main&1?a=1&b=2"]
    open_camera.without_stream = {"main&amp;1", "sub"}
    with pytest.raises(OnvifFailed, match="status 500"):
        camera.streams()


def test_a_password_is_sent_as_a_digest_at_the_camera_s_own_time(locked_camera: OnvifServer) -> None:
    found = OnvifCamera(service=locked_camera.url, user="admin", password="right & long").streams()

    assert [stream.size for stream in found] == ["1920x1080", ""]


@pytest.mark.parametrize(("user", "password"), [("", ""), ("admin", "wr0ng"), ("admin", "")])
def test_a_camera_that_rejects_the_password_says_so(locked_camera: OnvifServer, user: str, password: str) -> None:
    with pytest.raises(OnvifFailed, match="it needs a user of its ONVIF settings, or rejects the password"):
        OnvifCamera(service=locked_camera.url, user=user, password=password).streams()


def test_a_camera_whose_service_is_not_there_says_so() -> None:
    with socket.socket() as bound:  # the port is taken, but nobody listens on it
        bound.bind(("127.0.0.1", 0))
        service = f"http://127.0.0.1:{bound.getsockname()[1]}/onvif"

        with pytest.raises(OnvifFailed, match=r"it does not answer: .*refused"):
            OnvifCamera(service=service).streams()


def test_the_command_lists_cameras_and_says_of_each_why_it_has_no_streams(
    network: list[str], open_camera: OnvifServer, locked_camera: OnvifServer
) -> None:
    network += [match(open_camera.url), match(locked_camera.url, "onvif://www.onvif.org/name/Hall")]

    result = discovered("--user", "admin", MASKWATCH_CAMERA_PASSWORD="s3cret")

    assert result.exit_code == 0
    assert "127.0.0.1  Yard West X1\n    rtsp://127.0.0.1/main&1?a=1&b=2  H264 1920x1080\n" in result.output
    assert "127.0.0.1  Hall\n    it needs a user of its ONVIF settings, or rejects the password" in result.output
    assert "s3cret" not in result.output


def test_what_a_camera_is_called_does_not_steer_the_terminal(network: list[str], open_camera: OnvifServer) -> None:
    network += [match(open_camera.url, "onvif://www.onvif.org/name/Yard%1B%5B2J%0AWest")]

    lines = discovered().output.splitlines()

    assert lines[0] == "127.0.0.1  Yard\N{REPLACEMENT CHARACTER}[2J West"


def test_a_network_without_cameras_ends_with_one_line(network: list[str]) -> None:
    result = discovered()

    assert result.exit_code == 1
    assert "no camera answered within 0.5 s; " in result.stderr
