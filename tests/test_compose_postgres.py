"""docker-compose.postgres.yml: events in PostgreSQL, which only the recorder and the viewer reach."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import missing, wait_until
from containers import BUILD_S, Deployment, bring_engine_up, compose_program, environment_file
from feeding import REPOSITORY

FILES = ("docker-compose.yml", "docker-compose.override.yml", "docker-compose.postgres.yml")
START_S = 90


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Deployment]:
    bring_engine_up()
    deployment = Deployment(tmp_path, FILES[-1])
    deployment.compose("build", "detector", within_s=BUILD_S)  # the recorder's image too
    deployment.compose("up", "-d", "redis", "postgres", "recorder")
    yield deployment
    deployment.remove()


def query(deployment: Deployment, statement: str) -> str:
    """Return what PostgreSQL answers; nothing while it does not."""
    (container,) = deployment.containers("postgres")
    command = ["docker", "exec", container, "psql", "-h", "/var/run/postgresql", "-U", "maskwatch", "-Atc", statement]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def test_recorder_and_viewer_use_postgresql_and_nobody_else_reaches_it(tmp_path: Path) -> None:
    program = compose_program()
    if subprocess.run([*program, "version"], capture_output=True).returncode:
        missing("there is no docker-compose on this machine")
    secrets = environment_file(tmp_path / "env")
    flags = [part for name in FILES for part in ("-f", str(REPOSITORY / name))]
    command = [*program, *flags, "--project-directory", str(REPOSITORY), "--env-file", str(tmp_path / "env"), "config"]

    found = yaml.safe_load(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    services, url = found["services"], f"postgresql://maskwatch:{secrets['POSTGRES_PASSWORD']}@postgres/maskwatch"
    assert {name for name, one in services.items() if "database" in one["networks"]} == {
        "postgres",
        "recorder",
        "viewer",
    }
    assert {services[name]["environment"]["MASKWATCH_DATABASE"] for name in ("recorder", "viewer")} == {url}
    assert set(services["recorder"]["networks"]) == {"backend", "receivers", "database"}
    assert set(services["postgres"]["networks"]) == {"database"}
    assert found["networks"]["database"]["internal"]
    assert services["postgres"]["cap_drop"] == ["ALL"]
    assert not services["postgres"].get("ports")


def test_a_recorder_writes_to_postgresql_and_waits_while_it_restarts(started: Deployment) -> None:
    lease = "SELECT token FROM lease WHERE expires_at > 0"

    first = wait_until(lambda: query(started, lease), START_S, "the recorder is active")
    started.compose("restart", "-t", "5", "postgres")
    expires = wait_until(lambda: query(started, "SELECT expires_at FROM lease"), START_S, "PostgreSQL answers again")
    wait_until(lambda: query(started, "SELECT expires_at FROM lease") > expires, START_S, "the recorder continues")

    assert first.startswith("recorder-")
    assert query(started, lease).startswith("recorder-")
