"""The deployment's files without an engine: what Compose makes of them, the secrets, Redis' users, and `health`."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from conftest import Server, missing, wait_until
from containers import compose_program, environment_file
from feeding import REPOSITORY
from locked import SCRIPTS
from processes import Processes, descendants, live, processes
from redis.exceptions import AuthenticationError, NoPermissionError
from werkzeug.security import check_password_hash

from commands.status import health
from pipeline.bus.connection import Redis, connect
from pipeline.bus.scripts import source_of
from viewer.security.authenticator import decode_hash

__all__ = ["processes"]

Done = subprocess.CompletedProcess[str]

FILES = ("docker-compose.yml", "docker-compose.gpu.yml")
CLUSTER = ("docker-compose.yml", "docker-compose.override.yml", "docker-compose.cluster.yml")
LOCAL = ("docker-compose.yml", "docker-compose.override.yml")  # what Compose reads when no file is named
HTTPS = ("docker-compose.yml", "docker-compose.https.yml")
TEMPLATES = ("users.acl.template", "jobs.acl.template")
NODES = ("redis", "redis-2", "redis-3", "redis-4", "redis-5", "redis-6")
SERVICES = {"redis", "redis-jobs", "camera", "detector", "classifier", "viewer", "recorder", "trainer", "admin"}
WITH_PIXELS = {"redis", "camera", "detector", "classifier", "viewer", "recorder", "admin", "prometheus"}
PUBLISHED = {"viewer": "127.0.0.1:8000:8000", "prometheus": "127.0.0.1:9090:9090", "grafana": "127.0.0.1:3000:3000"}
# What keeps something: none of them is mounted where pixels are, but the registry and what Prometheus counted.
KEPT = {
    "redis-jobs": {"jobs"},
    "recorder": {"events"},
    "viewer": {"events", "tokens"},
    "detector": {"models"},
    "classifier": {"models"},
    "admin": {"models", "tokens"},
    "trainer": {"models", "runs", "datasets"},
    "prometheus": {"prometheus"},
    "grafana": {"grafana"},
}


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    environment_file(tmp_path / "env")
    return tmp_path / "env"


def composed(environment: Path, *arguments: str, files: Sequence[str] = FILES[:1]) -> Done:
    """Run Compose with our files and these secrets."""
    program = compose_program()
    if shutil.which(program[0]) is None:
        missing("there is no docker-compose on this machine")
    named = [part for file in files for part in ("-f", str(REPOSITORY / file))]
    command = [*program, "--env-file", str(environment), *named, "--profile", "monitoring", "--profile", "admin"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=environment.parent)


def services(environment: Path, *files: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the services and networks that Compose finds in files."""
    done = composed(environment, "config", files=files)
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)
    return found["services"], found["networks"]


def ports(service: dict[str, Any]) -> list[str]:
    """Return what a service publishes, in the short form, however this Compose prints it."""
    found = service.get("ports", [])
    told = [one if isinstance(one, str) else "{host_ip}:{published}:{target}".format(**one) for one in found]
    return [one.removesuffix("/tcp") for one in told]


