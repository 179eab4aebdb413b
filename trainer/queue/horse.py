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

from models.card import CARD_NAME, read_card
from models.registry import register
from pipeline.process import Clock
from trainer.queue.order import Outcome, TrainingJob
from trainer.settings import TrainSettings

if TYPE_CHECKING:
    from trainer.progress import Progress

log = logging.getLogger(__name__)

AGAIN_S = 10.0  # a Redis that did not take the progress is left alone for so long: training does not wait for it
ENDS_S = 1.0  # ... and for so long once the training is done


def perform(_order: dict[str, Any]) -> dict[str, Any]:
    """Do the job that this process was forked for; the one function that a job may name."""
    job = cast(TrainingJob, get_current_job())
    order = job.order
    teller = Teller(job)
    outcome = train_and_register(
        order.settings, order.models or job.models, teller, finished_is_ours=job.meta["attempt"] > 1
    )
    teller.end()
    return cast(dict[str, Any], msgspec.to_builtins(outcome))


def train_and_register(
    settings: TrainSettings, models: str | None, report: Callable[[Progress], None], *, finished_is_ours: bool = False
) -> Outcome:
    """Train, and add the model to a registry if one is named.

    Args:
        finished_is_ours: a run folder that holds a model holds that of an earlier attempt at this very job.

    Raises:
        ValueError: settings or a data set that cannot be used.
        ModelUnusable: a model's file that cannot be used; StoreFailed when the registry cannot be reached.
    """
    from trainer.train import train

    out = Path(settings.out)
    if not (finished_is_ours and (out / CARD_NAME).exists()):
        out = train(settings, report)
    if models is not None:
        register(models, out)
    return Outcome(folder=str(out), version=read_card(out).version, registered_at=models)


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
