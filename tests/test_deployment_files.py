"""The deployment's files without an engine: what Compose makes of them, the secrets, Redis' users, and `health`."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from conftest import Server, missing, wait_until
from containers import compose_program, environment_file
from feeding import REPOSITORY
from processes import Processes, live, processes
from werkzeug.security import check_password_hash

from commands.health import health
from viewer.access import plain_hash

__all__ = ["processes"]

Done = subprocess.CompletedProcess[str]

FILES = ("docker-compose.yml", "docker-compose.gpu.yml")
TEMPLATES = ("users.acl.template", "jobs.acl.template")
SERVICES = {"redis", "redis-jobs", "camera", "detector", "classifier", "viewer", "trainer", "admin"}
WITH_PIXELS = {"redis", "camera", "detector", "classifier", "viewer", "admin", "prometheus"}
PUBLISHED = {"viewer": "127.0.0.1:8000:8000", "prometheus": "127.0.0.1:9090:9090", "grafana": "127.0.0.1:3000:3000"}
# What keeps something: none of them is mounted where pixels are, but the registry and what Prometheus counted.
KEPT = {
    "redis-jobs": {"jobs"},
    "detector": {"models"},
    "classifier": {"models"},
    "admin": {"models"},
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


def users_by_script(template: Path, variables: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "scripts/redis_users.py", str(template)],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
        env=variables,
    )
    return done.stdout


def started_by_shell(template: Path, folder: Path, variables: dict[str, str]) -> Done:
    """Run start.sh with a redis-server that prints its users, and a folder in the place of /run/redis."""
    (folder / "redis-server").write_text(f'#!/bin/sh\ncat "{folder}/users.acl"\nenv | grep -c PASSWORD\necho "$@"\n')
    (folder / "redis-server").chmod(0o755)
    script = (REPOSITORY / "deploy" / "redis" / "start.sh").read_text().replace("/run/redis", str(folder))
    path = {"PATH": f"{folder}:/usr/bin:/bin"}
    command = ["sh", "-c", script, "start.sh", "redis.conf", str(template), "--maxmemory", "1gb"]
    return subprocess.run(command, capture_output=True, text=True, env=variables | path)


def test_every_service_is_locked_down_and_only_loopback_is_published(environment: Path) -> None:
    found, networks = services(environment, FILES[0])

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


def test_the_gpu_file_reserves_gpus_and_lets_memory_grow(environment: Path) -> None:
    found, _ = services(environment, *FILES)

    for name in ("classifier", "trainer"):
        (device,) = found[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] in (["gpu"], [["gpu"]])
        assert found[name]["environment"]["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
        assert found[name]["read_only"]
    assert "deploy" not in found["detector"]


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
    assert len(set(first.values())) == len(first) == 11
    assert (tmp_path / "env").stat().st_mode & 0o777 == 0o600
    assert check_password_hash(plain_hash(first["MASKWATCH_PASSWORD_HASH"]), first["VIEWER_PASSWORD"])


def test_secrets_that_are_there_are_kept_and_the_missing_added(tmp_path: Path) -> None:
    path = tmp_path / "env"
    ours = "# ours\nVIEWER_PASSWORD='chosen by us'\nREDIS_ADMIN_PASSWORD=a-password-of-ours"
    path.write_text(ours)
    path.chmod(0o644)

    found = environment_file(path)

    assert path.read_text().startswith(f"{ours}\n")
    assert path.stat().st_mode & 0o777 == 0o600
    assert check_password_hash(plain_hash(found["MASKWATCH_PASSWORD_HASH"]), "chosen by us")
    assert "JOBS_PASSWORD" in found


@pytest.mark.parametrize("template", TEMPLATES)
def test_redis_gets_the_same_users_with_and_without_python(environment: Path, tmp_path: Path, template: str) -> None:
    variables = dict(line.split("=", 1) for line in environment.read_text().splitlines())
    path = REPOSITORY / "deploy" / "redis" / template
    names = [name for name in variables if name.startswith("REDIS_") or name == "JOBS_PASSWORD"]
    passwords = {name: variables[name] for name in names if (name == "JOBS_PASSWORD") == (template == TEMPLATES[1])}

    done = started_by_shell(path, tmp_path, passwords)

    users = users_by_script(path, passwords)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{users}0\nredis.conf --aclfile {tmp_path}/users.acl --maxmemory 1gb\n"
    assert "{" not in users
    assert not any(password in users for password in passwords.values())
    assert (tmp_path / "users.acl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("password", ["", "short"])
def test_a_missing_or_short_password_is_named(environment: Path, tmp_path: Path, password: str) -> None:
    path = REPOSITORY / "deploy" / "redis" / TEMPLATES[1]
    script = [sys.executable, "scripts/redis_users.py", str(path)]

    by_script = subprocess.run(script, capture_output=True, text=True, cwd=REPOSITORY, env={"JOBS_PASSWORD": password})
    by_shell = started_by_shell(path, tmp_path, {"JOBS_PASSWORD": password})

    for done in (by_script, by_shell):
        assert done.returncode == 1
        assert done.stdout == ""
        assert "JOBS_PASSWORD" in done.stderr
        assert "make env" in done.stderr


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
