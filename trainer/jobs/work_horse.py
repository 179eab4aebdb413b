"""What runs in a trainer's work horse, the process that trains: an order in, a run folder and its version out.

Keras is imported here and not in the parent, so that a job that runs out of memory or crashes takes nothing else with
it. The progress stands in the job's meta. Whatever training raises ends the attempt (reasons.py says whether there is
another). Redis may be away while the horse trains.
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
from rq import get_current_job

from models.classifier.card import CARD_NAME, read_card
from models.files import ModelUnusable
from models.registry.registry import RegistryError, register, register_line, registry_at
from pipeline.bus.clock import Clock
from pipeline.bus.connection import hide_password
from trainer.checks import check_registry, check_settings
from trainer.jobs.job_spec import JobResult, TrainingJob
from trainer.settings import TrainSettings

if TYPE_CHECKING:
    from trainer.fitting.progress import Progress

log = logging.getLogger(__name__)

AGAIN_S = 10.0  # a Redis that did not take the progress is left alone for so long: training does not wait for it
ENDS_S = 1.0  # ... and for so long once the training is done


def perform(_order: dict[str, Any]) -> dict[str, Any]:
    """Do the job that this process was forked for; the one function that a job may name."""
    job = cast(TrainingJob, get_current_job())
    order = job.order
    teller = Teller(job)
    outcome = train_and_register(order.settings, order.models or job.models, teller, job=job.id)
    teller.end()
    return cast(dict[str, Any], msgspec.to_builtins(outcome))


def train_and_register(
    settings: TrainSettings, models: str | None, report: Callable[[Progress], None], *, job: str = ""
) -> JobResult:
    """Train, and add the model to a registry if one is named, which is looked at before.

    Args:
        settings: see trainer.train.
        models: the registry, a folder or URL.
        report: see trainer.train.
        job: the id of the job that this is done for. When its model is finished already, that is registered.

    Raises:
        ValueError: settings or a data set that cannot be used, or a folder that holds another model.
        ModelUnusable: a model's file that cannot be used; StoreFailed when the registry cannot be reached or written.
    """
    out = Path(settings.out)
    if not (job and _is_finished(out, job)):
        if models is not None:
            check_registry(models, settings.out)
            registry_at(models).check_writable()  # hours before it is needed
        check_settings(settings)  # before TensorFlow is loaded, which takes seconds
        from trainer.networks.quiet_start import load_tensorflow

        load_tensorflow()
        from trainer.train import train

        train(settings, report, job=job)
    if models is not None:
        _register(models, out)
    return JobResult(folder=str(out), version=read_card(out).version, registered_at=models)


def _is_finished(out: Path, job: str) -> bool:
    """Return whether an earlier attempt at a job has finished its model; raise ValueError for a foreign one."""
    if not (out / CARD_NAME).exists():
        return False
    card = read_card(out)
    if card.job != job:
        raise ValueError(
            f"{out} holds a model that this job has not trained ({card.version}): choose another folder with --out"
        )
    return True


def _register(models: str, out: Path) -> None:
    try:
        register(models, out)
    except (RegistryError, ModelUnusable) as error:
        line = register_line(hide_password(models), out)
        raise type(error)(f"the model lies whole in {out}, `{line}` adds it: {error}") from error


class Teller:
    """Write progress into a job's meta; a Redis that fails is left alone for a while."""

    def __init__(self, job: TrainingJob) -> None:
        """Tell of this job."""
        self._job = job
        self._clock = Clock(job.connection)
        self._not_before = 0.0

    def __call__(self, progress: Progress) -> None:
        """Tell how far the training is; what is not known just now stays as it was."""
        self._job.meta |= {
            name: value for name, value in msgspec.structs.asdict(progress).items() if _can_be_told(value)
        }
        if time.monotonic() >= self._not_before and not self._written():
            self._not_before = time.monotonic() + AGAIN_S

    def end(self) -> None:
        """Tell it once more, and wait until Redis takes it: training is not lost because Redis is away when it ends."""
        while not self._written():
            time.sleep(ENDS_S)

    def _written(self) -> bool:
        try:
            self._job.meta["updated_at"] = self._clock.now()
            self._job.save_meta()  # type: ignore[no-untyped-call]
        except redis.RedisError:
            return False
        return True


def _can_be_told(value: float | None) -> bool:
    return value is not None and math.isfinite(value)  # JSON has no other numbers
