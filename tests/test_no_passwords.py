"""Passwords that users give in arguments, variables, files and URLs are in nothing that others can read."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest
from command_lines import run_all
from conftest import Server, wait_until
from processes import Processes, descendants, live, processes

from pipeline.bus.clock import Clock
from pipeline.bus.connection import connect
from pipeline.bus.status import read_heartbeats
from pipeline.runtime.redaction import redact, redact_arguments, redact_quoted_arguments
from producer.sources.source import SourceFailed
from producer.sources.source_spec import UNREADABLE, parse_source
from viewer.security.authenticator import password_hash

__all__ = ["processes"]

# Each planted password holds this word, and nothing else in a test does.
PLANTED = "S3cret"
DAHUA = f"rtsp://admin:{PLANTED}@cam.invalid/cam/realmonitor?channel=1&subtype=0"


def maskwatch(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "maskwatch", *arguments]
    environment = os.environ | variables
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


WRONG = [
    f"up --camera rtsp://admin:{PLANTED}@cam.invalid/s",
    f"up --camera {DAHUA}",
    f"up --camera Door={DAHUA}",
    f"up --camera door=rtmp://cam.invalid/live/{PLANTED}",
    f"up --camera door=rtmp://cam.invalid/x?user=admin&password={PLANTED}",
    f"up --camera rtsp://cam.invalid/user=admin_password={PLANTED}_channel=1",
    f"up --camera door=rtsp://admin:p@ss/w#{PLANTED}@cam.invalid/s",
    f"up rtsp://admin:{PLANTED}@cam.invalid/s",
    f"up --camera http://cam.invalid/snap.cgi?loginuse=a&loginpas={PLANTED}",
    f"up --camera http://cam.invalid/snap?access_token={PLANTED}",
    f"rtsp://admin:{PLANTED}@cam.invalid/s",
    f"camera --name rtsp://admin:{PLANTED}@cam.invalid/s demo",
    f"camera admin:{PLANTED}@cam.invalid --name door",
    f"status redis://:{PLANTED}@redis.invalid",
    f"status --redis http://user:{PLANTED}@redis.invalid",
    f"status --redis redis://:{PLANTED}@127.0.0.1:1",
    f"dead list --redis redis://:{PLANTED}@127.0.0.1:x",
    f"view --metrics-token {PLANTED}",
    f"view --metrics-token= {PLANTED}{PLANTED}{PLANTED}",
    f"view --session-key {PLANTED}",
    f"view --password-hash {PLANTED}",
    f"view --origins https://user:{PLANTED}@cameras.invalid",
    f"view --port rtsp://user:{PLANTED}@cam.invalid",
    f"view --host http://user:{PLANTED}@cam.invalid",
    f"models list --models nowhere://key:{PLANTED}@bucket/models",
    f"password {PLANTED}",
]


@pytest.mark.parametrize("json_lines", [False, True])
def test_no_error_shows_a_password(json_lines: bool) -> None:
    found = run_all(WRONG, MASKWATCH_LOG_JSON=str(json_lines).lower())

    assert [command for command, (status, text) in found.items() if status not in (1, 2) or not text] == []
    assert [command for command, (_, text) in found.items() if PLANTED.lower() in text.lower()] == []
    for _, text in found.values():
        assert not json_lines or all(json.loads(line) for line in text.splitlines())


def test_cameras_in_a_variable_are_read_and_not_shown() -> None:
    found = run_all(["up"], MASKWATCH_CAMERAS=f"door=demo yard=rtmp://admin:{PLANTED}@cam.invalid/s")

    status, text = found["up"]
    assert (status, text.count("\n")) == (2, 1)
    assert "--camera yard: rtmp:// cannot be read" in text


def test_the_command_line_of_a_single_camera_is_overwritten(server: Server, processes: Processes) -> None:
    camera = processes.start("camera", f"rtsp://admin:{PLANTED}@127.0.0.1:1/s", "--name", "door", redis=server)
    wait_until(lambda: live(server, "camera"), 30, "the camera is alive")

    shown = Path(f"/proc/{camera.pid}/cmdline").read_text()

    assert shown.startswith(f"maskwatch camera rtsp://admin:***@127.0.0.1:1/s --name door --redis {server.url}")


def test_the_traceback_of_an_uncaught_error_shows_no_password() -> None:
    program = (
        "import maskwatch\n"
        "def fail(cli): raise RuntimeError('rtsp://admin:' + 'S3' + 'cret@h/s')\n"
        "maskwatch.command_line = fail\n"
        "maskwatch.main()"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert "RuntimeError: rtsp://admin:***@h/s" in done.stderr
    assert PLANTED not in done.stderr


def test_an_argument_of_password_says_why_there_is_none() -> None:
    line = maskwatch("password", PLANTED).stderr

    assert "asks for the password" in line


@pytest.mark.parametrize(
    "password", ["p@ss/w#1", "1/2", "1?2", "1#2", "12/34@5", "p@ss?1", "p@ss#1", "a/b", "a?b", "a#b", "a[b"]
)
def test_a_raw_character_in_a_password_of_a_camera_is_one_line_that_says_how_to_write_it(password: str) -> None:
    with pytest.raises(SourceFailed) as found:
        parse_source(f"rtsp://admin:{password}@cam.invalid/stream")

    assert str(found.value) == UNREADABLE
    assert "write @ as %40" in UNREADABLE


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://admin:p@ss@cam.lan/stream",
        "rtsp://admin:p%2Fw@cam.lan:554/stream?channel=1&subtype=0",
        "http://cam.lan/@door/stream",
        "http://cam.lan:8080/video?user=me@home.example&size=2",
        "rtsp://[fe80::1]/stream@2",
    ],
)
def test_an_at_sign_where_it_can_be_no_password_is_accepted(url: str) -> None:
    assert parse_source(url).text == url


def test_a_text_is_shown_without_the_passwords_of_its_urls() -> None:
    shown = redact(f"cannot open 'rtsp://a:{PLANTED}@h/s': http://h/x?pwd={PLANTED} at http://h:80/ok")
    words = redact_arguments(["up", "--camera", f"a=rtsp://u:{PLANTED}@h", "--session-key", PLANTED, "--port", "1"])

    assert shown == "cannot open 'rtsp://a:***@h/s': http://h/x?pwd=*** at http://h:80/ok"
    assert words == ["up", "--camera", "a=rtsp://u:***@h", "--session-key", "***", "--port", "1"]


def test_an_error_about_a_command_line_keeps_the_words_that_only_look_like_a_password() -> None:
    words = ["view", "--metrics-token", "token", "--host", "a\\b:c@d"]

    told = redact_quoted_arguments("--metrics-token: 'token' is too short, and a\\b:c@d or 'a\\\\b:c@d' no host", words)

    assert told == "--metrics-token: '***' is too short, and a\\b:***@d or 'a\\b:***@d' no host"


@pytest.mark.parametrize("json_lines", [False, True])
def test_a_running_pipeline_shows_no_password_anywhere(
    server: Server, processes: Processes, tmp_path: Path, json_lines: bool
) -> None:
    server.client.config_set("requirepass", f"{PLANTED}-redis")
    client = connect(server.url.replace("unix://", f"unix://:{PLANTED}-redis@"))
    own = Server(server.url.replace("unix://", f"unix://:{PLANTED}-redis@"), client, Clock(client), server.process)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    (tmp_path / "settings.toml").write_text(f'session_key = "{PLANTED}-{"k" * 32}"\nport = {port}\n')
    up = processes.start(
        *("--config", tmp_path / "settings.toml", "up"),
        *("--metrics-token", f"{PLANTED}-metrics-token", "--password-hash", password_hash(f"{PLANTED}-page")),
        *("--camera", f"door=rtsp://admin:{PLANTED}-door@127.0.0.1:1/cam/realmonitor?channel=1&subtype=0"),
        *("--camera", f"yard=http://127.0.0.1:1/snap?user=admin&password={PLANTED}-yard"),
        *("--camera", f"hall=http://127.0.0.1:1/video?access_token={PLANTED}-hall"),
        *("--camera", "demo=demo", "--detectors", 1, "--classifiers", 1),
        *(["--log-json"] if json_lines else []),
        redis=own,
    )

    def states() -> dict[str, str]:
        return {str(beat.camera): beat.state for beat in read_heartbeats(client) if beat.role == "camera"}

    cameras = wait_until(lambda: states() if len(states()) == 4 and is_failing(states()) else None, 60, "all fail")
    roles = {"camera", "detector", "classifier", "viewer"}
    wait_until(lambda: roles <= {beat.role for beat in read_heartbeats(client)}, 60, "all children are live")
    page = f"http://127.0.0.1:{port}/"
    served = [answer(page + path) for path in ("", "login", "healthz", "metrics", "api/status")]
    metrics = answer(page + "metrics", f"{PLANTED}-metrics-token")
    status = maskwatch("status", "--json", MASKWATCH_REDIS_URL=own.url)
    found = maskwatch("status")
    lines = [Path(f"/proc/{pid}/cmdline").read_text() for pid in [up.pid, *descendants(up.pid)]]
    up.terminate()
    printed, _ = up.communicate(timeout=30)
    client.close()

    assert "maskwatch_" in metrics
    assert (status.returncode, found.returncode) == (0, 0), "a Redis with a password is found, too"
    assert len(lines) >= 8
    for text in (*lines, *cameras.values(), *served, metrics, status.stdout, found.stdout, printed, processes.log()):
        assert PLANTED not in text


def is_failing(states: dict[str, str]) -> bool:
    return all(state.startswith("retrying") for camera, state in states.items() if camera != "demo")


def answer(url: str, token: str | None = None) -> str:
    """Return what the viewer answers, headers included."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as found:  # noqa: S310
            return f"{found.headers}{found.read().decode()}"
    except HTTPError as error:
        return f"{error.headers}{error.read().decode()}"
