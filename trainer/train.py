"""Train a mask classifier or a face detector: data sets in, a model folder out.

    from trainer.checks import plan_training
    from trainer.settings import TrainSettings
    from trainer.train import train
    train(plan_training(TrainSettings(datasets=("face-mask-12k/Train",), out="runs/first")), report=print)

The model folder gets classifier.keras, classifier.onnx (float), classifier.int8.onnx (what CPUs serve), manifest.jsonl
(the split of each face), report/ and, last, card.json; trainer/detection/train_detector.py describes that of a
detector. Until then it holds a checkpoint, from which train() with the same settings continues after any interruption;
a lock keeps other runs out.
DatasetUnusable (data sets), ValueError (settings, checkpoint), ModelUnusable (the face detector's file, the weights to
start from, a teacher) and ClassifierFailed (a teacher) end it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from trainer.checks import TrainingPlan, check_is_new
from trainer.data.annotations import DatasetUnusable
from trainer.data.prepare import TOO_FEW_TO_VALIDATE, PreparedData, prepare_data
from trainer.data.teachers import Teachers
from trainer.detection.train_detector import train_detector
from trainer.fitting.checkpoint import Checkpoint, RunOrigin
from trainer.fitting.fit import fit
from trainer.fitting.progress import Progress
from trainer.fitting.repeatable import make_repeatable
from trainer.fitting.run_folder import locked_folder
from trainer.model_folder import write_model_folder
from trainer.networks.architectures import build_network
from trainer.reports.findings import Epoch
from trainer.settings import RANDOM, is_detector

log = logging.getLogger(__name__)


def train(plan: TrainingPlan, report: Callable[[Progress], None], *, job: str = "") -> Path:
    """Train, export, measure; return the model folder.

    Args:
        plan: see plan_training().
        report: gets a Progress about once a second and at each epoch's end; what it raises ends the training.
        job: the ID of the training job, for the card; empty when there is none.
    """
    with locked_folder(plan.out):
        check_is_new(plan.settings)  # again, under the lock: another run may have finished since the plan was made
        if is_detector(plan.settings.arch):
            train_detector(plan, report, job)
        else:
            _run(plan, Checkpoint(plan.out, Epoch), report, job)
    return plan.out


def _run(plan: TrainingPlan, checkpoint: Checkpoint[Epoch], report: Callable[[Progress], None], job: str) -> None:
    settings, recipe = plan.settings, plan.recipe
    make_repeatable(settings.seed, settings.threads)
    # Before the data, because missing weights or teachers end the run; a checkpoint has weights of its own.
    teachers = Teachers(settings.teachers) if settings.teachers else None
    network = build_network(settings.arch, recipe.size_px, weights=RANDOM if checkpoint.record else recipe.weights)
    prepared = _prepared(plan)
    origin = RunOrigin(arch=settings.arch, recipe=recipe, seed=settings.seed, data=prepared.digest)
    if epochs := checkpoint.epochs_of(origin):
        log.info("%s: continuing after epoch %d of %d", settings.out, len(epochs), recipe.epochs)
    epochs = fit(network, prepared, origin, checkpoint, report, teachers=teachers)
    write_model_folder(network, prepared, plan, epochs, job)
    checkpoint.remove()


def _prepared(plan: TrainingPlan) -> PreparedData:
    prepared = prepare_data(
        plan.training,
        tests=plan.tests,
        validation=plan.validation,
        size_px=plan.recipe.size_px,
        margin=plan.recipe.margin,
        seed=plan.settings.seed,
        leave_out_copies=plan.settings.leave_out_copies,
        leave_out=plan.left_out,
        hold_back=plan.held_back,
        trained_on=plan.trained_on,
    )
    if len(prepared.validation) == 0:
        raise DatasetUnusable(TOO_FEW_TO_VALIDATE)
    return prepared
