"""Train a mask classifier: data folders in, a model folder out.

    from trainer.train import TrainSettings, train
    train(TrainSettings(datasets=(Path("face-mask-12k/Train"),), out=Path("runs/first")), report=print)

The model folder gets classifier.keras, classifier.onnx (float), classifier.int8.onnx (what CPUs serve) and, last,
card.json: a folder without a card is an unfinished run. Test data is looked at once, after everything is decided.
DatasetUnusable (data folders), ValueError (settings) and ModelUnusable (the face detector's file) end it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from models.card import CARD_NAME, FLOAT_NAME, INT8_NAME, KERAS_NAME, Card, write_card
from models.files import sha256_of
from models.mask_classifier import onnx_network
from trainer import dataset, export
from trainer.augment import augment
from trainer.dataset import Pictures, Sample
from trainer.evaluate import THRESHOLD, check, evaluate
from trainer.fit import LABEL_SMOOTHING, WEIGHT_DECAY, Progress, fit
from trainer.networks import ARCHITECTURES, build

# For measuring only; TensorFlow trains on all cores.
EVALUATION_THREADS = 2
# Folders of these names are parts of a data set.
SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """What to train, on what, and how.

    datasets: folders with class folders. out: the model folder to write.
    validation: chooses the best epoch; None keeps a tenth of each data set back.
    tests: measured once at the end; class folders or annotated photographs. Never trained on.
    arch: a key of ARCHITECTURES. size_px and learning_rate: None means the architecture's own.
    weights: starting weights of resnet50; None means random ones, "imagenet" needs a network, or a file.
    margin: what crops show around a face's box at each side, as a share of it. Small: the masked faces of public data
        sets come with more surroundings than the bare ones, and with a wide margin surroundings mean "mask".
    """

    datasets: tuple[Path, ...]
    out: Path
    validation: Path | None = None
    tests: tuple[Path, ...] = ()
    arch: str = "lite"
    size_px: int | None = None
    weights: str | None = None
    epochs: int = 14
    batch: int = 64
    learning_rate: float | None = None
    seed: int = 0
    margin: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """The pictures to train on and to choose the best epoch by, and how many each folder gave."""

    training: Pictures
    validation: Pictures
    counts: dict[str, int]


def train(settings: TrainSettings, report: Callable[[Progress], None]) -> Path:
    """Train, export, measure; return the model folder.

    Args:
        settings: see TrainSettings.
        report: called after each epoch.
    """
    size_px = _checked_size(settings)
    if (settings.out / CARD_NAME).exists():
        raise ValueError(f"{settings.out} already holds a model: choose another folder with --out")
    found = load_data(settings, size_px)
    settings.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(settings.seed)
    best = fit(
        build(settings.arch, size_px, weights=settings.weights),
        found.training,
        found.validation,
        settings.out / KERAS_NAME,
        epochs=settings.epochs,
        batch=settings.batch,
        seed=settings.seed,
        learning_rate=settings.learning_rate or ARCHITECTURES[settings.arch].learning_rate,
        report=report,
    )
    return finish(settings, found, best)


def load_data(settings: TrainSettings, size_px: int) -> TrainingData:
    """Read the training and validation pictures; unreadable ones are logged, one line each, and left out."""
    crop = dataset.found_face(size_px, settings.margin)
    training: list[Sample] = []
    validation: list[Sample] = []
    counts: dict[str, int] = {}
    for folder in settings.datasets:
        samples = dataset.find_samples(folder)
        kept, held_back = (samples, []) if settings.validation else dataset.split(samples, settings.seed)
        training += kept
        validation += held_back
        counts[short_name(folder)] = counts.get(short_name(folder), 0) + len(samples)
    if settings.validation:
        validation = dataset.find_samples(settings.validation)
        counts[short_name(settings.validation)] = len(validation)
    found = TrainingData(
        training=dataset.load(training, crop), validation=dataset.load(validation, crop), counts=counts
    )
    for line in found.training.unreadable + found.validation.unreadable:
        log.warning(line)
    counts["unreadable"] = len(found.training.unreadable) + len(found.validation.unreadable)
    return found


def finish(settings: TrainSettings, found: TrainingData, best: Progress) -> Path:
    """Export and measure the network that fit() left in the model folder, and write the card."""
    size_px = _checked_size(settings)
    out = settings.out
    export.to_float_onnx(out / KERAS_NAME, out / FLOAT_NAME)
    export.to_int8_onnx(out / FLOAT_NAME, out / INT8_NAME, _calibration(found.training, settings.seed))
    networks = {
        name: onnx_network((out / file).read_bytes(), EVALUATION_THREADS)
        for name, file in (("int8", INT8_NAME), ("float", FLOAT_NAME))
    }
    measured = {
        short_name(folder): evaluate(networks, folder, size_px=size_px, margin=settings.margin)
        for folder in settings.tests
    }
    files = {name: sha256_of((out / name).read_bytes()) for name in (INT8_NAME, FLOAT_NAME, KERAS_NAME)}
    card = Card(
        version=f"{settings.arch}-{files[INT8_NAME][:8]}",
        arch=settings.arch,
        size_px=size_px,
        margin=settings.margin,
        threshold=THRESHOLD,
        data=found.counts,
        settings=_for_the_card(settings),
        measured={"best_epoch": _figures_of(best)} | measured,
        files=files,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_card(out, card)
    return out


def short_name(folder: Path) -> str:
    """Name a data folder without saying where it lies: its last part, for a split its parent's too."""
    parts = folder.resolve().parts
    return "/".join(parts[-2:] if parts[-1].lower() in SPLIT_NAMES else parts[-1:])


def _checked_size(settings: TrainSettings) -> int:
    if settings.arch not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {settings.arch!r}: choose one of {', '.join(ARCHITECTURES)}")
    if not settings.datasets or settings.epochs < 1 or settings.batch < 1:
        raise ValueError("training needs a data set, and at least 1 epoch and 1 picture a batch")
    used = {folder.resolve() for folder in (*settings.datasets, settings.validation) if folder}
    for folder in settings.tests:
        if folder.resolve() in used:
            raise ValueError(f"{folder} is both trained on and tested with")
        check(folder)  # now, not after hours of training
    return settings.size_px or ARCHITECTURES[settings.arch].size_px


def _calibration(training: Pictures, seed: int) -> NDArray[np.uint8]:
    """Choose training pictures to calibrate with, half of them varied as in training: dark and distant faces too."""
    rng = np.random.default_rng([seed, 3])
    chosen = rng.permutation(len(training.labels))[: export.CALIBRATION_PICTURES]
    images, labels = training.images[chosen], training.labels[chosen]
    half = len(chosen) // 2
    return np.concatenate([images[half:], augment(images[:half], labels[:half], rng)])


def _for_the_card(settings: TrainSettings) -> dict[str, Any]:
    """Return the settings that make a difference, in types JSON has; the data folders stand in the card's counts."""
    return {
        "weights": settings.weights and Path(settings.weights).name,
        "epochs": settings.epochs,
        "batch": settings.batch,
        "learning_rate": settings.learning_rate or ARCHITECTURES[settings.arch].learning_rate,
        "weight_decay": WEIGHT_DECAY,
        "label_smoothing": LABEL_SMOOTHING,
        "seed": settings.seed,
    }


def _figures_of(best: Progress) -> dict[str, float]:
    return {
        "epoch": best.epoch,
        "validation_loss": round(best.validation_loss, 4),
        "validation_accuracy": round(best.validation_accuracy, 4),
    }
