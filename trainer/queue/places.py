"""The paths in a training run's settings: made absolute, and looked at, before the run is left to somebody else.

In: settings as a user gave them. Out: the same with absolute paths. What nothing can be trained with, a data set that
does not exist and a folder that holds a model already raise ValueError with one line. Nothing is decoded.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from models.card import CARD_NAME
from trainer.data.sources import read_source
from trainer.settings import IMAGENET, RANDOM, TrainSettings, recipe_of

LABELS = ("mask", "no_mask")


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


def check_run(settings: TrainSettings) -> None:
    """Look whether a run can begin.

    Raises:
        ValueError: with these settings, data sets or this folder it cannot.
    """
    recipe_of(settings)
    for text in (*settings.datasets, *settings.tests, settings.validation):
        if text is not None:
            read_source(text)
    if (Path(settings.out) / CARD_NAME).exists():
        raise ValueError(f"{settings.out} already holds a model: choose another folder with --out")
