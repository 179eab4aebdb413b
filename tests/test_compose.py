"""docker-compose.yml on a real engine: it labels, grows while it runs, survives kills, and leaves no pixel behind.

The tests share one deployment and build on each other; the last one takes it down.
"""

from __future__ import annotations

import collections
import itertools
import json
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import wait_until
from containers import BUILD_S, SCALE, Deployment, Watching, bring_engine_up, docker, free_port, output

from models.classifier.card import DEFAULT_FOLDER, read_card
from models.classifier.mask_classifier import crop_faces
from models.detector import face_detector
from pipeline.bus.connection import Redis, connect
from pipeline.bus.status import read_heartbeats
from pipeline.vision.jpeg import decode_jpeg, encode_jpeg
from producer.sources.demo.scene import Scene

pytestmark = pytest.mark.alone  # second cameras and kills show within seconds on two cores that do nothing else

LABELLED_WITHIN_S = 60
ADDED_SHOWS_WITHIN_S = 3
MAX_GAP_S = 1.0
WATCHED_S = 6.0  # around a kill: what was held is taken over after 2 s
HEALTHY_WITHIN_S = 90
SHARES_OF_S = 10
KILLED = 137  # exit status of what did not end in its time
REDIS_HOST = "redis-host"  # the name under which another host knows this one
LISTENING = {
    "redis": {6379},
    "redis-jobs": {6379},
    "viewer": {8000},
    "camera": {9400},
    "door": {9400},
    "detector": {9400},
    "classifier": {9400},
    "recorder": {9400},
    "trainer": {9400},
}
PATCH_PX = 48  # whole blocks of a JPEG, so that they stay of one colour
PATCH_BGR = (201, 90, 37)
# 1 is no failure: a file grew while it was read, as the log of jobs may.
TAR = "tar -C /volumes -c . || test $? = 1"
BUILD_TOOLS = ("gcc", "cc", "make", "npm", "node", "git")


@dataclass(frozen=True)
class Started:
    """The deployment and a page of its viewer. seconds: from `up` with built images to the first labelled frame."""

    deployment: Deployment
    page: Watching
    seconds: float


@dataclass(frozen=True)
class Planted:
    """A picture that is found again wherever its bytes are. needles: of its file, and of its pixels."""

    jpeg: bytes
    needles: tuple[bytes, ...]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    bring_engine_up()
    more = {"DOOR_SOURCE": "demo:numbered"}
    deployment = Deployment(tmp_path_factory.mktemp("deployment"), "docker-compose.cameras.yml", **more)
    deployment.compose("build", "detector", "trainer", within_s=BUILD_S)  # the others' images too
    begins = time.monotonic()
    try:
        deployment.compose("up", "-d", *SCALE, "--scale", "door=0")
        wait_until(deployment.answers, LABELLED_WITHIN_S, "the viewer answers")
        page = Watching(deployment, "demo", "door", "coded")
        wait_until(lambda: page.labelled("demo"), LABELLED_WITHIN_S, "a labelled frame is shown")
        seconds = time.monotonic() - begins
        yield Started(deployment, page, seconds)
        page.close()
    finally:
        deployment.remove()


def rates(page: Watching, role: str) -> collections.Counter[str]:
    """Return how many frames each process of a role worked on, summed over what the page was told, by host."""
    counts: collections.Counter[str] = collections.Counter()
    for process in itertools.chain.from_iterable(status["processes"] for status in page.statuses):
        if process["role"] == role:
            counts[process["host"]] += round(process["rates"].get("frames", 0))
    return counts


def ledgers(status: dict[str, Any]) -> list[dict[str, Any]]:
    return [camera["ledger"] for camera in status["cameras"]]


def balances(ledger: dict[str, Any]) -> bool:
    ended = ledger["labelled"] + sum(ledger["dropped"].values())
    return bool(ledger["produced"] == ended + ledger["in_flight"])


def unix_time(docker_time: str) -> float:
    """Return Unix seconds of a time as the engine writes it, with nanoseconds."""
    return datetime.fromisoformat(re.sub(r"\.(\d{6})\d*Z", r".\1+00:00", docker_time)).timestamp()


