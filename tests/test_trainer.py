"""Trainers are killed, stopped and given what they cannot do: a job goes on from its last epoch, or says why not."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Server, wait_until
from processes import Process, Processes, descendants, gone, processes
from toy_faces import write_faces

from pipeline.bus.status import read_heartbeats
from trainer.fitting.run_folder import CHECKPOINT_NAME, LOCK_NAME, locked_folder
from trainer.jobs.enqueue import cancel_job, enqueue_job
from trainer.jobs.job_list import TrainingRun, job_with_id
from trainer.jobs.job_spec import QUEUE, JobSpec, training_queue
from trainer.jobs.job_table import jobs_table
from trainer.settings import TrainSettings

__all__ = ["processes"]

LONG = 1000  # epochs: more than any test waits for
STARTS_S = 240  # Python, TensorFlow and the first batch, or the end of a job, on a busy machine
TAKEN_OVER_S = 300  # 20 s without a heartbeat, then a start
ENDS_S = 60  # a process that is to end at once, on a busy machine
DEFERRED = f"rq:scheduled:{QUEUE}"


class Jobs:
    """Jobs of one test on toy faces, and the trainers that work on them."""

    def __init__(self, server: Server, processes: Processes, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.data = write_faces(folder / "toy", 24, seed=1)
        self._processes = processes

    def put(self, name: str, *, epochs: int, data: Path | None = None, models: str | None = None) -> str:
        settings = TrainSettings(
            arch="resnet18",  # quick to start: jobs are the same whatever they train
            datasets=(str(data or self.data),),
            out=str(self.folder / name),
            size_px=32,
            epochs=epochs,
            batch=8,
        )
        return enqueue_job(self.server.client, JobSpec(settings=settings, models=models), time_limit_s=3600)

    def start_trainer(self, *arguments: object) -> Process:
        return self._processes.start("trainer", *arguments, redis=self.server)

    def run(self, id_: str) -> TrainingRun:
        return job_with_id(self.server.client, id_)

    def wait(self, id_: str, condition: Callable[[TrainingRun], bool], within_s: float, what: str) -> TrainingRun:
        wait_until(lambda: condition(self.run(id_)), within_s, f"{what}; {self._processes.log()[-2000:]}")
        return self.run(id_)

    def wait_for_epoch(self, id_: str, epoch: int, within_s: float = STARTS_S) -> TrainingRun:
        """Wait until so many epochs are finished and the next has begun."""
        return self.wait(id_, lambda run: (run.epoch or 0) > epoch, within_s, f"{id_} is past epoch {epoch}")

    def wait_for_news(self, id_: str, since: TrainingRun, within_s: float, what: str) -> TrainingRun:
        """Wait until some training tells of its progress."""
        return self.wait(id_, lambda run: run.updated_at != since.updated_at, within_s, what)

    def wait_for_checkpoints(self, name: str, count: int) -> None:
        """Wait until a run has written so many more checkpoints."""
        checkpoint = self.folder / name / "checkpoint.npz"
        for _ in range(count):
            written_at = checkpoint.stat().st_mtime_ns
            wait_until(lambda at=written_at: checkpoint.stat().st_mtime_ns > at, STARTS_S, "a checkpoint is written")

    def log(self) -> str:
        """Return what the trainers have logged."""
        return self._processes.log()

    @contextlib.contextmanager
    def redis_hangs(self) -> Iterator[None]:
        """Stop Redis while the block runs."""
        redis_pid = self.server.client.info("server")["process_id"]
        os.kill(redis_pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(redis_pid, signal.SIGCONT)


@pytest.fixture
def jobs(server: Server, processes: Processes, tmp_path: Path) -> Jobs:
    return Jobs(server, processes, tmp_path)


def horse_of(trainer: Process) -> int:
    """Return the process that trains."""
    return wait_until(lambda: descendants(trainer.pid), ENDS_S, "there is a work horse")[0]


def epoch_of(run: TrainingRun) -> int:
    """Return the epoch under way, or just finished."""
    assert run.epoch is not None
    return run.epoch


def mapped(pid: int) -> str:
    """Return what a process has mapped into its memory."""
    return Path(f"/proc/{pid}/maps").read_text()


def test_a_job_is_trained_while_its_progress_can_be_watched(jobs: Jobs) -> None:
    id_ = jobs.put("run", epochs=3, models=str(jobs.folder / "registry"))
    trainer = jobs.start_trainer()

    begun = jobs.wait(id_, lambda run: run.loss is not None, STARTS_S, "the job tells its loss")
    in_parent, in_horse = mapped(trainer.pid), mapped(horse_of(trainer))
    busy = [f"trains {id_}"]
    wait_until(lambda: [beat.state for beat in read_heartbeats(jobs.server.client)] == busy, ENDS_S, "it reports that")
    done = jobs.wait(id_, lambda run: run.state != "running", STARTS_S, "the job has ended")

    assert (begun.state, begun.epochs, begun.attempt) == ("running", 3, 1)
    assert "tensorflow" in in_horse
    assert not any(name in in_parent for name in ("tensorflow", "keras", "onnxruntime"))
    assert (done.state, done.epoch, done.error, done.attempts_left) == ("finished", 3, None, 5)
    assert done.validation_accuracy is not None
    (result,) = jobs.server.client.xrange(f"rq:results:{id_}")
    assert json.loads(base64.b64decode(result[1][b"return_value"]))["version"] == done.version
    assert json.loads((jobs.folder / "run" / "card.json").read_bytes())["version"] == done.version
    assert (jobs.folder / "registry" / "versions" / str(done.version) / "card.json").is_file()
    assert json.loads((jobs.folder / "run" / "card.json").read_bytes())["job"] == id_
    wait_until(lambda: "its process ended by itself" in jobs.log(), ENDS_S, "the trainer says how it ended")


def test_what_cannot_be_trained_fails_with_its_reason_and_the_trainer_continues(jobs: Jobs) -> None:
    empty = write_faces(jobs.folder / "broken", 3, seed=2)
    for picture in empty.rglob("*.png"):
        picture.write_bytes(b"no picture")
    broken = jobs.put("a", epochs=1, data=empty)
    foreign = training_queue(jobs.server.client).enqueue("os.mkdir", str(jobs.folder / "made")).id
    jobs.server.client.rpush(f"rq:queue:{QUEUE}", b"\xff\x80 no job")
    trainer = jobs.start_trainer()

    first = jobs.wait(broken, lambda run: run.state == "failed", STARTS_S, "the broken data set is told")
    second = jobs.wait(foreign, lambda run: run.state == "failed", ENDS_S, "the foreign function is refused")
    wait_until(lambda: not jobs.server.client.exists(f"rq:queue:{QUEUE}:intermediate"), ENDS_S, "the rest is dropped")

    assert first.error == "broken: none of its 6 files can be used"
    assert (first.attempt, first.interrupted) == (1, [])
    assert "rejected: a job may name trainer.jobs.work_horse.perform and nothing else, not 'os.mkdir'" in str(
        second.error
    )
    assert not (jobs.folder / "made").exists()
    assert trainer.poll() is None


def test_a_job_waits_while_another_run_uses_its_folder(jobs: Jobs) -> None:
    id_ = jobs.put("run", epochs=LONG)
    jobs.start_trainer()
    jobs.wait(id_, lambda run: run.state == "running", STARTS_S, "the trainer has taken it")

    with locked_folder(jobs.folder / "run"):  # before the training, which imports TensorFlow first
        waiting = jobs.wait(id_, lambda run: run.waiting is not None, STARTS_S, "the job is deferred")
        deferred_until = jobs.server.client.zscore(DEFERRED, id_)
        wait_until(lambda: deferred_until < (jobs.server.client.zscore(DEFERRED, id_) or 0), ENDS_S, "and once more")
    wait_until((jobs.folder / "run" / LOCK_NAME).exists, STARTS_S, "the training has the folder")
    begun = jobs.run(id_)

    assert (waiting.state, waiting.attempt, waiting.attempts_left) == ("queued", 0, 5)
    assert waiting.waiting == f"waiting for {jobs.folder / 'run'}, which another run uses"
    assert (begun.state, begun.attempt, begun.attempts_left, begun.interrupted) == ("running", 1, 5, [])
    assert begun.waiting is None


def test_a_job_that_waits_for_its_folder_can_be_cancelled_and_stops_nobody_else(jobs: Jobs) -> None:
    jobs.server.client.zadd(DEFERRED, {b"\xff\x80 no job": 1})
    id_ = jobs.put("run", epochs=1)
    with locked_folder(jobs.folder / "run"):
        jobs.start_trainer()
        waiting = jobs.wait(id_, lambda run: run.waiting is not None, STARTS_S, "the job is deferred")
        after = jobs.put("after", epochs=LONG)
        jobs.wait(after, lambda run: run.state == "running", ENDS_S, "the next job is taken")
        cancel_job(jobs.server.client, id_)

    assert jobs_table([waiting]).endswith(f"waiting for {jobs.folder / 'run'}, which another run uses")
    assert (jobs.run(id_).state, jobs.run(id_).waiting) == ("cancelled", None)
    assert jobs.server.client.zcard(DEFERRED) == 0
    assert not (jobs.folder / "run").exists()


def test_a_running_job_outlives_a_redis_that_hangs_and_is_cancelled_at_once(jobs: Jobs) -> None:
    id_ = jobs.put("run", epochs=LONG)
    after = jobs.put("after", epochs=1)
    trainer = jobs.start_trainer()
    jobs.wait_for_epoch(id_, 1)
    horse = horse_of(trainer)

    with jobs.redis_hangs():
        jobs.wait_for_checkpoints("run", 3)
    jobs.wait_for_news(id_, jobs.run(id_), ENDS_S, "progress is told again")
    still = horse_of(trainer)
    cancel_job(jobs.server.client, id_)

    wait_until(lambda: gone([horse]), ENDS_S, "the horse is gone")
    jobs.wait(after, lambda run: run.state == "running", ENDS_S, "the next job is taken")
    assert still == horse
    assert jobs.run(id_).state == "cancelled"
    assert [path.name for path in (jobs.folder / "run").iterdir()] == [CHECKPOINT_NAME]


def test_a_job_continues_from_its_last_epoch_whatever_is_killed_or_stopped(jobs: Jobs) -> None:
    id_ = jobs.put("run", epochs=LONG)
    first = jobs.start_trainer()
    jobs.wait_for_epoch(id_, 1)
    horse = horse_of(first)

    os.kill(horse, signal.SIGKILL)
    wait_until(lambda: gone([horse]), ENDS_S, "the horse is gone")
    killed = jobs.run(id_)
    replaced = jobs.wait_for_news(id_, killed, STARTS_S, "a second horse goes on")
    first.send_signal(signal.SIGTERM)
    status = first.wait(timeout=ENDS_S)
    stopped = jobs.run(id_)
    second = jobs.start_trainer()
    resumed = jobs.wait_for_news(id_, stopped, STARTS_S, "a second trainer goes on")
    horse = horse_of(second)
    second.kill()
    wait_until(lambda: gone([horse]), ENDS_S, "the horse ends with its trainer")
    orphaned = jobs.run(id_)
    jobs.start_trainer()
    adopted = jobs.wait_for_news(id_, orphaned, TAKEN_OVER_S, "a third trainer goes on")

    runs = (killed, replaced, stopped, resumed, orphaned, adopted)
    epochs = [epoch_of(run) for run in runs]
    assert epochs == sorted(epochs)
    assert epochs[0] > 1
    assert (replaced.attempt, replaced.attempts_left) == (2, 4)
    assert (replaced.enqueued_at, replaced.started_at) == (killed.enqueued_at, killed.started_at)
    assert None not in (killed.enqueued_at, killed.started_at)
    assert replaced.interrupted == ["the training process was ended by signal 9 (Killed), possibly out of memory"]
    assert status == 0
    assert (stopped.state, stopped.attempts_left, stopped.interrupted) == ("queued", 4, replaced.interrupted)
    assert resumed.attempt == 3
    assert (adopted.state, adopted.attempts_left) == ("running", 3)
    assert adopted.interrupted == [*replaced.interrupted, "its trainer died, or could not reach Redis"]


def test_ctrl_c_says_in_one_line_how_the_training_continues(jobs: Jobs, processes: Processes) -> None:
    out = jobs.folder / "run"
    options = ("--arch", "resnet18", "--epochs", LONG, "--size-px", 32, "--batch", 8)
    training = processes.start("train", jobs.data, "--out", out, *options)
    assert training.stdout is not None
    assert training.stdout.readline().startswith("epoch 1 of ")

    training.send_signal(signal.SIGINT)
    status = training.wait(timeout=STARTS_S)

    assert status == 130
    assert jobs.log().splitlines()[-1] == (
        f"maskwatch: stopped: the same command continues after the last epoch in {out}"
    )
    assert [path.name for path in out.iterdir()] == [CHECKPOINT_NAME]
