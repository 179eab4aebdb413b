"""Training jobs in Redis: what users put there, see and cancel, and that nothing there can be run."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from annotated_folders import voc, write_photograph, write_text
from click.testing import CliRunner
from conftest import Server, wait_until
from rq.executions import Execution
from rq.job import JobStatus
from versions import write_detector, write_version

from maskwatch import cli
from models.classifier.card import DEFAULT_FOLDER, Card
from models.detector.card import DetectorCard
from models.registry.kinds import CLASSIFIER, DETECTOR, ModelKind
from models.registry.registry import RegistryError, register, registry_at
from models.registry.store import StoreFailed
from pipeline.bus.connection import Redis, connect
from pipeline.runtime.worker_context import WorkerContext
from trainer.jobs.child_process import ChildProcess
from trainer.jobs.device import CPU, Device, DeviceLock, devices
from trainer.jobs.enqueue import cancel_job, checked_spec, enqueue_job
from trainer.jobs.job_fetcher import JobFetcher
from trainer.jobs.job_list import TrainingRun, has_trainer, job_with_id, list_jobs
from trainer.jobs.job_spec import (
    FUNCTION,
    INDEX,
    QUEUE,
    RETRY_PAUSES_S,
    ForeignFunction,
    JobRejected,
    JobSpec,
    TrainingJob,
    find_job,
    training_queue,
)
from trainer.jobs.job_table import job_details, jobs_table
from trainer.jobs.work_horse import ProgressWriter, train_and_register
from trainer.jobs.worker import TrainingWorker
from trainer.settings import TrainSettings


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of one picture a class, which are not looked at."""
    for name in ("with_mask", "without_mask"):
        (tmp_path / "toy" / name).mkdir(parents=True)
        (tmp_path / "toy" / name / "a.png").write_bytes(b"a picture")
    return tmp_path / "toy"


def order(data: Path, name: str = "run") -> JobSpec:
    return JobSpec(settings=TrainSettings(datasets=(str(data),), out=str(data.parent / name)))


def maskwatch(server: Server, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "maskwatch", *map(str, arguments), "--redis", server.url]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


def test_a_job_has_the_meanings_of_class_names_that_the_command_line_gives(server: Server, tmp_path: Path) -> None:
    write_photograph(tmp_path / "street" / "a.jpg")
    write_text(tmp_path / "street" / "a.xml", voc("a.jpg", "kn95", "bare"))
    command = ("train", "street", "--out", "run", "--queue")

    refused = maskwatch(server, *command, "--map", "kn95=mask", cwd=tmp_path)
    done = maskwatch(server, *command, "--map", "kn95=mask", "--map", "bare=no_mask", cwd=tmp_path)

    (run,) = list_jobs(server.client)
    assert (refused.returncode, done.returncode) == (1, 0)
    assert "the meaning of bare is not known: give it with --map 'bare=mask|no_mask|ignore'" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert run.settings is not None
    assert run.settings.class_names == ("kn95=mask", "bare=no_mask")


