"""Training jobs in Redis: what users put there, see and cancel, and that nothing there can be run."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import msgspec
import pytest
from conftest import Server
from rq.job import JobStatus

from models.card import DEFAULT_FOLDER
from trainer.jobs import cancel, enqueue
from trainer.queue.device import CPU, Device, DeviceLock, devices
from trainer.queue.job_list import run_of, runs
from trainer.queue.job_table import table, whole
from trainer.queue.order import FUNCTION, QUEUE, ForeignFunction, JobRefused, Order, find, queue_of
from trainer.queue.places import absolute
from trainer.settings import TrainSettings


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of one picture a class, which are not looked at."""
    for name in ("with_mask", "without_mask"):
        (tmp_path / "toy" / name).mkdir(parents=True)
        (tmp_path / "toy" / name / "a.png").write_bytes(b"a picture")
    return tmp_path / "toy"


def order(data: Path, name: str = "run") -> Order:
    return Order(settings=TrainSettings(datasets=(str(data),), out=str(data.parent / name)))


def maskwatch(server: Server, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "maskwatch", *map(str, arguments), "--redis", server.url]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


def test_a_job_is_put_by_the_command_line_with_absolute_paths(server: Server, data: Path) -> None:
    done = maskwatch(server, "train", "toy", "--out", "run", "--queue", "--models", "registry", cwd=data.parent)

    (run,) = runs(server.client)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"job {run.id} is in the queue: `maskwatch jobs {run.id}` shows how far it is")
    assert done.stdout.endswith("it waits for a trainer: start one with `maskwatch trainer`\n")
    assert (run.state, run.attempts_left, run.models) == ("queued", 5, str(data.parent / "registry"))
    assert run.settings == TrainSettings(datasets=(str(data),), out=str(data.parent / "run"))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nowhere", "--out", "run"], "nowhere does not exist"),
        (["toy/with_mask", "--out", "run"], "one folder a class is needed"),
        (["toy", "--out", str(DEFAULT_FOLDER)], "already holds a model: choose another folder with --out"),
        (["toy", "--out", "run", "--weights", "imagenet"], "lite starts from random weights"),
        (["toy", "--out", "run", "--models", str(DEFAULT_FOLDER)], "is a model's folder"),
    ],
)
def test_what_cannot_be_trained_is_told_before_it_is_put(
    server: Server, data: Path, arguments: list[str], why: str
) -> None:
    done = maskwatch(server, "train", *arguments, "--queue", cwd=data.parent)

    (line,) = done.stderr.strip().splitlines()
    assert done.returncode in (1, 2)
    assert line.startswith("maskwatch: ")
    assert why in line
    assert runs(server.client) == []


def test_two_unfinished_jobs_do_not_write_to_one_folder(server: Server, data: Path) -> None:
    first = enqueue(server.client, order(data), time_limit_s=60)

    with pytest.raises(JobRefused, match=f"job {first} \\(queued\\) is to write {data.parent}/run"):
        enqueue(server.client, order(data), time_limit_s=60)
    cancel(server.client, first)
    second = enqueue(server.client, order(data), time_limit_s=60)

    assert [run.id for run in runs(server.client)] == [first, second]


def test_a_job_in_redis_is_json_and_nothing_else(server: Server, data: Path) -> None:
    id_ = enqueue(server.client, order(data), time_limit_s=60)

    record = server.client.hgetall(f"rq:job:{id_}")
    called = json.loads(zlib.decompress(record[b"data"]))

    assert called[:2] == [FUNCTION, None]
    assert msgspec.convert(called[2], list[Order]) == [order(data)]
    assert json.loads(record[b"meta"])["attempt"] == 0
    assert (record[b"timeout"], record[b"retries_left"]) == (b"60", b"5")


def test_a_job_runs_no_code_that_its_record_names(server: Server, data: Path) -> None:
    id_ = enqueue(server.client, order(data), time_limit_s=60)
    callbacks = {f"{kind}_callback_name": "os.abort" for kind in ("success", "failure", "stopped")}
    server.client.hset(f"rq:job:{id_}", mapping=callbacks)
    foreign = queue_of(server.client).enqueue("os.abort").id

    ours, theirs = find(server.client, id_), find(server.client, foreign)

    assert ours is not None
    assert (ours.success_callback, ours.failure_callback, ours.stopped_callback) == (None, None, None)
    assert theirs is not None
    with pytest.raises(ForeignFunction, match=f"a job may name {re.escape(FUNCTION)} and nothing else"):
        _ = theirs.func


