"""Load a classifier and run it on a few crops before it serves: a model folder in, a working classifier out.

A file with the right hash may still be something else than a classifier: a network that does not return one probability
for each crop raises ModelUnusable. So does one that no GPU could run, when it is to become current.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.card import RESTORE
from models.classifier import mask_classifier
from models.classifier.card import INT8_NAME
from models.classifier.mask_classifier import ClassifierFailed, MaskClassifier, converted_failures
from models.classifier.runtime_choice import Runtime, this_machine
from models.files import ModelUnusable
from pipeline.vision.arrays import Floats

# One crop, and several: the network must accept any batch size.
BATCH_SIZES = (1, 4)


def load_with_self_test(folder: Path, runtime: Runtime = "auto", threads: int = 1) -> MaskClassifier:
    """Load a classifier (see load_classifier()) and check its answers."""
    try:
        classifier = mask_classifier.load_classifier(folder, runtime, threads)
        size_px = classifier.card.size_px
        crops = np.random.default_rng(0).integers(0, 256, (max(BATCH_SIZES), size_px, size_px, 3), np.uint8)
        crops[-1] = 255  # noise, and one white crop
        answers = [classifier.mask_probability(crops[-count:]) for count in BATCH_SIZES]
    except ClassifierFailed as error:
        raise ModelUnusable(f"{folder} holds no classifier that runs ({str(error)[:200]}): {RESTORE}") from error
    for count, answer in zip(BATCH_SIZES, answers, strict=True):
        if fault := _fault(answer, count):
            raise ModelUnusable(f"{folder} holds no classifier of masks: {fault}; {RESTORE}")
    return classifier


def check_for_gpu(folder: Path) -> None:
    """Raise ModelUnusable if a classifier's network cannot be turned into the one that runs on a GPU.

    This needs the package onnx; where it is not installed, nothing is checked.
    """
    if not this_machine().has_onnx:
        return
    from models.classifier.float_graph import to_float

    path = folder / INT8_NAME
    try:
        with converted_failures():
            to_float(path.read_bytes(), str(path), np.float16)
    except ClassifierFailed as error:
        raise ModelUnusable(f"{path} cannot be turned into a float network ({str(error)[:200]}): {RESTORE}") from error


def _fault(answer: Floats, count: int) -> str | None:
    if answer.shape != (count,):
        return f"it gives {answer.size} numbers for {count} faces"
    if not np.isfinite(answer).all():
        return "it gives NaN or infinite numbers"
    if answer.min() < 0 or answer.max() > 1:
        return f"it gives {answer.min():.3g} to {answer.max():.3g}, which are not probabilities"
    return None