def test_a_job_is_enqueued_by_the_command_line_with_absolute_paths(server: Server, data: Path) -> None:
    done = maskwatch(server, "train", "toy", "--out", "run", "--queue", "--models", "registry", cwd=data.parent)

    (run,) = list_jobs(server.client)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"job {run.id} is in the queue: `maskwatch jobs {run.id}` shows its progress")
    assert done.stdout.endswith("it waits for a trainer: start one with `maskwatch trainer`\n")
    assert (run.state, run.attempts_left, run.models) == ("queued", 5, str(data.parent / "registry"))
    assert run.settings == TrainSettings(datasets=(str(data),), out=str(data.parent / "run"))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nowhere", "--out", "run"], "nowhere does not exist"),
        (["toy/with_mask", "--out", "run"], "one folder per class is needed"),
        (["toy", "--out", str(DEFAULT_FOLDER)], "already holds a model: choose another folder with --out"),
        (["toy", "--out", "run", "--arch", "resnet18", "--weights", "imagenet"], "resnet18 starts from none"),
        (["toy", "--out", "run", "--weights", "my.h5"], "lite starts from imagenet, none"),
        (["toy", "--out", "run", "--models", str(DEFAULT_FOLDER)], "is a model's folder"),
    ],
)
def test_what_cannot_be_trained_is_reported_before_it_is_enqueued(
    server: Server, data: Path, arguments: list[str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)

    done = CliRunner().invoke(cli, ["train", *arguments, "--queue", "--redis", server.url])

    (line,) = done.output.strip().splitlines()
    assert done.exit_code in (1, 2)
    assert line.startswith("maskwatch: ")
    assert why in line
    assert list_jobs(server.client) == []


def test_two_unfinished_jobs_do_not_write_to_one_folder(server: Server, data: Path) -> None:
    first = enqueue_job(server.client, order(data), time_limit_s=60)

    with pytest.raises(JobRejected, match=f"job {first} \\(queued\\) writes to {data.parent}/run"):
        enqueue_job(server.client, order(data), time_limit_s=60)
    cancel_job(server.client, first)
    second = enqueue_job(server.client, order(data), time_limit_s=60)

    assert [run.id for run in list_jobs(server.client)] == [first, second]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["toy", "--out", "run", "--validation", "toy"], "toy is both trained on and validated on"),
        (["toy", "toy/../toy", "--out", "run"], "toy is given twice; give it once"),
        (["mask=toy/with_mask", "no_mask=toy/with_mask", "--out", "run"], "is given as mask and as no_mask"),
        (["toy", "--out", ""], "--out is empty: name the folder to write"),
        (["toy", "--out", "/proc/run"], "/proc/run cannot be written"),
        (["toy", "--out", "run", "--models", "nope://registry"], "nope://registry cannot be used: Protocol not known"),
        (["toy", "--out", "run", "--models", "/proc/registry"], "/proc/registry cannot be made"),
    ],
)
def test_an_order_that_cannot_succeed_is_not_put(
    server: Server, data: Path, arguments: list[str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)

    done = CliRunner().invoke(cli, ["train", *arguments, "--queue", "--redis", server.url])

    (line,) = done.output.strip().splitlines()
    assert done.exit_code == 1
    assert why in line
    assert list_jobs(server.client) == []
    assert [path.name for path in data.parent.iterdir()] == ["toy"]


@pytest.mark.parametrize("where", [[], ["--queue"]])
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--out", "run\udcff"], r"run\udcff has a name that is not UTF-8: choose another"),
        (["--out", "run", "--models", "registry\udcff"], r"registry\udcff has a name that is not UTF-8"),
        (["--out", "run", "--seed", 2**32], "training needs a seed of 0 to 4294967295"),
        (
            ["--out", "run", "--arch", "resnet50", "--weights", "toy/with_mask/a.png"],
            "toy/with_mask/a.png holds no weights: give the .keras file of a run, or a .h5 file",
        ),
        (["--out", "toy/with_mask"], "toy/with_mask is inside the data set"),
        (["--out", "run", "--models", "toy/../run"], "run: a registry needs a folder of its own"),
    ],
)
def test_what_is_wrong_for_certain_is_reported_at_once(
    server: Server, data: Path, arguments: list[object], where: list[str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    for name in ("handlers", "level"):  # training in this process configures logging
        monkeypatch.setattr(logging.root, name, copy(getattr(logging.root, name)))

    done = CliRunner().invoke(cli, ["train", "toy", *map(str, arguments), *where, "--redis", server.url])

    (line,) = done.output.strip().splitlines()
    assert done.exit_code == 1
    assert line.startswith("maskwatch: ")
    assert why in line
    assert list_jobs(server.client) == []
    assert [path.name for path in data.parent.iterdir()] == ["toy"]


def test_a_job_with_a_name_that_is_not_utf_8_is_rejected_and_hides_no_other(server: Server, data: Path) -> None:
    bad = JobSpec(settings=order(data, "bad").settings, models=f"{data.parent}/registry\udcff")
    training_queue(server.client).enqueue_call(FUNCTION, args=(msgspec.to_builtins(bad),), job_id="0bad", meta={})
    server.client.zadd(INDEX, {"0bad": 1})
    good = enqueue_job(server.client, order(data), time_limit_s=60)

    with pytest.raises(JobRejected, match="a path has a name that is not UTF-8"):
        enqueue_job(server.client, bad, time_limit_s=60)
    as_json, as_table, whole_job = (maskwatch(server, "jobs", *arguments) for arguments in (["--json"], [], ["0bad"]))

    assert [(job["id"], job["models"]) for job in json.loads(as_json.stdout)] == [
        ("0bad", f"{data.parent}/registry\\udcff"),
        (good, None),
    ]
    assert (as_table.returncode, whole_job.returncode) == (0, 0)


def test_a_job_is_listed_without_the_password_of_its_registry(server: Server, data: Path) -> None:
    secret = JobSpec(settings=order(data).settings, models="nowhere://key:S3cret@bucket/models")
    training_queue(server.client).enqueue_call(FUNCTION, args=(msgspec.to_builtins(secret),), job_id="one", meta={})
    server.client.zadd(INDEX, {"one": 1})

    as_json, whole_job = maskwatch(server, "jobs", "--json"), maskwatch(server, "jobs", "one")

    assert json.loads(as_json.stdout)[0]["models"] == "nowhere://key:***@bucket/models"
    assert "S3cret" not in as_json.stdout + whole_job.stdout


def test_of_two_jobs_enqueued_at_once_for_one_folder_one_is_rejected(
    server: Server, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_listed = threading.Barrier(2, timeout=30)

    def list_together(client: Redis) -> list[TrainingRun]:
        found = list_jobs(client)
        if not found:
            have_listed.wait()
        return found

    monkeypatch.setattr("trainer.jobs.enqueue.list_jobs", list_together)

    def enqueue(_: int) -> str:
        with connect(server.url) as client:
            try:
                return enqueue_job(client, order(data), time_limit_s=60)
            except JobRejected as error:
                return str(error)

    with ThreadPoolExecutor(2) as threads:
        answers = sorted(threads.map(enqueue, range(2)), key=len)

    (job,) = list_jobs(server.client)
    assert answers[0] == job.id
    assert answers[1].startswith(f"job {job.id} (queued) writes to ")


def test_one_folder_under_two_names_is_one_folder(server: Server, data: Path) -> None:
    (data.parent / "link").symlink_to(data.parent)
    first = enqueue_job(server.client, order(data), time_limit_s=60)

    for name in ("toy/../run", "link/run"):
        with pytest.raises(JobRejected, match=f"job {first} "):
            enqueue_job(server.client, order(data, name), time_limit_s=60)

    assert [run.id for run in list_jobs(server.client)] == [first]


def test_attempts_start_after_growing_pauses_and_the_times_reported_are_the_first(server: Server, data: Path) -> None:
    id_ = enqueue_job(server.client, order(data), time_limit_s=60)
    enqueued_at = job_with_id(server.client, id_).enqueued_at
    scheduled = training_queue(server.client).scheduled_job_registry.key
    pauses = []

    for pause_s in RETRY_PAUSES_S:
        job = taken(server, id_)
        job.meta["interrupted"] = ["the training process was killed"]
        began = time.time()
        with server.client.pipeline() as pipe:
            job.retry(training_queue(server.client), pipe)
            pipe.execute()
        due = server.client.zscore(scheduled, id_)
        pauses.append(began - 1 <= due - pause_s <= time.time() + 1)
        waiting = job_with_id(server.client, id_)
        server.client.zadd(scheduled, {id_: 1})
        JobFetcher(training_queue(server.client)).requeue_due()

    back = job_with_id(server.client, id_)
    assert all(pauses)
    assert (waiting.state, waiting.waiting) == ("queued", "tried again after 120 s: the training process was killed")
    assert (back.state, back.waiting, back.attempts_left) == ("queued", None, 0)
    assert back.enqueued_at == enqueued_at


def taken(server: Server, id_: str) -> TrainingJob:
    """Take a job from the queue."""
    job = JobFetcher(training_queue(server.client)).fetch()
    assert job is not None
    assert job.id == id_
    return job


def begun(server: Server, data: Path) -> tuple[TrainingWorker, TrainingJob]:
    """Return a worker, and a job that it has begun."""
    worker = TrainingWorker(WorkerContext("trainer", server.url), server.client, None)
    job = taken(server, enqueue_job(server.client, order(data), time_limit_s=60))
    with server.client.pipeline() as pipe:
        job.prepare_for_execution(worker.name, pipe)
        pipe.execute()
    return worker, job


@pytest.mark.parametrize("status", [JobStatus.CANCELED, JobStatus.QUEUED])
def test_a_horse_whose_job_was_cancelled_or_requeued_overwrites_nothing(
    server: Server, data: Path, status: JobStatus
) -> None:
    worker, job = begun(server, data)
    job.meta["epoch"] = 1
    ProgressWriter(job).flush()
    other = find_job(server.client, job.id)
    assert other is not None
    while_ours = other.meta["epoch"]
    other.meta["interrupted"] = ["its trainer died"]
    other.save_meta()
    other.set_status(status)

    ProgressWriter(job).flush()
    finishing = ChildProcess(
        lambda: worker.handle_job_success(job, worker.queues[0], job.started_job_registry, cast(Execution, None))
    )
    ended = wait_until(lambda: [one] if (one := finishing.status()) is not None else [], 30, "the horse has ended")

    found = find_job(server.client, job.id)
    assert found is not None
    assert ended == [0]
    assert (while_ours, found.meta["interrupted"]) == (1, ["its trainer died"])
    assert found.get_status() == status


@pytest.mark.parametrize(("write", "kind"), [(write_version, CLASSIFIER), (write_detector, DETECTOR)])
def test_a_model_that_an_earlier_attempt_has_finished_is_registered_without_training(
    tmp_path: Path, write: Callable[..., Card | DetectorCard], kind: ModelKind[Any]
) -> None:
    card = write(tmp_path / "run", "a", job="0123abcd")
    settings = TrainSettings(datasets=("nowhere",), out=str(tmp_path / "run"))

    outcome = train_and_register(settings, str(tmp_path / "registry"), lambda _: None, job="0123abcd")

    assert (outcome.version, outcome.registered_at) == (card.version, str(tmp_path / "registry"))
    assert registry_at(str(tmp_path / "registry")).of_kind(kind).versions() == [card.version]


@pytest.mark.parametrize("trained_for", ["", "4567cdef"])
def test_a_model_that_another_run_has_left_in_a_jobs_folder_is_not_taken_for_its_own(
    tmp_path: Path, trained_for: str
) -> None:
    write_version(tmp_path / "run", "a", job=trained_for)
    settings = TrainSettings(datasets=("nowhere",), out=str(tmp_path / "run"))

    with pytest.raises(ValueError, match="run holds a model that this job has not trained"):
        train_and_register(settings, str(tmp_path / "registry"), lambda _: None, job="0123abcd")

    assert not (tmp_path / "registry").exists()


def test_a_registry_that_cannot_be_written_is_reported_before_any_training(tmp_path: Path) -> None:
    settings = TrainSettings(datasets=("nowhere",), out=str(tmp_path / "run"))

    with pytest.raises(StoreFailed, match="/proc/registry cannot be made"):
        train_and_register(settings, "/proc/registry", lambda _: None)


def test_a_model_that_is_rejected_in_the_end_is_complete_in_its_folder_and_the_line_says_so(tmp_path: Path) -> None:
    place = str(tmp_path / "registry")
    first = write_version(tmp_path / "first", "first")
    register(place, tmp_path / "first")
    write_version(tmp_path / "run", "second", version=first.version, job="0123abcd")
    settings = TrainSettings(datasets=("nowhere",), out=str(tmp_path / "run"))

    with pytest.raises(RegistryError) as refused:
        train_and_register(settings, place, lambda _: None, job="0123abcd")

    line = f"`maskwatch models register {tmp_path / 'run'} --models {place}` adds it"
    assert str(refused.value).startswith(f"the model in {tmp_path / 'run'} is complete, {line}: {first.version} is ")
    assert "differs in files" in str(refused.value)


def test_a_registry_that_is_gone_in_the_end_leaves_the_model_in_its_folder_and_the_line_says_so(tmp_path: Path) -> None:
    write_version(tmp_path / "run", "a", job="0123abcd")
    (tmp_path / "registry").touch()
    settings = TrainSettings(datasets=("nowhere",), out=str(tmp_path / "run"))

    with pytest.raises(StoreFailed) as failed:
        train_and_register(settings, str(tmp_path / "registry"), lambda _: None, job="0123abcd")

    line = f"`maskwatch models register {tmp_path / 'run'} --models {tmp_path / 'registry'}` adds it"
    why = f"{tmp_path / 'registry'} cannot be made: choose another folder"
    assert str(failed.value) == f"the model in {tmp_path / 'run'} is complete, {line}: {why}"


def test_a_job_in_redis_is_json_and_nothing_else(server: Server, data: Path) -> None:
    id_ = enqueue_job(server.client, order(data), time_limit_s=60)

    record = server.client.hgetall(f"rq:job:{id_}")
    called = json.loads(zlib.decompress(record[b"data"]))

    assert called[:2] == [FUNCTION, None]
    assert msgspec.convert(called[2], list[JobSpec]) == [order(data)]
    assert json.loads(record[b"meta"])["attempt"] == 0
    assert (record[b"timeout"], record[b"retries_left"]) == (b"60", b"5")


def test_a_job_runs_no_code_that_its_record_names(server: Server, data: Path) -> None:
    id_ = enqueue_job(server.client, order(data), time_limit_s=60)
    callbacks = {f"{kind}_callback_name": "os.abort" for kind in ("success", "failure", "stopped")}
    server.client.hset(f"rq:job:{id_}", mapping=callbacks)
    foreign = training_queue(server.client).enqueue("os.abort").id

    ours, theirs = find_job(server.client, id_), find_job(server.client, foreign)

    assert ours is not None
    assert (ours.success_callback, ours.failure_callback, ours.stopped_callback) == (None, None, None)
    assert theirs is not None
    with pytest.raises(ForeignFunction, match=f"a job may name {re.escape(FUNCTION)} and nothing else"):
        _ = theirs.func


def test_a_waiting_job_is_cancelled_once_and_stays_listed(server: Server, data: Path) -> None:
    id_ = enqueue_job(server.client, order(data), time_limit_s=60)

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


def test_the_table_shows_how_far_a_job_is_and_why_another_failed(server: Server, data: Path) -> None:
    running, failed = (enqueue_job(server.client, order(data, name), time_limit_s=60) for name in ("a", "b"))
    progress = {"epoch": 3, "epochs": 14, "loss": 0.25, "validation_loss": 0.3, "validation_accuracy": 0.97}
    for id_, state, meta in (
        (running, JobStatus.STARTED, progress | {"accuracy": 0.9, "seconds_left": 600}),
        (failed, JobStatus.FAILED, {"error": "toy: none of its 6 files can be used"}),
    ):
        job = find_job(server.client, id_)
        assert job is not None
        job.meta |= meta
        job.save_meta()
        job.set_status(state)

    header, first, second = jobs_table(list_jobs(server.client)).splitlines()

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
    assert f"datasets             {data}" in job_details(job_with_id(server.client, running)).splitlines()


def test_the_details_of_a_detector_s_job_have_its_average_precision(server: Server, data: Path) -> None:
    job = find_job(server.client, enqueue_job(server.client, order(data), time_limit_s=60))
    assert job is not None
    job.meta |= {"epoch": 3, "epochs": 14, "average_precision": 0.913}
    job.save_meta()

    assert "average precision    0.913" in job_details(job_with_id(server.client, job.id)).splitlines()


def test_damaged_records_are_left_out_of_the_list(server: Server, data: Path, caplog: pytest.LogCaptureFixture) -> None:
    ids = [enqueue_job(server.client, order(data, str(number)), time_limit_s=60) for number in range(4)]
    server.client.hset(f"rq:job:{ids[0]}", "meta", base64.b85encode(os.urandom(9)))
    server.client.hset(f"rq:job:{ids[1]}", "created_at", "yesterday")
    server.client.delete(f"rq:job:{ids[2]}")
    server.client.set(f"rq:job:{ids[2]}", "no hash")

    found = list_jobs(server.client)

    assert [run.id for run in found] == [ids[0], ids[3]]
    assert [record.getMessage() for record in caplog.records] == [
        f"{id_.encode()!r} is not a training job, or is damaged: left out" for id_ in ids[1:3]
    ]


def test_paths_are_made_absolute_and_words_are_not(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    monkeypatch.chdir(data.parent)
    (data.parent / "more").mkdir()
    (data.parent / "more" / "a.png").write_bytes(b"a picture")
    test = f"mask={data / 'with_mask'}"
    settings = TrainSettings(
        datasets=("toy", "no_mask=more"), tests=(test,), out="o", arch="resnet50", weights="imagenet"
    )

    spec = checked_spec(settings, "memory://registry")

    assert spec.models == "memory://registry"
    assert spec.settings.datasets == (str(data), f"no_mask={data.parent}/more")
    assert (spec.settings.tests, spec.settings.out, spec.settings.weights) == (
        (test,),
        f"{data.parent}/o",
        "imagenet",
    )


def test_the_devices_are_the_gpus_that_may_be_used_or_else_the_processors(tmp_path: Path) -> None:
    for node in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / node).touch()

    found = devices(None, tmp_path)

    assert found == [Device(name=f"gpu-{number}", visible=str(place)) for place, number in enumerate((0, 2, 10))]
    assert devices(None, tmp_path / "none") == devices("", tmp_path) == devices("-1", tmp_path) == [CPU]
    assert [device.visible for device in devices("1, 3", tmp_path)] == ["1", "3"]


def test_a_part_of_a_gpu_whose_name_has_slashes_is_a_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    part = Device(name="gpu-MIG-GPU-8932f937/1/0", visible="MIG-GPU-8932f937/1/0")

    assert DeviceLock([part]).acquire() == part


def test_a_file_in_the_place_of_the_locks_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"maskwatch-{os.getuid()}").touch()

    with pytest.raises(OSError, match=r"is no folder of this user: remove it, or set TMPDIR"):
        DeviceLock([CPU]).acquire()


def test_a_trainer_is_known_again_after_redis_has_lost_its_memory(server: Server) -> None:
    worker = TrainingWorker(WorkerContext("trainer", server.url), server.client, None)
    server.client.flushdb()
    before = has_trainer(server.client)

    worker.heartbeat()

    assert (before, has_trainer(server.client)) == (False, True)


def test_a_device_belongs_to_one_trainer_until_that_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    hold = (
        "import sys; from trainer.jobs.device import *; "
        "lock = DeviceLock([CPU]); print(lock.acquire(), flush=True); sys.stdin.read()"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as other:
        assert other.stdout is not None
        assert "cpu" in other.stdout.readline()
        lock = DeviceLock([CPU])

        while_held = lock.acquire()
        told = lock.holders
        other.kill()
        other.wait()

        assert (while_held, told) == (None, f"cpu: process {other.pid}")
        assert lock.acquire() == CPU
