"""Decide what to learn of faces that nobody has annotated: boxes in, faces and regions to ignore out. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.vision.arrays import Floats
from pipeline.vision.boxes import iou

# A face that the published detector finds with this score is one; with a lower one, it may be.
SURE_SCORE = 0.8
SUSPECTED_SCORE = 0.5
# From this intersection over union on it is the annotated face, and so is a box of which PART_SHARE is inside it: that
# shows a part of the face.
ANNOTATED_IOU = 0.3
PART_SHARE = 0.6


def label_picture(annotated: Floats, found: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Return the boxes to learn as faces and those to ignore, both float32 n x 4.

    Args:
        annotated: n x 4, n may be 0.
        found: m x 4, of the published detector, in the same geometry.
        scores: m, 0..1.
    """
    is_new = ~_is_annotated(found, annotated)
    sure, suspected = (found[is_new & where] for where in (scores >= SURE_SCORE, scores < SURE_SCORE))
    return np.concatenate([annotated, sure]), suspected


def _is_annotated(found: Floats, annotated: Floats) -> NDArray[np.bool_]:
    if len(annotated) == 0 or len(found) == 0:
        return np.zeros(len(found), bool)
    sides = np.minimum(found[:, None, 2:], annotated[None, :, 2:]) - np.maximum(
        found[:, None, :2], annotated[None, :, :2]
    )
    inside = sides.clip(0).prod(axis=-1) / (found[:, 2:] - found[:, :2]).prod(axis=-1)[:, None]
    is_same = (iou(found, annotated) >= ANNOTATED_IOU) | (inside >= PART_SHARE)
    annotated_already: NDArray[np.bool_] = is_same.any(axis=1)
    return annotated_already
