"""Commands find the pipeline that runs on this machine: of this user alone, never a dead one, never one of several."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import Server, wait_until
from processes import Processes, processes

from events.locations import sqlite_url
from pipeline.runtime.running_pipelines import RunningPipeline, announced, find_running_pipelines

__all__ = ["processes"]


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's runtime folder of one test; the temporary folder holds no pipelines either."""
    tmp_path_factory.getbasetemp()  # made where temporary folders are, which now changes
    with tempfile.TemporaryDirectory(prefix="mw-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def pipeline(pid: int = 7, **changed: Any) -> RunningPipeline:
    values = {
        "pid": pid,
        "command": "up",
        "redis_url": "redis://:secret@127.0.0.1:1",
        "embedded": False,
        "cameras": ["door"],
        "models": None,
        "host": "127.0.0.1",
        "port": 8000,
    }
    return RunningPipeline(**values | changed)


def maskwatch(*arguments: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "maskwatch", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == expect, done.stderr
    return done


def test_a_pipeline_is_found_while_it_runs_and_leaves_nothing(runtime: Path) -> None:
    with announced(pipeline(7)), announced(pipeline(8)):
        found = find_running_pipelines()
        modes = [path.stat().st_mode & 0o777 for path in runtime.glob("*")]

    assert found == [pipeline(7), pipeline(8)]
    assert modes == [0o700]
    assert find_running_pipelines() == []
    assert list(runtime.iterdir()) == []


def test_no_password_is_written_to_a_file(runtime: Path) -> None:
    with announced(pipeline()):
        files = [path for path in runtime.rglob("*") if path.is_file()]

    assert files == []


def test_the_socket_of_a_killed_process_is_removed(runtime: Path) -> None:
    folder = runtime / "maskwatch"
    folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(folder / "9.sock"))
        abandoned.listen()

    found = find_running_pipelines()

    assert found == []
    assert list(folder.iterdir()) == []


def test_a_pipeline_that_does_not_answer_is_left_out_and_kept(runtime: Path) -> None:
    with announced(pipeline()), socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(runtime / "maskwatch" / "9.sock"))
        hanging.listen()
        found = find_running_pipelines()

        assert (runtime / "maskwatch" / "9.sock").exists()
    assert found == [pipeline()]


def test_a_folder_that_others_may_enter_is_not_used(runtime: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("maskwatch", f"maskwatch.{os.getuid()}"):
        (runtime / name).mkdir()
        (runtime / name).chmod(0o755)

    with announced(pipeline()):
        found = find_running_pipelines()

    assert found == []
    assert "is not a folder that only this user may enter (mode 0700)" in caplog.text


def test_a_link_to_a_folder_is_not_used(runtime: Path) -> None:
    (runtime / "elsewhere").mkdir(mode=0o700)
    (runtime / "maskwatch").symlink_to(runtime / "elsewhere")

    with announced(pipeline()):
        used = [path.parent.name for path in runtime.rglob("*.sock")]

    assert used == [f"maskwatch.{os.getuid()}"]


def test_a_runtime_folder_with_a_long_path_is_replaced_by_the_temporary_one(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = runtime / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))

    with announced(pipeline()):
        assert find_running_pipelines() == [pipeline()]


