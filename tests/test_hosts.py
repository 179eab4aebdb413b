"""Two hosts: Redis with TLS, camera and viewer on one, workers on the other, with a slow cable between that is cut."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import missing, wait_until
from locked import REPOSITORY, USERS, Locked, locked, password_of
from namespaces import Cable, Host, two_hosts

from pipeline.bus.connection import hide_password
from pipeline.bus.messages import FrameResult, decode
from pipeline.bus.status import Ledger, read_heartbeats, read_ledgers

PORT = 6380
DELAY_S = 0.05
CUT_S = 10
PACE = (
    "--fps",
    5,
    "--deadline-s",
    3,
    "--jpeg-quality",
    50,
)  # slow: the test is about reconnecting, not about speed


@dataclass
class Site:
    """Both hosts and what runs on them."""

    near: Host
    far: Host
    cable: Cable
    redis: Locked
    certificates: Path
    processes: list[subprocess.Popen[bytes]]

    def url(self, user: str, *, scheme: str = "rediss", authority: str = "ca.pem") -> str:
        """Return where a user connects."""
        query = f"?ssl_ca_certs={self.certificates / authority}" if scheme == "rediss" else ""
        return f"{scheme}://{user}:{password_of(user)}@{self.near.address}:{PORT}{query}"

    def start(self, host: Host, *arguments: object, url: str) -> subprocess.Popen[bytes]:
        """Start one of our processes on a host; its log is a file."""
        with (self.certificates / f"{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                host.command(sys.executable, "-m", "maskwatch", *arguments, "--redis", url),
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def status(self, url: str) -> subprocess.CompletedProcess[str]:
        """Ask for the status on the far host."""
        command = self.far.command(sys.executable, "-m", "maskwatch", "status", "--redis", url)
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)

    def log(self) -> str:
        """Return what all processes have logged so far."""
        return "".join(path.read_text() for path in sorted(self.certificates.glob("*.log")))

    def ledger(self) -> Ledger:
        return read_ledgers(self.redis.server.bus, ["door"])["door"]

    def labelled_frames(self) -> list[str]:
        """Return the frames that have a labelled result, as often as they have one."""
        rows = cast(list[Any], self.redis.server.client.xrange("{s0}:results"))
        results = [decode(FrameResult, fields[b"record"]) for _, fields in rows]
        return [result.frame_id for result in results if result.outcome == "labelled"]

    def live(self) -> list[str]:
        return sorted(beat.role for beat in read_heartbeats(self.redis.server.client))


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="mw-"))
    processes: list[subprocess.Popen[bytes]] = []
    with contextlib.ExitStack() as tidy:
        tidy.callback(shutil.rmtree, folder)
        near, far, cable = tidy.enter_context(two_hosts(DELAY_S))
        make_certificates(folder, near.address)
        tls = [
            *("--port", "0", "--tls-port", str(PORT), "--tls-auth-clients", "no"),
            *("--tls-cert-file", str(folder / "redis.pem"), "--tls-key-file", str(folder / "redis.key")),
            *("--tls-ca-cert-file", str(folder / "ca.pem")),
        ]
        redis = tidy.enter_context(locked("redis", flags=tls, inside=near.command()))
        tidy.callback(end, processes)
        yield Site(near, far, cable, redis, folder, processes)


def make_certificates(folder: Path, address: str) -> None:
    """Make an authority, its certificate for an address, and an unrelated authority."""
    if shutil.which("openssl") is None:
        missing("there is no openssl on this machine")
    for name in ("ca", "stranger"):
        openssl(
            folder, f"req -x509 -newkey rsa:2048 -noenc -subj /CN={name} -keyout {name}.key -out {name}.pem -days 2"
        )
    openssl(folder, "req -newkey rsa:2048 -noenc -subj /CN=redis -keyout redis.key -out redis.csr")
    (folder / "san").write_text(f"subjectAltName=IP:{address}\n")
    openssl(folder, "x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -extfile san -out redis.pem -days 2")


def openssl(folder: Path, words: str) -> None:
    done = subprocess.run(["openssl", *words.split()], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
        process.wait()


def test_a_redis_with_a_certificate_of_another_authority_is_not_used(site: Site) -> None:
    done = site.status(site.url("admin", authority="stranger.pem"))

    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "certificate verify failed" in line
    assert password_of("admin") not in line


def test_a_client_without_tls_is_not_answered(site: Site) -> None:
    done = site.status(site.url("admin", scheme="redis"))

    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert f"redis://admin:***@{site.near.address}:{PORT}" in line


def test_a_valid_certificate_needs_only_its_authority_in_the_url(site: Site) -> None:
    done = site.status(site.url("admin"))

    assert done.returncode == 0, done.stderr
    assert "CAMERA" in done.stdout


def fetched(site: Site, path: str) -> bytes:
    """Return what the viewer answers on its own host."""
    program = (
        f"import sys, urllib.request as r; sys.stdout.buffer.write(r.urlopen('http://127.0.0.1:8000/{path}').read())"
    )
    return subprocess.run(site.near.command(sys.executable, "-c", program), capture_output=True, check=False).stdout


def test_workers_behind_a_slow_cable_are_back_soon_after_it_was_cut(site: Site) -> None:
    for command, user in (("detect", "detector"), ("classify", "classifier"), ("classify", "classifier")):
        site.start(site.far, command, url=site.url(user))
    viewer = site.start(site.near, "view", "--port", 8000, url=site.url("viewer"))
    camera = site.start(site.near, "camera", "demo", "--name", "door", *PACE, url=site.url("camera"))
    everybody = ["camera", "classifier", "classifier", "detector", "viewer"]
    wait_until(lambda: site.live() == everybody, 60, "all live")
    wait_until(lambda: site.ledger().labelled >= 10, 30, "frames are labelled")

    site.cable.connected, cut_at = False, time.monotonic()
    wait_until(lambda: time.monotonic() > cut_at + CUT_S, CUT_S + 30, "the cable has been cut for long")
    live_when_cut, labelled_when_cut = site.live(), site.ledger().labelled
    site.cable.connected, mended_at = True, time.monotonic()
    wait_until(lambda: site.ledger().labelled > labelled_when_cut, 60, "frames are labelled again")
    print(f"labelled again {time.monotonic() - mended_at:.1f} s after the cable was mended")
    wait_until(lambda: fetched(site, "cameras/door/snapshot.jpg")[:2] == b"\xff\xd8", 10, "the viewer shows them")
    wait_until(lambda: site.live() == everybody, 60, "all are live again")
    for process in (camera, viewer):
        process.terminate()
        assert process.wait(15) == 0
    wait_until(lambda: site.ledger().in_flight == 0, 30, "every frame has ended")

    ledger = site.ledger()
    print(f"ledger: {ledger}")
    assert live_when_cut == ["camera", "viewer"]
    assert ledger.balances
    assert len(labelled := site.labelled_frames()) == len(set(labelled)) == ledger.labelled
    assert [row for row in site.redis.denials() if row["object"] != "info"] == []  # who may not ask does without
    assert not any(password_of(user) in site.log() for user in USERS)


def test_a_url_is_shown_without_its_password_and_with_its_certificates() -> None:
    told = hide_password("rediss://detector:secret@10.0.0.1:6380/0?ssl_ca_certs=/run/ca.pem")

    assert told == "rediss://detector:***@10.0.0.1:6380/0?ssl_ca_certs=/run/ca.pem"