def test_a_waiting_job_is_cancelled_once_and_stays_listed(server: Server, data: Path) -> None:
    id_ = enqueue(server.client, order(data), time_limit_s=60)

    first = maskwatch(server, "jobs", id_, "--cancel")
    second = maskwatch(server, "jobs", id_, "--cancel")
    listed = json.loads(maskwatch(server, "jobs", "--json").stdout)

    assert (first.returncode, first.stdout) == (0, f"job {id_} is cancelled\n")
    assert (second.returncode, second.stderr) == (
        1,
        f"maskwatch: job {id_} is cancelled already: there is nothing to cancel\n",
    )
    assert [(job["id"], job["state"], job["settings"]["arch"]) for job in listed] == [(id_, "cancelled", "lite")]
    assert server.client.llen(f"rq:queue:{QUEUE}") == 0


@pytest.mark.parametrize("id_", ["nothing", "no:thing/at all"])
def test_an_unknown_job_is_one_line(server: Server, id_: str) -> None:
    for arguments in (["jobs", id_], ["jobs", id_, "--cancel"]):
        done = maskwatch(server, *arguments)

        assert (done.returncode, done.stderr) == (1, f"maskwatch: there is no job {id_}: `maskwatch jobs` lists them\n")


def test_the_table_tells_how_far_a_job_is_and_why_another_failed(server: Server, data: Path) -> None:
    running, failed = (enqueue(server.client, order(data, name), time_limit_s=60) for name in ("a", "b"))
    progress = {"epoch": 3, "epochs": 14, "loss": 0.25, "validation_loss": 0.3, "validation_accuracy": 0.97}
    for id_, state, meta in (
        (running, JobStatus.STARTED, progress | {"accuracy": 0.9, "seconds_left": 600}),
        (failed, JobStatus.FAILED, {"error": "toy: none of its 6 files can be used"}),
    ):
        job = find(server.client, id_)
        assert job is not None
        job.meta |= meta
        job.save_meta()
        job.set_status(state)

    header, first, second = table(runs(server.client)).splitlines()

    assert header.split() == ["JOB", "STATE", "ARCH", "EPOCH", "LOSS", "ACCURACY", "LEFT", "DATA"]
    assert first.split() == [
        running,
        "running",
        "lite",
        "3/14",
        "0.300",
        "97.0%",
        "10",
        "min",
        f"{data.parent.name}/toy",
    ]
    assert second.endswith("failed: toy: none of its 6 files can be used")
    assert f"datasets             {data}" in whole(run_of(server.client, running)).splitlines()


def test_damaged_records_are_left_out_of_the_list(server: Server, data: Path, caplog: pytest.LogCaptureFixture) -> None:
    ids = [enqueue(server.client, order(data, str(number)), time_limit_s=60) for number in range(4)]
    server.client.hset(f"rq:job:{ids[0]}", "meta", base64.b85encode(os.urandom(9)))
    server.client.hset(f"rq:job:{ids[1]}", "created_at", "yesterday")
    server.client.delete(f"rq:job:{ids[2]}")
    server.client.set(f"rq:job:{ids[2]}", "no hash")

    found = runs(server.client)

    assert [run.id for run in found] == [ids[0], ids[3]]
    assert [record.getMessage() for record in caplog.records] == [
        f"{id_.encode()!r} is no training job, or a damaged one: left out" for id_ in ids[1:3]
    ]


def test_paths_are_made_absolute_and_words_are_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    given = TrainSettings(datasets=("a", "no_mask=b"), tests=("/c",), out="o", arch="resnet50", weights="imagenet")

    settings = absolute(given)

    assert settings.datasets == (f"{tmp_path}/a", f"no_mask={tmp_path}/b")
    assert (settings.tests, settings.out, settings.weights) == (("/c",), f"{tmp_path}/o", "imagenet")


def test_the_devices_are_the_gpus_that_may_be_used_or_else_the_processors(tmp_path: Path) -> None:
    for node in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / node).touch()

    found = devices(None, tmp_path)

    assert found == [Device(name=f"gpu-{number}", visible=str(place)) for place, number in enumerate((0, 2, 10))]
    assert devices(None, tmp_path / "none") == devices("", tmp_path) == devices("-1", tmp_path) == [CPU]
    assert [device.visible for device in devices("1, 3", tmp_path)] == ["1", "3"]


def test_a_device_is_given_to_one_trainer_until_that_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    hold = (
        "import sys; from trainer.queue.device import *; "
        "lock = DeviceLock([CPU]); print(lock.take(), flush=True); sys.stdin.read()"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as other:
        assert other.stdout is not None
        assert "cpu" in other.stdout.readline()
        lock = DeviceLock([CPU])

        while_held = lock.take()
        told = lock.holders
        other.kill()
        other.wait()

        assert (while_held, told) == (None, f"cpu: process {other.pid}")
        assert lock.take() == CPU
