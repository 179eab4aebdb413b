"""Load a classifier for a worker: a model folder in; a classifier that is warmed up and its batcher out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.card import RESTORE
from models.classifier.mask_classifier import ClassifierFailed, MaskClassifier
from models.classifier.self_test import load_with_self_test
from models.files import ModelUnusable
from pipeline.runtime.settings import Settings
from workers.batcher import Batcher

WARM_UP_CROPS = (1, 8, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmClassifier:
    """A classifier that is warmed up, and a batcher that knows its speed."""

    classifier: MaskClassifier
    batcher: Batcher


def load_warm(settings: Settings, folder: Path) -> WarmClassifier:
    """Load a classifier as the settings say; raise ModelUnusable if it is missing, damaged or fails."""
    classifier = load_with_self_test(folder, settings.runtime, settings.threads)
    batcher = Batcher(settings.max_batch or classifier.max_batch, settings.max_wait_ms / 1000)
    try:
        warm_up(classifier, batcher)
    except ClassifierFailed as error:  # a batch larger than those of the self-test
        raise ModelUnusable(f"{folder} holds no classifier that runs ({error}): {RESTORE}") from error
    return WarmClassifier(classifier=classifier, batcher=batcher)


def warm_up(classifier: MaskClassifier, batcher: Batcher) -> None:
    """Run the model before the first real crop, and measure its speed."""
    size = classifier.card.size_px
    for count in WARM_UP_CROPS:
        before = time.monotonic()
        classifier.mask_probability(np.zeros((count, size, size, 3), np.uint8))
    batcher.learn_call(WARM_UP_CROPS[-1], time.monotonic() - before)