def mounts(service: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what is mounted into a service, and whether it is ro or rw."""
    found = []
    for one in service.get("volumes", []):
        if isinstance(one, str):
            found.append((one.split(":")[0], one.split(":")[-1]))
        else:
            found.append((one["source"], "ro" if one.get("read_only") else "rw"))
    return found


def filled(template: Path, variables: dict[str, str]) -> str:
    """Return a template without comments, with the hashes of the passwords in `variables`."""
    lines = [line for line in template.read_text().splitlines() if line and not line.startswith("#")]
    text = "".join(f"{line}\n" for line in lines)
    for name, password in variables.items():
        role = name.removeprefix("REDIS_").removesuffix("_PASSWORD").lower()
        text = text.replace(f"{{{role}_sha256}}", hashlib.sha256(password.encode()).hexdigest())
    return text


@contextmanager
def started_by_shell(template: Path, folder: Path, variables: dict[str, str], *flags: object) -> Iterator[Started]:
    """Run start.sh with this machine's Redis, and folders of the test's own, until the block ends."""
    if shutil.which("redis-server") is None:
        missing("there is no redis-server on this machine")
    script = (REPOSITORY / "deploy" / "redis" / "start.sh").read_text()
    script = script.replace("/tmp/redis", str(folder / "r")).replace("/scripts/", f"{REPOSITORY}/pipeline/bus/lua/")  # noqa: S108
    conf = (
        template.with_name("redis.conf") if template.name == TEMPLATES[0] else "/dev/null"
    )  # the other's /data is not here
    own = ("--port", "0", "--dir", folder, "--appendonly", "no")
    command = ["sh", "-c", script, "start.sh", conf, template, *own, *flags]
    process = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=variables | {"PATH": os.environ["PATH"]},
        cwd=folder,
    )
    try:
        yield Started(folder / "r", process)
    finally:
        process.terminate()
        process.communicate(timeout=20)


@dataclass(frozen=True)
class Started:
    """A Redis that start.sh has started. folder: what is /tmp/redis in a container."""

    folder: Path
    process: subprocess.Popen[str]

    def client(self, user: str, password: str) -> Redis:
        return connect(f"unix://{user}:{password}@{self.folder}/start.sock")

    def let_in(self) -> bool:
        """Return whether the start is over: its own user is gone, also from the file."""
        users = self.folder / "users.acl"
        return (self.folder / "start.sock").exists() and "user start " not in users.read_text()

    def said(self) -> str:
        """Return what it printed until it ended by itself."""
        return self.process.communicate(timeout=20)[0]


def variables_of(environment: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in environment.read_text().splitlines())


def passwords_of(environment: Path, template: str) -> dict[str, str]:
    """Return the passwords in .env that a template of users takes."""
    variables = variables_of(environment)
    names = ["JOBS_PASSWORD"] if template == TEMPLATES[1] else [name for name in variables if name.startswith("REDIS_")]
    return {name: variables[name] for name in names}


def test_every_service_is_locked_down_and_only_loopback_is_published(environment: Path) -> None:
    found, networks = services(environment, *LOCAL)

    assert set(found) == SERVICES | {"prometheus", "grafana"}
    assert networks["backend"]["internal"]
    assert {name for name, service in found.items() if "backend" in service["networks"]} == WITH_PIXELS
    for name, service in found.items():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["ulimits"] == {"core": 0}
        assert service["mem_limit"]
        assert ports(service) == ([PUBLISHED[name]] if name in PUBLISHED else [])
        assert {source for source, _ in mounts(service) if "/" not in source} == KEPT.get(name, set())
        assert all(mode == "ro" for source, mode in mounts(service) if "/" in source)


def test_the_gpu_file_reserves_gpus_and_has_the_image_for_each(environment: Path) -> None:
    found, _ = services(environment, *FILES)

    for name, image in (("classifier", "maskwatch-gpu"), ("trainer", "maskwatch-train-gpu")):
        (device,) = found[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] in (["gpu"], [["gpu"]])
        assert found[name]["image"] == image
        assert found[name]["build"]["target"] == image.removeprefix("maskwatch-")
        assert found[name]["read_only"]
    assert found["trainer"]["environment"]["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert found["classifier"]["tmpfs"] == found["detector"]["tmpfs"]
    assert "deploy" not in found["detector"]


def locked_versions(name: str) -> dict[str, set[str]]:
    """Return the versions of each package in a file of requirements."""
    found: dict[str, set[str]] = {}
    for line in (REPOSITORY / "requirements" / f"{name}.txt").read_text().splitlines():
        if not line.startswith(" "):
            package, _, version = line.partition(" ")[0].partition("==")
            found.setdefault(package, set()).add(version)
    return found


def test_a_gpu_replaces_onnx_runtime_and_no_other_package() -> None:
    gpu, run, train = locked_versions("gpu"), locked_versions("run"), locked_versions("train")
    shared = set(gpu) & set(train)

    assert "onnxruntime" in run and "onnxruntime" not in gpu, "both packages install the same module"
    assert {"onnxruntime-gpu", "onnx", "nvidia-cudnn-cu13"} <= set(gpu)
    assert not any("tensorflow" in package for package in gpu)
    assert {package: gpu[package] for package in shared} == {package: train[package] for package in shared}


def test_behind_the_proxy_only_the_proxy_is_published(environment: Path) -> None:
    without = composed(environment, "config", "-q", files=HTTPS)
    with environment.open("a") as file:
        file.write("SITE=cameras.example\n")

    found, networks = services(environment, *HTTPS)

    proxy = found["caddy"]
    assert without.returncode != 0
    assert "the name or address that browsers use" in without.stderr
    assert {name: ports(one) for name, one in found.items() if ports(one) and name != "caddy"} == {
        name: [PUBLISHED[name]] for name in ("prometheus", "grafana")
    }
    assert sorted(ports(proxy)) == ["0.0.0.0:443:443", "0.0.0.0:80:80"]
    assert set(proxy["networks"]) == {"page"} and networks["backend"]["internal"]
    assert proxy["read_only"] and proxy["cap_drop"] == ["ALL"] and proxy["cap_add"] == ["NET_BIND_SERVICE"]
    assert proxy["environment"]["TLS"] == "acme"
    assert found["viewer"]["environment"]["MASKWATCH_ORIGINS"] == "https://cameras.example"
    for key in ("init", "security_opt", "ulimits", "restart", "logging", "pids_limit", "stop_grace_period"):
        assert proxy[key] == found["viewer"][key]


def test_a_command_without_files_publishes_the_page_on_this_machine(environment: Path) -> None:
    command = [*compose_program(), "--env-file", str(environment), "config"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)

    assert done.returncode == 0, done.stderr
    assert ports(yaml.safe_load(done.stdout)["services"]["viewer"]) == [PUBLISHED["viewer"]]


def test_env_may_name_the_files_so_that_no_command_has_to(environment: Path) -> None:
    files = "docker-compose.yml:docker-compose.https.yml:docker-compose.cameras.yml"
    with environment.open("a") as file:
        file.write(f"COMPOSE_FILE={files}\nSITE=cameras.example\nDOOR_SOURCE=rtsp://camera.lan/stream\n")
    command = [*compose_program(), "--env-file", str(environment), "config"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)

    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)["services"]
    assert {"caddy", "door"} <= set(found)
    assert ports(found["viewer"]) == []


def test_compose_without_secrets_says_what_to_run(tmp_path: Path) -> None:
    (tmp_path / "env").touch()

    done = composed(tmp_path / "env", "config", "-q")

    assert done.returncode != 0
    assert "make env" in done.stderr


def test_a_source_of_yours_takes_the_place_of_the_demo(environment: Path) -> None:
    with environment.open("a") as file:
        file.write("SOURCE=rtsp://camera.lan/stream\nNAME=hall\n")

    found, _ = services(environment, FILES[0])

    assert found["camera"]["environment"]["SOURCE"] == "rtsp://camera.lan/stream"
    assert found["camera"]["environment"]["NAME"] == "hall"


def test_secrets_are_drawn_once_and_readable_by_their_owner_alone(tmp_path: Path) -> None:
    first = environment_file(tmp_path / "env")
    second = environment_file(tmp_path / "env")

    assert first == second
    assert len(set(first.values())) == len(first) == 14
    assert (tmp_path / "env").stat().st_mode & 0o777 == 0o600
    assert check_password_hash(decode_hash(first["MASKWATCH_PASSWORD_HASH"]), first["VIEWER_PASSWORD"])


def test_secrets_that_are_there_are_kept_and_the_missing_added(tmp_path: Path) -> None:
    path = tmp_path / "env"
    ours = "# ours\nVIEWER_PASSWORD='chosen by us'\nREDIS_ADMIN_PASSWORD=a-password-of-ours"
    path.write_text(ours)
    path.chmod(0o644)

    found = environment_file(path)

    assert path.read_text().startswith(f"{ours}\n")
    assert path.stat().st_mode & 0o777 == 0o600
    assert check_password_hash(decode_hash(found["MASKWATCH_PASSWORD_HASH"]), "chosen by us")
    assert "JOBS_PASSWORD" in found


def alone(processes: list[int]) -> list[int]:
    return processes if len(processes) == 1 else []


@pytest.mark.parametrize("template", TEMPLATES)
def test_redis_gets_the_users_of_its_template_with_their_passwords_hashes(
    environment: Path, tmp_path: Path, template: str
) -> None:
    path = REPOSITORY / "deploy" / "redis" / template
    passwords = passwords_of(environment, template)

    with started_by_shell(path, tmp_path, passwords) as started:
        wait_until(started.let_in, 10, "clients are let in")
        path_of_users = started.folder / "users.acl"
        wait_until(lambda: "user start " not in path_of_users.read_text(), 10, "the user of the start is gone")
        (server,) = wait_until(lambda: alone(descendants(started.process.pid)), 10, "the server is alone")
        users, mode = path_of_users.read_text(), path_of_users.stat().st_mode & 0o777
        environ = Path(f"/proc/{server}/environ").read_bytes()

    assert users == filled(path, passwords)
    assert "sha256" not in users
    assert not any(password in users or password.encode() in environ for password in passwords.values())
    assert mode == 0o600


def test_redis_knows_our_scripts_before_anybody_comes_in_and_takes_no_others(environment: Path, tmp_path: Path) -> None:
    path = REPOSITORY / "deploy" / "redis" / TEMPLATES[0]
    passwords = passwords_of(environment, TEMPLATES[0])

    with started_by_shell(path, tmp_path, passwords) as started:
        wait_until(started.let_in, 10, "clients are let in")
        camera = started.client("camera", passwords["REDIS_CAMERA_PASSWORD"])
        admin = started.client("admin", passwords["REDIS_ADMIN_PASSWORD"])
        known = camera.script_exists(*(hashlib.sha1(source_of(one).encode()).hexdigest() for one in SCRIPTS))  # noqa: S324
        brought = [refused(one, "SCRIPT", "LOAD", "return 1") for one in (camera, admin)]
        camera.close()
        admin.close()
        started.process.terminate()
        status = started.process.wait(10)

    assert known == [True] * len(SCRIPTS)
    assert brought == [True, True]
    assert status == 0


def test_a_role_cannot_fill_memory_with_what_it_sends_by_halves(environment: Path, tmp_path: Path) -> None:
    passwords = passwords_of(environment, TEMPLATES[0])
    begun = f"AUTH camera {passwords['REDIS_CAMERA_PASSWORD']}\r\n"
    begun += "*3\r\n$3\r\nSET\r\n$13\r\n{s0}:pixels:a\r\n$500000000\r\n"

    with started_by_shell(REPOSITORY / "deploy" / "redis" / TEMPLATES[0], tmp_path, passwords) as started:
        wait_until(started.let_in, 10, "clients are let in")
        with socket.socket(socket.AF_UNIX) as camera, pytest.raises(OSError, match=r"pipe|reset"):
            camera.connect(f"{started.folder}/start.sock")
            camera.sendall(begun.encode())
            for _ in range(300):
                camera.sendall(bytes(1_000_000))


def refused(client: Redis, *command: str) -> bool:
    """Return whether a command is rejected for missing permissions."""
    try:
        client.execute_command(*command)
    except (NoPermissionError, AuthenticationError):
        return True
    return False


def test_redis_that_cannot_start_says_why_and_ends(environment: Path, tmp_path: Path) -> None:
    path = REPOSITORY / "deploy" / "redis" / TEMPLATES[1]

    with started_by_shell(path, tmp_path, passwords_of(environment, TEMPLATES[1]), "--no-such-flag", 1) as started:
        said = started.said()

    assert started.process.returncode == 1
    assert "no-such-flag" in said
    assert "start.sh" not in said


@pytest.mark.parametrize(
    "password", ["", "short", "abcd@efgh/ijklmnop#q%zz"], ids=["missing", "short", "no part of URLs"]
)
def test_a_password_that_does_not_fit_is_named(tmp_path: Path, password: str) -> None:
    path = REPOSITORY / "deploy" / "redis" / TEMPLATES[1]

    with started_by_shell(path, tmp_path, {"JOBS_PASSWORD": password}) as started:
        line = started.said()

    assert started.process.returncode == 1
    assert "JOBS_PASSWORD" in line
    assert "make env" in line
    assert "efgh" not in line
    assert line.count("\n") == 1


def test_a_new_password_of_the_viewer_gets_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "env"
    first = environment_file(path)
    path.write_text(path.read_text().replace(first["VIEWER_PASSWORD"], "chosen by us"))

    second = environment_file(path)
    lines = [line for line in path.read_text().splitlines() if not line.startswith("VIEWER_PASSWORD")]
    path.write_text("\n".join(lines))
    third = environment_file(path)

    assert check_password_hash(decode_hash(second["MASKWATCH_PASSWORD_HASH"]), "chosen by us")
    assert third["VIEWER_PASSWORD"] not in (first["VIEWER_PASSWORD"], "chosen by us")
    assert check_password_hash(decode_hash(third["MASKWATCH_PASSWORD_HASH"]), third["VIEWER_PASSWORD"])
    assert path.read_text().count("MASKWATCH_PASSWORD_HASH") == 1
    assert {name: first[name] for name in first if "REDIS" in name} == {n: third[n] for n in third if "REDIS" in n}


def test_a_hash_of_ones_own_stays_beside_an_empty_password(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("VIEWER_PASSWORD=\nMASKWATCH_PASSWORD_HASH=made-elsewhere\n")

    found = environment_file(path)

    assert (found["VIEWER_PASSWORD"], found["MASKWATCH_PASSWORD_HASH"]) == ("", "made-elsewhere")


def test_secrets_that_cannot_stand_in_a_url_are_refused(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("REDIS_DETECTOR_PASSWORD=abcd@efgh/ijklmnop#q%zz\n")

    done = script("make_env.py", tmp_path / "env")

    assert done.returncode == 1
    assert "REDIS_DETECTOR_PASSWORD" in done.stderr
    assert "efgh" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "line", ["REDIS_ADMIN_PASSWORD=short", "MASKWATCH_SESSION_KEY=only-31-characters-and-no-more-"]
)
def test_secrets_that_their_service_would_refuse_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "env").write_text(f"{line}\n")

    done = script("make_env.py", tmp_path / "env")

    assert done.returncode == 1
    assert f"{line.partition('=')[0]} has fewer than" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_of_a_windows_editor_keeps_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("VIEWER_PASSWORD=chosen-by-us\n", "utf-8-sig")

    done = script("make_env.py", tmp_path / "env")

    assert done.returncode == 0
    lines = (tmp_path / "env").read_text().splitlines()
    assert [line for line in lines if line.startswith("VIEWER_PASSWORD")] == ["VIEWER_PASSWORD=chosen-by-us"]


@pytest.mark.parametrize("name", ["make_env.py", "make_certificates.py"])
def test_a_script_tells_what_it_is_for_and_refuses_what_it_does_not_know(name: str) -> None:
    helped, refused = script(name, "--help"), script(name, "--no-such-flag")

    assert (helped.returncode, refused.returncode) == (0, 2)
    assert helped.stdout.startswith("usage:")
    assert "usage:" in refused.stderr
    assert not (REPOSITORY / "--help").exists()


def script(name: str, *arguments: object) -> Done:
    command = [sys.executable, f"scripts/{name}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)


def test_a_camera_for_good_is_a_service_like_the_first(environment: Path) -> None:
    with environment.open("a") as file:
        file.write("DOOR_SOURCE=rtsp://user:secret@camera.lan/stream\n")

    found, _ = services(environment, FILES[0], "docker-compose.cameras.yml")

    camera, door = found["camera"], found["door"]
    own = {"SOURCE": "rtsp://user:secret@camera.lan/stream", "NAME": "door"}
    assert door == camera | {"environment": camera["environment"] | own}
    assert door["restart"] == "unless-stopped"
    assert not any("secret" in part for part in door["entrypoint"])


def test_redis_for_other_hosts_is_published_with_tls_alone(environment: Path, tmp_path: Path) -> None:
    without = composed(environment, "config", "-q", files=(FILES[0], "docker-compose.hosts.yml"))
    done = script("make_certificates.py", "--env", environment, "--folder", tmp_path / "a b", "redis.lan", "192.0.2.7")

    found, networks = services(environment, FILES[0], "docker-compose.hosts.yml")

    assert without.returncode != 0
    assert "make certificates" in without.stderr
    assert done.returncode == 0, done.stderr
    assert ports(found["redis"]) == ["0.0.0.0:6380:6380"]
    assert networks["backend"]["internal"]
    assert (tmp_path / "a b" / "ca.key").stat().st_mode & 0o777 == environment.stat().st_mode & 0o777 == 0o600


def test_a_cluster_is_six_of_the_one_redis_and_all_programs_know_it_with_the_same_shards(environment: Path) -> None:
    single, _ = services(environment, *LOCAL)

    found, networks = services(environment, *CLUSTER)

    assert networks["backend"]["internal"]
    assert set(found) == SERVICES | {*NODES, "prometheus", "grafana"}
    for name in NODES:
        node, one = found[name], single["redis"]
        assert node["hostname"] == name
        assert node["environment"]["REDIS_NODES"].split() == list(NODES)
        assert set(node["environment"]) == {*one["environment"], "REDIS_NODES", "REDIS_REPLICA_PASSWORD"}
        differing = {key for key in node if node[key] != one.get(key)}
        assert differing <= {"hostname", "environment", "healthcheck"}
        assert ports(node) == []
    for role in ("camera", "detector", "classifier", "viewer", "recorder", "admin"):
        variables = found[role]["environment"]
        scheme, _, hosts = variables["MASKWATCH_REDIS_URL"].partition("://")
        assert scheme == "redis-cluster"
        assert hosts.startswith(f"{role}:{variables_of(environment)[f'REDIS_{role.upper()}_PASSWORD']}@")
        assert hosts.partition("@")[2] == ",".join(f"{name}:6379" for name in NODES) + "/0"
        assert variables["MASKWATCH_SHARDS"] == "3"
        assert {**found[role], "environment": 0} == {**single[role], "environment": 0}
    assert found["trainer"] == single["trainer"]


def test_a_camera_that_always_starts_needs_one_line_for_a_cluster(environment: Path, tmp_path: Path) -> None:
    text = (REPOSITORY / "docker-compose.cluster.yml").read_text()
    for name in ("docker-compose.yml", "docker-compose.cameras.yml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / "docker-compose.cluster.yml").write_text(f"{text}\n  door: *camera\n")
    files = [str(tmp_path / f"docker-compose{part}.yml") for part in ("", ".cameras", ".cluster")]
    with environment.open("a") as file:
        file.write("DOOR_SOURCE=rtsp://camera.lan/stream\n")

    found, _ = services(environment, *files)

    for name in ("MASKWATCH_REDIS_URL", "MASKWATCH_SHARDS"):
        assert found["door"]["environment"][name] == found["camera"]["environment"][name]
    assert found["door"]["environment"]["NAME"] == "door"


def test_a_host_that_is_no_node_of_its_cluster_is_named(environment: Path, tmp_path: Path) -> None:
    template = REPOSITORY / "deploy" / "redis" / TEMPLATES[0]
    variables = passwords_of(environment, TEMPLATES[0]) | {"REDIS_NODES": "a-stranger another"}

    with started_by_shell(template, tmp_path, variables) as started:
        line = started.said()

    assert started.process.returncode == 1
    assert line == f"start.sh: REDIS_NODES does not name this host, {os.uname().nodename}\n"


# What a node of a cluster does next: its place, whether it waits yet for others to take over, what it sees, its steps.
ME, OTHER, OLD = "myself,master - 0 0 1 connected", "master - 0 0 4 connected", "0 0 1 disconnected"
OTHERS = [f"n{place} {OTHER}" for place in range(2, 7)]


@pytest.mark.parametrize(
    ("place", "patient", "seen", "steps"),
    [
        (1, True, [f"n1 {ME}", *OTHERS[:3]], {"meet n5", "meet n6"}),
        (1, True, [f"n1 {ME}", *OTHERS], set()),
        (1, False, [f"n1 {ME}", *OTHERS], {"addslotsrange 0 5460"}),
        (2, False, [f"n2 {ME}", "n1 " + OTHER, *OTHERS[1:]], {"addslotsrange 5461 10922"}),
        (3, False, [f"n3 {ME}", "n1 " + OTHER, OTHERS[0], *OTHERS[2:]], {"addslotsrange 10923 16383"}),
        (4, False, [f"n4 {ME}", "n1 " + OTHER, *OTHERS[:2], *OTHERS[3:]], set()),
        (4, True, [f"n4 {ME}", f"n1 {OTHER} 0-5460", *OTHERS[:2], *OTHERS[3:]], {"replicate id2"}),
        (1, False, [f"n1 {ME}", *OTHERS[:2], f"n4 {OTHER} 0-5460", *OTHERS[3:]], {"replicate id4"}),
        (1, False, [f"n1 {ME}", *OTHERS[:2], f"n4 master,fail - {OLD} 0-5460", *OTHERS[3:]], {"meet n4"}),
        (1, False, [f"n1 {ME} 1-5460 [0-<-abc]", *OTHERS[:2], f"n4 {OTHER} 0 [0->-def]", *OTHERS[3:]], {"joined"}),
        (1, False, [f"n1 {ME} 0-5460", *OTHERS, f"n4 slave,fail id1 {OLD}"], {"joined", "forget id7"}),
        (1, False, [f"n1 {ME} 0-5460", *OTHERS, f"n4 master,noaddr - {OLD}"], {"joined", "forget id7"}),
        (
            4,
            False,
            [
                f"n1 master,noaddr - {OLD} 0-5460",
                f"n1 {OTHER}",
                *OTHERS[:2],
                f"n4 {ME.replace('master -', 'slave id1')}",
                *OTHERS[3:],
            ],
            {"joined", "failover takeover"},
        ),
        (
            2,
            False,
            [
                f"n2 {ME} 5461-10922",
                f"n1 master,noaddr - {OLD} 0-5460",
                f"n1 {OTHER}",
                OTHERS[1],
                "n4 slave id2 0 0 1 connected",
                *OTHERS[3:],
            ],
            {"joined"},
        ),
        (1, False, ["n1 handshake - 0 0 0 disconnected"], set()),
    ],
    ids=[
        "calls the others",
        "waits for a replica to take over",
        "takes the first part",
        "takes the second part",
        "takes the third part",
        "waits for its primary",
        "follows its primary",
        "follows who took over",
        "waits for who holds its part and is away",
        "keeps what it holds while slots are moved",
        "forgets a replica whose name another one has",
        "forgets a primary whose name another one has",
        "takes over from one whose name another one has",
        "keeps one in mind that a replica follows",
        "got no answer",
    ],
)
def test_a_node_of_a_cluster_takes_the_next_step(place: int, patient: bool, seen: list[str], steps: set[str]) -> None:
    lines = [line.partition(" ") for line in seen]
    view = "".join(
        f"id{number} 10.0.0.{number}:6379@16379,{name} {rest}\n" for number, (name, _, rest) in enumerate(lines, 1)
    )
    names = " ".join(f"n{number}" for number in range(1, 7))
    joining = (REPOSITORY / "deploy" / "redis" / "join.sh").read_text()
    given = ("-v", f"nodes={names}", "-v", f"place={place}", "-v", f"patient={int(patient)}")
    command = ["sh", "-c", f'{joining}\nawk "$@" "$decide"', "join.sh", *given]

    done = subprocess.run(command, input=view, capture_output=True, text=True, check=True)

    assert set(done.stdout.splitlines()) == steps


def test_health_tells_a_process_that_works_from_one_that_hangs(server: Server, processes: Processes) -> None:
    def answer(role: str = "detector") -> int:
        return CliRunner().invoke(health, [role, "--redis", server.url]).exit_code

    before = answer()
    detector = processes.start("detect", redis=server)
    wait_until(lambda: live(server, "detector"), 20, "it lives")
    works, another = answer(), answer("classifier")
    detector.send_signal(signal.SIGSTOP)
    wait_until(lambda: answer() == 1, 15, "it counts no longer")

    assert (before, works, another) == (1, 0, 1)
