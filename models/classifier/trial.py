"""Load a classifier and try it on a few crops before it serves: a model folder in, a classifier that answers out.

A file that is what its card says may still hold something else than a classifier: whatever keeps it from giving one
probability for each crop raises ModelUnusable.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.classifier import mask_classifier
from models.classifier.card import RESTORE
from models.classifier.mask_classifier import Floats, MaskClassifier, Pixels, Runtime
from models.files import ModelUnusable

# One crop, and as many as show that the batch is free.
TRIED_COUNTS = (1, 4)


def load_tried(folder: Path, runtime: Runtime = "auto", threads: int = 1) -> MaskClassifier:
    """Load a classifier (see mask_classifier.load) and make sure that it answers.

    Raises:
        ModelUnusable: a file is missing, damaged or no such network, or its answers are no probabilities.
    """
    try:
        classifier = mask_classifier.load(folder, runtime, threads)
        answers = [classifier.mask_probability(_crops(count, classifier.card.size_px)) for count in TRIED_COUNTS]
    except ModelUnusable:
        raise
    except Exception as error:  # each runtime has errors of its own for a file that is no network
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelUnusable(f"{folder} holds no classifier that runs ({reason}): {RESTORE}") from error
    for count, answer in zip(TRIED_COUNTS, answers, strict=True):
        if wrong := _wrong(answer, count):
            raise ModelUnusable(f"{folder} holds no classifier of masks: {wrong}; {RESTORE}")
    return classifier


def _wrong(answer: Floats, count: int) -> str | None:
    if answer.shape != (count,):
        return f"it gives {answer.size} numbers for {count} faces"
    if not np.isfinite(answer).all():
        return "it gives numbers that are none (NaN or infinite)"
    if answer.min() < 0 or answer.max() > 1:
        return f"it gives {answer.min():.3g} to {answer.max():.3g}, no probabilities"
    return None


def _crops(count: int, size_px: int) -> Pixels:
    """Return crops to try a network on: noise, the last one white."""
    crops = np.random.default_rng(0).integers(0, 256, (count, size_px, size_px, 3), np.uint8)
    crops[-1] = 255
    return crops
