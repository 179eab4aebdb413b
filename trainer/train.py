"""Train a mask classifier: data sets in, a model folder out.

    from trainer.train import TrainSettings, train
    train(TrainSettings(datasets=("face-mask-12k/Train",), out="runs/first"), report=print)

The model folder gets classifier.keras, classifier.onnx (float), classifier.int8.onnx (what CPUs serve), manifest.jsonl
(which face was trained on, which measured), report/ and, last, card.json. Until then it has a checkpoint, from which
train() with the same settings goes on however it was interrupted; a lock keeps other runs out.
DatasetUnusable (data sets), ValueError (settings) and ModelUnusable (the face detector's file, the weights to start
from) end it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from trainer import finish
from trainer.checks import check_data, check_is_new
from trainer.data.prepare import DatasetUnusable, Prepared, prepare
from trainer.fitting.checkpoint import Checkpoint, Origin
from trainer.fitting.fit import fit
from trainer.fitting.progress import Progress
from trainer.fitting.repeatable import make_repeatable
from trainer.fitting.run_folder import locked
from trainer.networks.architectures import build
from trainer.settings import RANDOM, Recipe, TrainSettings, recipe_of

__all__ = ["TrainSettings", "train"]

log = logging.getLogger(__name__)


def train(settings: TrainSettings, report: Callable[[Progress], None], *, job: str = "") -> Path:
    """Train, export, measure; return the model folder.

    Args:
        settings: see TrainSettings.
        report: gets a Progress every second or so, and at each epoch's end; what it raises ends the training.
        job: the id of the job that this is done for, which the card names; empty when it is done by hand.
    """
    recipe = recipe_of(settings)
    check_data(settings)
    check_is_new(settings)
    out = Path(settings.out)
    with locked(out):
        check_is_new(settings)  # again, because another run may have ended just before
        _run(settings, recipe, Checkpoint(out), report, job)
    return out


def _run(
    settings: TrainSettings, recipe: Recipe, checkpoint: Checkpoint, report: Callable[[Progress], None], job: str
) -> None:
    make_repeatable(settings.seed, settings.threads)
    # Before the data, because weights that cannot be had end the run; a checkpoint has weights of its own.
    network = build(settings.arch, recipe.size_px, weights=RANDOM if checkpoint.record else recipe.weights)
    found = _prepared(settings, recipe)
    origin = Origin(arch=settings.arch, recipe=recipe, seed=settings.seed, data=found.digest)
    if epochs := checkpoint.epochs_of(origin):
        log.info("%s: going on after epoch %d of %d", settings.out, len(epochs), recipe.epochs)
    epochs = fit(network, found, origin, checkpoint, report)
    finish.finish(network, found, settings, recipe, epochs, job)
    checkpoint.remove()


def _prepared(settings: TrainSettings, recipe: Recipe) -> Prepared:
    found = prepare(
        settings.datasets,
        tests=settings.tests,
        validation=settings.validation,
        size_px=recipe.size_px,
        margin=recipe.margin,
        seed=settings.seed,
        leave_out_copies=settings.leave_out_copies,
        say=log.warning,
    )
    if len(found.validation) == 0:
        raise DatasetUnusable(
            "there are too few pictures to keep a fifth for validation: name others with --validation"
        )
    return found