def test_many_commands_may_ask_at_once() -> None:
    answers: list[list[RunningPipeline]] = []

    with announced(pipeline()):
        threads = [threading.Thread(target=lambda: answers.append(find_running_pipelines())) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert answers == [[pipeline()]] * 20


@pytest.mark.parametrize("command", [["status"], ["dead", "list"], ["jobs"], ["camera", "demo", "--name", "yard"]])
def test_of_several_pipelines_none_is_chosen(command: list[str]) -> None:
    other = pipeline(8, command="demo", redis_url="unix:///tmp/none/redis.sock", cameras=["demo"])

    with announced(pipeline(7)), announced(other):
        line = maskwatch(*command, expect=2).stderr

    assert "several pipelines run on this machine: name one with --redis" in line
    assert "redis://:***@127.0.0.1:1 is of `maskwatch up`, process 7, cameras: door" in line
    assert "unix:///tmp/none/redis.sock is of `maskwatch demo`, process 8, cameras: demo" in line
    assert len(line.splitlines()) == 1


def test_pipelines_that_share_a_redis_count_as_one(server: Server) -> None:
    shared = [pipeline(pid, redis_url=server.url) for pid in (7, 8)]

    with announced(shared[0]), announced(shared[1]):
        done = maskwatch("status")

    assert done.stderr == ""


def test_a_redis_that_is_named_wins_over_the_pipeline_that_runs(server: Server) -> None:
    with announced(pipeline()):
        done = maskwatch("dead", "list", "--redis", server.url)

    assert (done.stdout, done.stderr) == ("", "no dead letters: no frame failed\n")


def test_when_nothing_runs_the_error_says_so() -> None:
    line = maskwatch("status", "--redis", "redis://127.0.0.1:1", expect=1).stderr
    default = subprocess.run(
        [sys.executable, "-c", PROGRAM_WITHOUT_REDIS], capture_output=True, text=True, timeout=60, check=False
    ).stderr

    assert "no `maskwatch demo`" not in line
    assert default.startswith("maskwatch: no `maskwatch demo` or `maskwatch up` of this user runs on this machine, and")
    assert "start one, or name yours with --redis" in default


PROGRAM_WITHOUT_REDIS = """
import sys
from commands import pipelines, shared
pipelines.DEFAULT_REDIS = shared.DEFAULT_REDIS = "redis://127.0.0.1:1"  # nothing listens there on any machine
import maskwatch
sys.argv = ["maskwatch", "status"]
maskwatch.main()
"""


def test_commands_beside_a_running_demo_use_its_redis(processes: Processes) -> None:
    demo = processes.start("demo", "--port", 0, "--detectors", 1, "--classifiers", 1)
    url = wait_until(lambda: [one.redis_url for one in find_running_pipelines()], 30, "the demo is found")[0]
    camera = processes.start("camera", "demo", "--name", "yard")

    def cameras() -> set[str]:
        return {camera["name"] for camera in json.loads(maskwatch("status", "--json").stdout)["cameras"]}

    wait_until(lambda: cameras() == {"demo", "yard"}, 30, "both cameras are shown")
    dead, jobs, table = maskwatch("dead", "list"), maskwatch("jobs"), maskwatch("models", "list")
    camera.send_signal(signal.SIGTERM)
    demo.send_signal(signal.SIGTERM)

    assert url.startswith("unix://")
    assert (dead.stdout, dead.stderr) == ("", "no dead letters: no frame failed\n")
    assert (jobs.stdout.split()[0], jobs.stderr) == ("JOB", "")
    assert "built-in" in table.stdout
    assert (camera.wait(30), demo.wait(30)) == (0, 0)
    assert find_running_pipelines() == []


def test_a_recorder_beside_a_running_pipeline_uses_its_database(
    server: Server, processes: Processes, tmp_path: Path
) -> None:
    file = tmp_path / "events.db"
    with announced(pipeline(redis_url=server.url, database=sqlite_url(file))):
        processes.start("record")
        wait_until(file.exists, 30, "it has made the database")


def test_label_beside_a_running_pipeline_has_a_redis_and_workers_of_its_own(server: Server, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((64, 64, 3), 90, np.uint8))

    with announced(pipeline(redis_url=server.url)):
        done = maskwatch("label", tmp_path, "--json", "-")

    assert json.loads(done.stdout)["faces"] == []
    assert server.client.dbsize() == 0


def test_models_of_a_running_pipeline_are_listed(tmp_path: Path) -> None:
    with announced(pipeline(models=str(tmp_path / "registry"))):
        line = maskwatch("models", "list", expect=1).stderr

    assert f"{tmp_path / 'registry'} is neither a model folder nor a registry" in line


def test_without_a_registry_the_built_in_models_are_listed() -> None:
    table = maskwatch("models", "list").stdout
    rows = json.loads(maskwatch("models", "list", "--json").stdout)
    card = json.loads(maskwatch("models", "show", "built-in", "--detector").stdout)
    refused = maskwatch("models", "promote", "built-in", expect=2).stderr

    assert [(row["version"], row["kind"], row["current"]) for row in rows] == [
        ("built-in", "classifier", True),
        ("built-in", "detector", True),
    ]
    assert card["version"] == rows[1]["labels_as"]
    assert all(row["labels_as"] in table for row in rows)
    assert "No registry is named" in table
    assert "`maskwatch models list` shows" in refused


def test_a_job_in_a_redis_that_ends_with_a_demo_says_so(server: Server, tmp_path: Path) -> None:
    for label in ("with_mask", "without_mask"):
        (tmp_path / "faces" / label).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "faces" / label / "one.png"), np.full((64, 64, 3), 90, np.uint8))

    with announced(pipeline(redis_url=server.url, embedded=True, command="demo")):
        told = maskwatch("train", tmp_path / "faces", "--out", tmp_path / "run", "--queue").stdout
        listed = maskwatch("jobs").stdout

    assert "it is lost when `maskwatch demo`, process 7, ends: --jobs-redis names a Redis that lasts" in told
    assert "queued" in listed
