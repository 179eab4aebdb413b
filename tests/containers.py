"""The deployment of docker-compose.yml for tests: a project with its own secrets and port, on a real engine.

MASKWATCH_DOCKER_ENGINE names a script that brings an engine up where there is none.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import simple_websocket
from conftest import missing, wait_until
from feeding import REPOSITORY, Page

ENGINE = Path(os.environ.get("MASKWATCH_DOCKER_ENGINE", REPOSITORY.parent / "shared" / "docker" / "engine.sh"))
ENGINE_S = 900
BUILD_S = 1200
COMPOSE_S = 120
SCALE = ("--scale", "classifier=3", "--scale", "detector=2")
SITE = "localhost"  # of the deployments with HTTPS_FILE
HTTPS_FILE = "docker-compose.https.yml"
BASE_FILES = {False: ("docker-compose.yml", "docker-compose.override.yml"), True: ("docker-compose.yml",)}
FPS = "10"  # two cameras' worth is what two cores label beside a test


def bring_engine_up() -> None:
    """Make sure that a Docker engine runs here."""
    if ENGINE.is_file() and os.geteuid() == 0:
        # It outlives these tests and their folders.
        lasting = {name: value for name, value in os.environ.items() if not name.startswith(("TMPDIR", "XDG_"))}
        subprocess.run(["bash", ENGINE], check=True, stdout=subprocess.DEVNULL, timeout=ENGINE_S, env=lasting)
    elif shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        missing("no Docker engine runs here, and MASKWATCH_DOCKER_ENGINE names no script that starts one")


def docker(*arguments: object, within_s: float = 60) -> str:
    """Return what a docker command prints."""
    return output("docker", *arguments, within_s=within_s)


def output(*command: object, within_s: float = 60, **environment: str) -> str:
    """Return what a command prints; what it says goes into the failure when it fails."""
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=within_s,
        cwd=REPOSITORY,
        env=os.environ | environment,
    )
    assert done.returncode == 0, f"{command[:4]}...: {done.stderr[-2000:]}{done.stdout[-1000:]}"
    return done.stdout


def environment_file(path: Path) -> dict[str, str]:
    """Draw secrets into a file as `make env` does, and return them."""
    output(sys.executable, "scripts/make_env.py", path)
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)


def compose_program() -> list[str]:
    """Return how Compose is called here: the old program, or the engine's plugin."""
    return ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]


