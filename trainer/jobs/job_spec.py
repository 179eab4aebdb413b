"""What a training job is in Redis: an order as JSON under rq's keys, and nothing that can be run.

A job names one function; whatever else its record names (another function, callbacks, webhooks) is not run: a foreign
function raises ForeignFunction where the job would start, and so ends up as the reason of its failure. Jobs are written
and read through queue_of() alone. Nothing here imports Keras.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
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

FUNCTION = "trainer.jobs.work_horse.perform"
QUEUE = "training"
# Before each further attempt at a job whose process or trainer died, or that failed for no reason one can mend.
PAUSES_S = (5, 15, 30, 60, 120)
RETRIES = len(PAUSES_S)
LOST_S = 20  # a job of which no trainer has said for so long that it works on it is taken over
INDEX = "training-jobs"  # sorted set of job ids, scored by when they were enqueued (Redis' clock)


class ForeignFunction(ValueError):
    """A job names something that no trainer runs."""


class JobRefused(ValueError):
    """A job cannot be enqueued, shown or cancelled; the message is one line that says why and what to do."""


class JobSpec(Struct, frozen=True, kw_only=True):
    """What a job carries.

    settings: all paths in them are absolute.
    models: the registry that the model is added to; None leaves that to the trainer.
    """

    settings: TrainSettings
    models: str | None = None


class JobResult(Struct, frozen=True, kw_only=True):
    """What came of a training run. registered_at: the registry it was added to, if any."""

    folder: str
    version: str
    registered_at: str | None = None


class JobProgress(Struct, frozen=True, kw_only=True):
    """What horse and trainer tell in a job's meta: how far it is, and what ended its attempts.

    epoch: the last one begun or finished. loss and accuracy: of the training pictures, mean of the epoch so far; the
    validation's are those of the last finished epoch. updated_at: Unix seconds on Redis' clock. interrupted: why
    earlier attempts ended. waiting: why it was put off; None when it was not. error: why the job failed.
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
    seconds_left: float | None = None
    updated_at: float | None = None
    interrupted: list[str] = []
    waiting: str | None = None
    error: str | None = None


class TrainingJob(Job):
    """A job of rq that runs one function and nothing else.

    models: the trainer's own registry, for jobs that name none; set by the trainer before it starts the job.
    """

    models: str | None = None

    @property
    def order(self) -> JobSpec:
        """Return what the job carries.

        Raises:
            ForeignFunction: it names another function, or carries no order.
        """
        try:
            if self.func_name != FUNCTION or self.instance is not None:
                raise ForeignFunction(f"refused: a job may name {FUNCTION} and nothing else, not {self.func_name!r}")
            (order,) = self.args
            return msgspec.convert(order, JobSpec)
        except (DeserializationError, ValueError, TypeError) as error:
            if isinstance(error, ForeignFunction):
                raise
            raise ForeignFunction(f"refused: the job carries no order of a training run ({error})") from error

    @property
    def func(self) -> Callable[..., Any]:
        """Return the one function that trainers run; raise ForeignFunction for any other."""
        from trainer.jobs.work_horse import perform

        self.order  # noqa: B018 -- raises for what is no order
        return cast(Callable[..., Any], perform)

    @property
    def success_callback(self) -> None:
        """Nothing: a job names no code."""

    @property
    def failure_callback(self) -> None:
        """Nothing: a job names no code."""

    @property
    def stopped_callback(self) -> None:
        """Nothing: a job names no code."""

    def send_webhooks(self, status: str, *, exc_string: str | None = None) -> None:
        """Call nobody: a job names no addresses."""

    def retry(self, queue: Queue, pipeline: Pipeline) -> None:
        """Put the job off for another attempt, the longer the more there were; the pipeline does all of it at once."""
        left = self.retries_left or 1
        pause_s = PAUSES_S[max(0, RETRIES - left)]
        self.retries_left = left - 1
        why = (self.meta.get("interrupted") or ["for no known reason"])[-1]
        self.meta["waiting"] = f"tried again after {pause_s} s: {why}"
        queue.schedule_job(self, now() + timedelta(seconds=pause_s), pipeline=pipeline)

    def refresh(self) -> None:
        """Read the job's record again.

        Raises:
            NoSuchJobError: there is none, or it is damaged.
        """
        try:
            super().refresh()  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise NoSuchJobError(f"{self.key} is damaged: {error}") from error
        except redis.ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            raise NoSuchJobError(f"{self.key} is no job") from error
        try:
            msgspec.convert(self.meta, JobProgress)
        except msgspec.ValidationError:
            self.meta = {}


def queue_of(client: Redis) -> Queue:
    """Return the queue of training jobs; it makes and reads jobs as JSON, for everybody."""
    return Queue(QUEUE, connection=client, job_class=TrainingJob, serializer="json")


def find(client: Redis, job_id: str) -> TrainingJob | None:
    """Return a job; None when there is none of this id, or its record is damaged."""
    try:
        return cast(TrainingJob | None, queue_of(client).fetch_job(job_id))
    except ValueError:  # it can be no job's id
        return None
