"""The paths in a training run's settings: as a user gave them in, absolute ones out. Nothing is looked at."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pipeline.vision.faces import LABELS
from trainer.settings import IMAGENET, RANDOM, TrainSettings


def absolute(settings: TrainSettings) -> TrainSettings:
    """Return settings whose paths mean the same in every working folder."""
    weights = settings.weights
    return msgspec.structs.replace(
        settings,
        datasets=tuple(map(absolute_dataset, settings.datasets)),
        tests=tuple(map(absolute_dataset, settings.tests)),
        validation=settings.validation and absolute_dataset(settings.validation),
        weights=weights if weights in (None, IMAGENET, RANDOM) else str(Path(str(weights)).absolute()),
        out=str(Path(settings.out).absolute()),
    )


def absolute_dataset(text: str) -> str:
    """Return a data set's name, PATH or LABEL=PATH, with an absolute path."""
    label, equals, path = text.partition("=")
    if equals and label in LABELS:
        return f"{label}={Path(path).absolute()}"
    return str(Path(text).absolute())


def absolute_place(place: str | None) -> str | None:
    """Return a registry's place, a path or URL, with an absolute path."""
    return place if place is None or "://" in place else str(Path(place).absolute())