class Deployment:
    """One project of docker-compose.yml, and of other files on top of it.

    Args:
        variables: what its .env holds beside the secrets.

    `url` is where its page is; with docker-compose.https.yml, `authority` is a file with the root certificate of its
    proxy, once `trust_authority` has copied it.
    """

    def __init__(self, folder: Path, *files: str, **variables: object) -> None:
        is_https = HTTPS_FILE in files
        self.authority = folder / "root.crt" if is_https else None
        self.name = f"maskwatch-test-{secrets.token_hex(3)}"
        self.secrets = environment_file(folder / "env")
        self.url = f"https://{SITE}:{free_port()}/" if is_https else f"http://127.0.0.1:{free_port()}/"
        self._file = folder / "env"
        self._files = [part for name in (*BASE_FILES[is_https], *files) for part in ("-f", REPOSITORY / name)]
        with self._file.open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in variables.items())

    def compose(self, *arguments: object, within_s: float = COMPOSE_S) -> str:
        """Return what a Compose command prints."""
        port = self.url.split(":")[-1].strip("/")
        project = ["--project-name", self.name, "--project-directory", REPOSITORY, "--env-file", self._file]
        return output(
            *compose_program(),
            *self._files,
            *project,
            *arguments,
            within_s=within_s,
            VIEWER_PORT=port,
            HTTPS_PORT=port,
            FPS=FPS,
        )

    def containers(self, service: str | None = None, *, stopped: bool = False) -> list[str]:
        """Return the ids of its containers, those that `run` started too; of one service, or of all."""
        labels = [f"label=com.docker.compose.project={self.name}"]
        labels += [f"label=com.docker.compose.service={service}"] if service else []
        filters = [part for label in labels for part in ("--filter", label)]
        return docker("ps", "-q", "--no-trunc", *(["-a"] if stopped else []), *filters).split()

    def inspected(self, *, stopped: bool = False) -> list[dict[str, Any]]:
        """Return what the engine knows of each container."""
        found: list[dict[str, Any]] = json.loads(docker("inspect", *self.containers(stopped=stopped)))
        return found

    def volumes(self) -> list[str]:
        """Return the names of its volumes."""
        return docker("volume", "ls", "-q", "--filter", f"label=com.docker.compose.project={self.name}").split()

    def trust_authority(self) -> bool:
        """Copy the root certificate of the proxy; return whether it was there."""
        assert self.authority is not None
        (proxy,) = self.containers("caddy")
        command = ["docker", "exec", proxy, "cat", "/data/caddy/pki/authorities/local/root.crt"]
        self.authority.write_bytes(subprocess.run(command, stdout=subprocess.PIPE).stdout)
        return self.authority.stat().st_size > 0

    def verify(self) -> str | bool:
        """Return what requests verifies its certificate with."""
        return str(self.authority) if self.authority else True

    def tls(self) -> ssl.SSLContext | None:
        """Return how its certificate is verified; None without TLS."""
        return ssl.create_default_context(cafile=str(self.authority)) if self.authority else None

    def sign_in(self) -> str:
        """Sign in as a person does; return the header with the session's cookie."""
        browser = requests.Session()
        page = browser.get(self.url + "login", timeout=10, verify=self.verify()).text
        token = re.search(r'name="token" value="([^"]+)"', page)
        assert token is not None, page
        form = {"token": token[1], "password": self.secrets["VIEWER_PASSWORD"]}
        answer = browser.post(self.url + "login", form, allow_redirects=False, timeout=10, verify=self.verify())
        assert answer.status_code == 303, answer.text
        (session,) = [cookie for cookie in browser.cookies if cookie.name.endswith("maskwatch-session")]
        return f"{session.name}={session.value}"

    def answers(self) -> bool:
        """Return whether the viewer does."""
        try:
            return requests.get(self.url + "login", timeout=2, verify=self.verify()).ok
        except requests.RequestException:
            return False

    def remove(self) -> None:
        """Remove everything that is left of it.

        An engine that removes a container while it starts can miscount who is in its network, and then keeps that
        network, empty, until the engine itself starts again.
        """
        if left := self.containers(stopped=True):
            docker("rm", "-f", "-v", *left)
        if volumes := self.volumes():
            docker("volume", "rm", *volumes)
        networks = docker("network", "ls", "-q", "--filter", f"label=com.docker.compose.project={self.name}").split()
        subprocess.run(["docker", "network", "rm", *networks], capture_output=True)
        assert not self.containers(stopped=True)


@dataclass(frozen=True)
class Seen:
    """A frame as it arrived at a browser. at: Unix seconds on this machine's clock."""

    camera: str
    captured_at: float
    labelled: bool
    at: float
    jpeg: bytes


class Watching(Page):
    """The page of somebody who is signed in: acknowledges every frame, and notes all it is told, until `close`."""

    def __init__(self, deployment: Deployment, *cameras: str) -> None:
        address = deployment.url.replace("http", "ws", 1) + "socket.io/?EIO=4&transport=websocket"
        self.cookie = deployment.sign_in()
        headers = {"Cookie": self.cookie}
        self._socket = simple_websocket.Client(address, headers=headers, ssl_context=deployment.tls())
        self._socket.send("40")
        wait_until(lambda: (self._receive(1) or "").startswith("40"), 10, "the socket is open")
        self.emit("watch", cameras)
        self.seen: list[Seen] = []
        self.statuses: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._note, daemon=True)
        self._thread.start()

    def labelled(self, camera: str, since: float = 0.0) -> list[Seen]:
        """Return the labelled frames of a camera that were captured since a time."""
        return [one for one in self.seen if one.camera == camera and one.labelled and one.captured_at >= since]

    def close(self) -> None:
        super().close()
        self._thread.join()

    def has_ended(self) -> bool:
        """Return whether the viewer has closed the socket."""
        return not self._thread.is_alive()

    def _note(self) -> None:
        try:
            while True:
                self._note_one()
        except simple_websocket.ConnectionClosed:
            return

    def _note_one(self) -> None:
        text = self._receive(1)
        if not isinstance(text, str) or text[:2] not in ("42", "45"):
            return
        event, *arguments = json.loads(text[text.index("[") :])
        if event == "status":
            self.statuses.append(arguments[0])
        elif event == "frame":
            told, jpeg = arguments[0], self._receive(5)
            self.emit("ack", told["camera"], told["frame_id"])
            self.seen.append(Seen(told["camera"], told["captured_at"], told["labelled"], time.time(), jpeg))


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