def planted() -> Planted:
    """Return a picture with faces, a word in its file, and a coloured patch on a face, which its crop shows too."""
    word = secrets.token_hex(16).encode()
    frame = Scene(fps=20, seed=0).render(0)
    x1, y1, x2, y2 = max(face_detector.load_detector().find(frame).boxes, key=lambda box: float(box[2] - box[0]))
    left, top = (int(middle) // 16 * 16 - 16 for middle in ((x1 + x2) / 2, (y1 + 3 * y2) / 4))
    frame[top : top + PATCH_PX, left : left + PATCH_PX] = PATCH_BGR
    plain = encode_jpeg(frame, 95)
    jpeg = plain[:2] + b"\xff\xfe" + (len(word) + 2).to_bytes(2, "big") + word + plain[2:]
    pixel = decode_jpeg(jpeg)[top + PATCH_PX // 2, left + PATCH_PX // 2, ::-1].tobytes()
    return Planted(jpeg, (word, plain[len(plain) // 2 :][:64], 10 * pixel))


def test_all_three_classifiers_take_work(started: Started, capsys: pytest.CaptureFixture[str]) -> None:
    deployment, page = started.deployment, started.page

    page.statuses.clear()
    wait_until(lambda: len(page.statuses) >= SHARES_OF_S, 3 * SHARES_OF_S, "the page is told how things are")

    counts = rates(page, "classifier")
    shares = ", ".join(f"{count / max(1, counts.total()):.0%}" for count in sorted(counts.values()))
    with capsys.disabled():
        print(f"\nfirst labelled frame after {started.seconds:.1f} s; the classifiers' shares: {shares}")
        print(figures(deployment))
    assert len(counts) == 3
    assert all(counts.values())
    assert len(rates(page, "detector")) == 2


def test_a_camera_added_while_all_runs_shows_within_three_seconds(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment, page = started.deployment, started.page

    deployment.compose("run", "-d", "--use-aliases", "-e", "SOURCE=demo:numbered", "-e", "NAME=door", "camera")
    (first, *_) = wait_until(lambda: page.labelled("door"), 30, "the new camera's frames are labelled")

    (added,) = [one for one in deployment.inspected() if "NAME=door" in one["Config"]["Env"]]
    after_s = first.at - unix_time(added["State"]["StartedAt"])
    assert "demo:numbered" not in docker("top", added["Id"])  # a source may hold a password
    with capsys.disabled():
        print(f"\nthe second camera shows {after_s:.1f} s after its start")
    assert after_s <= ADDED_SHOWS_WITHIN_S


def test_killing_a_classifier_and_a_detector_leaves_no_gap(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment, page = started.deployment, started.page
    victims = [deployment.containers(service)[0] for service in ("classifier", "detector")]
    killed_at = page.labelled("demo")[-1].captured_at

    docker("kill", "--signal", "KILL", *victims)
    wait_until(lambda: page.labelled("demo", killed_at + WATCHED_S), 30, "labelled frames go on")

    for camera in ("demo", "door"):
        times = [one.captured_at for one in page.labelled(camera, killed_at - 1) if one.captured_at < killed_at + 7]
        gap_s = max(later - earlier for earlier, later in itertools.pairwise(times))
        with capsys.disabled():
            print(f"\n{camera}: {len(times)} labelled frames round the kill, {gap_s:.2f} s between two at most")
        assert gap_s <= MAX_GAP_S
    assert all(map(balances, itertools.chain.from_iterable(map(ledgers, page.statuses))))


def test_a_camera_of_its_own_service_is_back_after_a_kill(started: Started) -> None:
    deployment, page = started.deployment, started.page
    docker("rm", "-f", *(one["Id"] for one in deployment.inspected() if "NAME=door" in one["Config"]["Env"]))

    deployment.compose("up", "-d", "--no-recreate", "door")
    (door,) = deployment.containers("door")
    began_at = time.time()
    wait_until(lambda: page.labelled("door", began_at), 30, "its frames are labelled")
    kill(door, "maskwatch")
    wait_until(lambda: crash_count(door), 20, "it is started again")
    again_at = time.time()

    assert wait_until(lambda: page.labelled("door", again_at), 30, "its frames are labelled again")


def test_both_redis_are_back_after_restarts_and_kills(started: Started) -> None:
    deployment, page = started.deployment, started.page
    both = [*deployment.containers("redis"), *deployment.containers("redis-jobs")]

    for _ in range(2):
        deployment.compose("restart", "redis", "redis-jobs")
        restarted_at = time.time()
        wait_until(lambda since=restarted_at: page.labelled("demo", since), 30, "labels flow after a restart")
        for container in both:
            kill(container, "redis-server")
            wait_until(lambda c=container: crash_count(c) == 1, 20, "it is started again")
        killed_at = time.time()
        wait_until(lambda since=killed_at: page.labelled("demo", since), 30, "labels flow after a kill")

    wait_until(lambda: page.labelled("door", killed_at), 30, "the other camera's labels flow too")
    wait_until(lambda: {healthy_state(one) for one in both} == {"healthy"}, 30, "both are healthy")
    assert {crash_count(container) for container in both} == {1}  # since it was restarted


def test_every_container_is_locked_down_and_listens_to_nothing_else(started: Started) -> None:
    deployment = started.deployment

    found = deployment.inspected()

    assert {one["Config"]["Labels"]["com.docker.compose.service"] for one in found} == set(LISTENING)
    for one in found:
        host, service = one["HostConfig"], one["Config"]["Labels"]["com.docker.compose.service"]
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert {"Name": "core", "Hard": 0, "Soft": 0} in host["Ulimits"]
        assert one["Config"]["User"] in ("10001:10001", "redis")
        assert host["Memory"] > 0
        assert listening(one["Id"]) == LISTENING[service]
        published = [binding for bindings in (host["PortBindings"] or {}).values() for binding in bindings]
        port = deployment.url.split(":")[-1].strip("/")
        assert published == ([{"HostIp": "127.0.0.1", "HostPort": port}] if service == "viewer" else [])
    tools = "; ".join(f"command -v {tool}" for tool in BUILD_TOOLS)
    assert docker("run", "--rm", "--entrypoint", "sh", "maskwatch", "-c", f"{tools}; id -u").strip() == "10001"


def test_every_container_says_that_it_is_healthy(started: Started) -> None:
    deployment = started.deployment

    def healthy() -> bool:
        return all(one["State"]["Health"]["Status"] == "healthy" for one in deployment.inspected())

    wait_until(healthy, HEALTHY_WITHIN_S, "all are healthy")


def test_no_pixel_reaches_a_disk(started: Started, tmp_path: Path) -> None:
    deployment, page = started.deployment, started.page
    coded = planted()
    (tmp_path / "pictures").mkdir(mode=0o755)
    (tmp_path / "pictures" / "coded.jpg").write_bytes(coded.jpeg)
    assert coded.needles[2] in crops_of(coded.jpeg)

    mount = f"{tmp_path}/pictures:/pictures:ro"
    deployment.compose("run", "-d", "-v", mount, "-e", "SOURCE=/pictures", "-e", "NAME=coded", "camera")
    wait_until(lambda: len(page.labelled("coded")) >= 10, 30, "the coded picture is labelled again and again")
    crashed = deployment.containers("classifier")[0]
    docker("exec", crashed, "sh", "-c", "kill -SEGV $(cat /proc/1/task/1/children)")  # what dumps core where it may
    wait_until(lambda: crash_count(crashed), 20, "the classifier is started again")

    assert all(needle in page.labelled("coded")[-1].jpeg for needle in coded.needles[:2])
    kept = raw("run", "--rm", "--network", "none", "--user", "0", "--entrypoint", "sh", *volumes(deployment))
    assert kept.count(b"current.json") == 1  # the registry's, so this is what the volumes hold
    assert not any(needle in kept for needle in coded.needles)
    for container in deployment.inspected(stopped=True):
        logged = raw("logs", container["Id"])
        assert not any(needle in logged for needle in coded.needles), container["Name"]
    # No layer can be written (see above), so a look at those that would hold pixels, or the dump, is enough.
    for container in (crashed, *deployment.containers("redis"), *deployment.containers("viewer")):
        assert written(container) == []


def test_down_leaves_a_ledger_that_balances_and_nothing_else(started: Started) -> None:
    deployment, page = started.deployment, started.page

    running = deployment.containers()
    docker("stop", "-t", "5", *deployment.containers("camera"), *deployment.containers("door"))
    page.statuses.clear()
    wait_until(lambda: page.statuses and not any(one["in_flight"] for one in ledgers(page.statuses[-1])), 20, "all end")
    status = json.loads(deployment.compose("run", "--rm", "admin", "status", "--json"))
    deployment.compose("stop")
    ended = json.loads(docker("inspect", *running))
    deployment.compose("down", "-v")

    assert {camera["name"] for camera in status["cameras"]} == {"demo", "door", "coded"}
    for ledger in ledgers(status):
        assert balances(ledger)
        assert ledger["in_flight"] == 0
        assert ledger["labelled"] > 0
    assert not [one["Name"] for one in ended if one["State"]["ExitCode"] == KILLED]
    assert deployment.volumes() == []


def figures(deployment: Deployment) -> str:
    """Return sizes of images and memory of containers, a line each."""
    sizes = [
        f"{image}: {int(docker('image', 'inspect', '-f', '{{.Size}}', image)) / 1e6:.0f} MB"
        for image in ("maskwatch", "maskwatch-train", "python:3.11-slim-bookworm")
    ]
    used = docker("stats", "--no-stream", "--format", "{{.Name}}: {{.MemUsage}}", *deployment.containers())
    return "\n".join([*sizes, *sorted(line.removeprefix(deployment.name)[1:] for line in used.splitlines())])


def listening(container: str) -> set[int]:
    """Return the ports that are listened on in a container, from /proc/net; the engine's own name server left out."""
    rows = docker("exec", container, "cat", "/proc/net/tcp", "/proc/net/tcp6").splitlines()
    places = [row.split()[1] for row in rows if len(row.split()) > 3 and row.split()[3] == "0A"]
    return {int(place.split(":")[1], 16) for place in places if not place.startswith("0B00007F")}


def volumes(deployment: Deployment) -> list[str]:
    """Return the arguments with which a shell, in a container, prints what all volumes hold."""
    mounts = [part for name in deployment.volumes() for part in ("-v", f"{name}:/volumes/{name}:ro")]
    return [*mounts, "redis:7-bookworm", "-c", TAR]


def written(container: str) -> list[str]:
    """Return the paths in a container's own layer, but for the engine's init and the places of mounts."""
    (known,) = json.loads(docker("inspect", container))
    mounts = {mount["Destination"] for mount in known["Mounts"]} | set(known["HostConfig"]["Tmpfs"] or {})
    added = [line[2:] for line in docker("diff", container).splitlines() if line.startswith("A ")]
    return [path for path in added if path not in mounts and not path.endswith("/docker-init")]


def kill(container: str, program: str) -> None:
    """Kill a container's program with -9, from inside; the first of that name."""
    named = f'[ "$(cat $p/comm 2>/dev/null)" = {program} ]'
    docker(
        "exec", container, "sh", "-c", f"for p in /proc/[0-9]*; do if {named}; then kill -9 ${{p##*/}}; break; fi; done"
    )


def healthy_state(container: str) -> str:
    return docker("inspect", "-f", "{{.State.Health.Status}}", container).strip()


def crash_count(container: str) -> int:
    return int(docker("inspect", "-f", "{{.RestartCount}}", container))


def crops_of(jpeg: bytes) -> bytes:
    """Return what a detector cuts out of a picture."""
    frame, card = decode_jpeg(jpeg), read_card(DEFAULT_FOLDER)
    return crop_faces(frame, face_detector.load_detector().find(frame).boxes, card.size_px, card.margin).tobytes()


def raw(*arguments: str) -> bytes:
    """Return all that a docker command prints, as bytes."""
    done = subprocess.run(["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
    return done.stdout


def test_a_detector_on_another_host_comes_in_by_tls_alone(tmp_path: Path) -> None:
    bring_engine_up()
    port, folder = free_port(), tmp_path / "certificates"
    deployment = Deployment(tmp_path, "docker-compose.hosts.yml", REDIS_TLS_PORT=port)
    made = ("scripts/make_certificates.py", "--env", tmp_path / "env", "--folder")
    output(sys.executable, *made, tmp_path / "stranger", "127.0.0.1")
    output(sys.executable, *made, folder, "127.0.0.1", REDIS_HOST)
    tmp_path.chmod(0o755)

    def url(user: str, place: str, authority: Path) -> str:
        password = deployment.secrets[f"REDIS_{user.upper()}_PASSWORD"]
        return f"rediss://{user}:{password}@{place}:{port}/0?ssl_ca_certs={authority}"

    other = ""
    try:
        deployment.compose("up", "-d", "redis")
        near = connect(url("admin", "127.0.0.1", folder / "ca.pem"))
        wait_until(lambda: reached(near) is None, 20, "Redis speaks TLS")
        far = (
            "--add-host",
            f"{REDIS_HOST}:host-gateway",
        )  # not the bridge's Gateway, which a fresh engine does not list
        flags = ("--init", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL")  # noqa: S108
        mount = ("-v", f"{folder / 'ca.pem'}:/ca.pem:ro")
        named = ("-e", f"MASKWATCH_REDIS_URL={url('detector', REDIS_HOST, Path('/ca.pem'))}")
        other = docker("run", "-d", *far, *flags, *mount, *named, "maskwatch", "detect").strip()
        wait_until(lambda: read_heartbeats(near), 30, "the detector on the other host lives")
        plain, stranger = (
            connect(f"redis://127.0.0.1:{port}"),
            connect(url("admin", "127.0.0.1", tmp_path / "stranger" / "ca.pem")),
        )
        refusals = [reached(plain), reached(stranger)]
        (redis_container,) = deployment.inspected()
        for client in (near, plain, stranger):
            client.close()
    finally:
        if other:
            docker("rm", "-f", other)
        deployment.remove()

    assert "closed" in str(refusals[0]) or "reset" in str(refusals[0])
    assert "CERTIFICATE_VERIFY_FAILED" in str(refusals[1])
    assert {name for name, bound in redis_container["NetworkSettings"]["Ports"].items() if bound} == {"6380/tcp"}


def reached(client: Redis) -> redis.RedisError | None:
    """Return why Redis is not reached, None when it is."""
    try:
        client.ping()
    except redis.RedisError as error:
        return error
    return None
