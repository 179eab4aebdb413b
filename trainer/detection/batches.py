"""Draw batches for a detector's training: pictures in; canvases and what to find on them out, batch by batch.

Each data set gets a share of the draws that grows with the cube root of its number of pictures, half of it for pictures
with a bare face: most annotated faces wear a mask, and a network would forget the others. All randomness comes from
(seed, epoch, index of the batch), so that a run that continues after an interruption gets the same batches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.vision.arrays import Image
from trainer.data.batches import SHARE_POWER
from trainer.detection.canvases import Canvas, draw_canvas
from trainer.detection.cells import find_candidates, is_covered
from trainer.detection.pictures import TrainingPicture

# How often a bare face counts: the published network knows bare faces, and most that are annotated wear a mask.
BARE_WEIGHT = 2.0
# Faces of one canvas that are learned, the largest ones; further ones are ignored.
MAX_FACES = 160
PICTURES_A_CANVAS = 4

Targets = dict[str, NDArray[Any]]


class CanvasBatches(keras.utils.PyDataset):
    """The batches of one epoch after the other; an epoch has as many canvases as there are pictures."""

    def __init__(
        self, pictures: Sequence[TrainingPicture], *, batch: int, size_px: int, seed: int, first_epoch: int = 0
    ) -> None:
        """Draw batches of canvases with a side of size_px, starting with epoch `first_epoch` (from 0)."""
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=4)
        self._pictures = pictures
        self._batch = batch
        self._size_px = size_px
        self._seed = seed
        self._epoch = first_epoch
        self._chances = drawing_chances(pictures)

    def __len__(self) -> int:
        return steps_of(self._pictures, self._batch)

    def __getitem__(self, index: int) -> tuple[Image, Targets]:
        rng = np.random.default_rng([self._seed, self._epoch, index])
        canvases = []
        for _ in range(self._batch):
            drawn = rng.choice(len(self._pictures), PICTURES_A_CANVAS, p=self._chances)
            canvases.append(draw_canvas([self._pictures[one] for one in drawn], self._size_px, rng))
        return np.stack([canvas.image for canvas in canvases]), targets_of(canvases, self._size_px)

    def on_epoch_end(self) -> None:
        """Go on to the next epoch; Keras calls it."""
        self._epoch += 1


def steps_of(pictures: Sequence[TrainingPicture], batch: int) -> int:
    """Return the number of batches of an epoch."""
    return -(-len(pictures) // batch)


def targets_of(canvases: Sequence[Canvas], size_px: int) -> Targets:
    """Return what to find on canvases, by name, as yunet_training.detection_loss() takes it."""
    one_by_one = [_targets(canvas, size_px) for canvas in canvases]
    return {name: np.stack([targets[name] for targets in one_by_one]) for name in one_by_one[0]}


def drawing_chances(pictures: Sequence[TrainingPicture]) -> NDArray[np.float64]:
    """Return the probability of each picture to be drawn, float64 n."""
    strata = [(picture.source, bool(picture.is_bare.any())) for picture in pictures]
    sources, sizes = Counter(source for source, _ in strata), Counter(strata)
    weights = np.array([sources[stratum[0]] ** SHARE_POWER / sizes[stratum] for stratum in strata])
    chances: NDArray[np.float64] = weights / weights.sum()
    return chances


def _targets(canvas: Canvas, size_px: int) -> Targets:
    largest = np.argsort(-(canvas.boxes[:, 2:] - canvas.boxes[:, :2]).prod(axis=1), kind="stable")
    boxes = canvas.boxes[largest[:MAX_FACES]]
    padded = np.zeros((MAX_FACES, 4), np.float32)
    padded[: len(boxes)] = boxes
    weights = np.ones(MAX_FACES, np.float32)
    weights[: len(boxes)] = np.where(canvas.is_bare[largest[:MAX_FACES]], BARE_WEIGHT, 1.0)
    candidates = find_candidates(padded, size_px)
    is_face = np.arange(MAX_FACES)[:, None] < len(boxes)
    return {
        "boxes": padded,
        "weights": weights,
        "cells": candidates.cells,
        "is_valid": candidates.is_valid & is_face,
        "is_inside": candidates.is_inside,
        "is_ignored": is_covered(np.concatenate([canvas.ignored, canvas.boxes[largest[MAX_FACES:]]]), size_px),
    }
