"""Define a training job in Redis: a spec as JSON under rq's keys, without any code.

A job names one function, FUNCTION. Anything else that its record names (another function, callbacks, webhooks) is never
run: another function raises ForeignFunction when the job starts, which becomes the reason of its failure. Jobs are only
written and read through training_queue(). Nothing here imports Keras.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import msgspec
import redis
from msgspec import Struct
from redis.client import Pipeline
from rq import Queue
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.job import Job
from rq.utils import now

from pipeline.bus.connection import Redis
from trainer.settings import TrainSettings

FUNCTION = "trainer.jobs.work_horse.perform"  # is part of every job in Redis: do not rename it
QUEUE = "training"
# Before each further attempt at a job whose process or trainer died, or whose failure the user cannot correct.
RETRY_PAUSES_S = (5, 15, 30, 60, 120)
RETRIES = len(RETRY_PAUSES_S)
JOB_HEARTBEAT_TIMEOUT_S = 20  # a job without a heartbeat of its trainer for this time is taken over
INDEX = "training-jobs"  # sorted set of job IDs by the time they were enqueued (Redis' clock)


class ForeignFunction(ValueError):
    """A job names another function, or has no valid spec."""


class JobRejected(ValueError):
    """A job cannot be enqueued, shown or cancelled; the message is one line with the reason and a remedy."""


class JobSpec(Struct, frozen=True, kw_only=True):
    """The content of a job.

    settings: with absolute paths.
    models: the registry that the model is added to; None means the trainer's own.
    """

    settings: TrainSettings
    models: str | None = None


class JobResult(Struct, frozen=True, kw_only=True):
    """The result of a training run. registered_at: the registry it was added to, if any."""

    folder: str
    version: str
    registered_at: str | None = None


class JobProgress(Struct, frozen=True, kw_only=True):
    """A job's meta, written by horse and trainer: its progress, and why attempts ended.

    epoch: the last one begun or finished. loss and accuracy: of the training pictures, mean of the epoch so far; those
    of validation, and a detector's average precision, are of the last finished epoch. updated_at: Unix seconds on
    Redis' clock. interrupted: why earlier attempts ended. waiting: why it is deferred; None when it is not. error: why
    the job failed.
    started_at: when its first attempt began, in Unix seconds; None: not yet.
    """

    attempt: int = 0
    started_at: float | None = None
    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    accuracy: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    average_precision: float | None = None
    seconds_left: float | None = None
    updated_at: float | None = None
    interrupted: list[str] = []
    waiting: str | None = None
    error: str | None = None


class TrainingJob(Job):
    """A job of rq that runs one function and nothing else.

    work: that function, which gets the job; the trainer sets it before it starts the job.
    """

    work: Callable[[TrainingJob], dict[str, Any]]

    @property
    def spec(self) -> JobSpec:
        """Return the job's content; raise ForeignFunction if it names another function, or has no valid spec."""
        try:
            if self.func_name == FUNCTION and self.instance is None:
                (spec,) = self.args
                return msgspec.convert(spec, JobSpec)
        except (DeserializationError, ValueError, TypeError) as error:
            raise ForeignFunction(f"rejected: the job has no valid spec of a training run ({error})") from error
        raise ForeignFunction(f"rejected: a job may name {FUNCTION} and nothing else, not {self.func_name!r}")

    @property
    def folder(self) -> Path | None:
        """The folder that the job writes; None when its spec is invalid, which the horse reports."""
        with suppress(ForeignFunction):
            return Path(self.spec.settings.out)
        return None

    @property
    def func(self) -> Callable[..., Any]:
        """Return the function that rq calls with the job's arguments; raise ForeignFunction for a foreign job."""
        _ = self.spec
        return lambda _spec: self.work(self)

    # A job names no code: rq would import these functions.
    success_callback = failure_callback = stopped_callback = None

    def send_webhooks(self, status: str, *, exc_string: str | None = None) -> None:
        """Do nothing: a job names no URLs."""

    def retry(self, queue: Queue, pipeline: Pipeline) -> None:
        """Defer the job for another attempt, longer after each one; the pipeline makes this atomic."""
        left = self.retries_left or 1
        pause_s = RETRY_PAUSES_S[max(0, RETRIES - left)]
        self.retries_left = left - 1
        why = (self.meta.get("interrupted") or ["reason unknown"])[-1]
        self.meta["waiting"] = f"tried again after {pause_s} s: {why}"
        queue.schedule_job(self, now() + timedelta(seconds=pause_s), pipeline=pipeline)

    def refresh(self) -> None:
        """Read the job's record again; raise NoSuchJobError if there is none, or it is damaged."""
        try:
            Job.refresh(self)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise NoSuchJobError(f"{self.key} is damaged: {error}") from error
        except redis.ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            raise NoSuchJobError(f"{self.key} is not a job") from error
        try:
            msgspec.convert(self.meta, JobProgress)
        except msgspec.ValidationError:
            self.meta = {}


def training_queue(client: Redis) -> Queue:
    """Return the queue of training jobs, which are encoded as JSON."""
    return Queue(QUEUE, connection=client, job_class=TrainingJob, serializer="json")


def find_job(client: Redis, job_id: str) -> TrainingJob | None:
    """Return a job; None when there is none with this ID, or its record is damaged."""
    try:
        return cast(TrainingJob | None, training_queue(client).fetch_job(job_id))
    except ValueError:  # not a valid ID
        return None
