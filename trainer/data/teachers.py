"""Ask trained classifiers about augmented crops: crops in, the mean of their probabilities of a mask out.

A network that is taught learns from this answer as well as from the label (knowledge distillation, Hinton, Vinyals and
Dean 2015): how sure the teachers are of each of many views of a face says more than one bit. They are asked about the
crop that the network sees, in colour even if the network sees it grey. So they must have been trained on crops with the
same margin; another size is resized.
A model folder that is missing, damaged or fails its self-test raises ModelUnusable, a later failure of the runtime
ClassifierFailed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.classifier.mask_classifier import MaskClassifier
from models.classifier.self_test import load_with_self_test
from pipeline.vision.arrays import Floats, Image

THREADS = 1  # of each teacher: the others are busy with the network that is taught


class Teachers:
    """One or more trained classifiers, loaded from their model folders. One thread at a time may ask them."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._classifiers: list[MaskClassifier] = [
            load_with_self_test(Path(folder), "onnx", threads=THREADS) for folder in folders
        ]

    def mask_probability(self, crops: Image) -> Floats:
        """Return the mean of the teachers' probabilities of a mask, float32 n, 0..1, for uint8 n x S x S x 3 RGB."""
        answers = [classifier.mask_probability(crops) for classifier in self._classifiers]
        mean: Floats = np.mean(answers, axis=0, dtype=np.float32)
        return mean
