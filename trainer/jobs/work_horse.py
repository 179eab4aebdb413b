"""Do one training job: a spec in, a run folder and its registered version out.

This runs in a trainer's work horse, the process that trains. Keras is imported here and not in the parent, so that a
job that runs out of memory or crashes ends nothing else. The progress is written to the job's meta. An exception ends
the attempt (failures.py decides whether there is another). Redis may be away while the horse trains.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import redis
from redis.client import Pipeline
from rq.job import JobStatus

from models.card import CARD_NAME, read_card_header
from models.files import ModelUnusable
from models.registry.registry import RegistryError, register, register_command
from pipeline.bus.clock import Clock
from pipeline.bus.connection import hide_password
from trainer.checks import check_registry, plan_training
from trainer.jobs.job_spec import JobResult, TrainingJob
from trainer.settings import TrainSettings

if TYPE_CHECKING:
    from trainer.fitting.progress import Progress

log = logging.getLogger(__name__)

PROGRESS_RETRY_INTERVAL_S = 10.0  # pause after Redis has rejected the progress: training does not wait for Redis
FINAL_RETRY_INTERVAL_S = 1.0  # the same pause once the training has ended


def perform(job: TrainingJob, default_registry: str | None) -> dict[str, Any]:
    """Do a job; every job names this function. default_registry: for jobs that name none."""
    spec = job.spec
    progress = ProgressWriter(job)
    result = train_and_register(spec.settings, spec.models or default_registry, progress, job=job.id)
    progress.flush()
    return cast(dict[str, Any], msgspec.to_builtins(result))


def train_and_register(
    settings: TrainSettings, models: str | None, report: Callable[[Progress], None], *, job: str = ""
) -> JobResult:
    """Train, and add the model to a registry if one is named; settings and registry are checked first.

    Args:
        models: the registry, a folder or URL.
        report: see trainer.train.
        job: the ID of the job. A model that an earlier attempt at it has finished is registered without training.

    Raises:
        ValueError: settings or a data set that cannot be used, or a folder that holds another model.
        ModelUnusable: a model's file that cannot be used; StoreFailed when the registry cannot be reached or written.
    """
    out = Path(settings.out)
    if not (job and _is_finished(out, job)):
        if models is not None:
            check_registry(models, settings.out)
        plan = plan_training(settings)
        from trainer.train import train  # after the checks, because TensorFlow takes seconds to import

        train(plan, report, job=job)
    if models is not None:
        _register(models, out)
    return JobResult(folder=str(out), version=read_card_header(out).version, registered_at=models)


def _is_finished(out: Path, job: str) -> bool:
    """Return whether an earlier attempt at a job has finished its model; raise ValueError for another run's model."""
    if not (out / CARD_NAME).exists():
        return False
    card = read_card_header(out)
    if card.job != job:
        raise ValueError(
            f"{out} holds a model that this job has not trained ({card.version}): choose another folder with --out"
        )
    return True


def _register(models: str, out: Path) -> None:
    try:
        register(models, out)
    except (RegistryError, ModelUnusable) as error:
        line = register_command(hide_password(models), out)
        raise type(error)(f"the model in {out} is complete, `{line}` adds it: {error}") from error


class ProgressWriter:
    """Write progress into a job's meta; after an error of Redis, pause for PROGRESS_RETRY_INTERVAL_S."""

    def __init__(self, job: TrainingJob) -> None:
        """Write the progress of this job."""
        self._job = job
        self._clock = Clock(job.connection)
        self._not_before = 0.0

    def __call__(self, progress: Progress) -> None:
        """Write the progress; figures that it lacks keep their earlier values."""
        self._job.meta |= {
            name: value
            for name, value in msgspec.structs.asdict(progress).items()
            if value is not None and math.isfinite(value)  # JSON has no infinity
        }
        if time.monotonic() >= self._not_before and not self._write():
            self._not_before = time.monotonic() + PROGRESS_RETRY_INTERVAL_S

    def flush(self) -> None:
        """Write the progress, and wait until Redis accepts it: the training is not lost if Redis is away at its end."""
        while not self._write():
            time.sleep(FINAL_RETRY_INTERVAL_S)

    def _write(self) -> bool:
        try:
            self._job.meta["updated_at"] = self._clock.now()
            self._job.connection.transaction(self._save, self._job.key)
        except redis.RedisError:
            return False
        return True

    def _save(self, pipe: Pipeline) -> None:
        """Save the meta unless the job is another trainer's by now, which has noted why in it."""
        job = self._job
        status, worker_name = cast(list[bytes | None], pipe.hmget(job.key, "status", "worker_name"))
        pipe.multi()
        if status == JobStatus.STARTED.encode() and worker_name == str(job.worker_name).encode():
            pipe.hset(job.key, "meta", job.serializer.dumps(job.meta))
