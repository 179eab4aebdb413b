"""Overlaps of boxes: intersection over union, and pairs that overlap most. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.vision.faces import Box


def iou(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Return the intersection over union of each pair of boxes.

    Args:
        first: n x 4, x1, y1, x2, y2; n may be 0.
        second: m x 4.

    Returns:
        float64 n x m, 0 to 1; 0 where both boxes are empty.
    """
    a = np.asarray(first, np.float64).reshape(-1, 1, 4)
    b = np.asarray(second, np.float64).reshape(1, -1, 4)
    overlap = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    intersection = np.prod(np.maximum(overlap, 0), axis=-1)
    union = _areas(a) + _areas(b) - intersection
    ratio: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return ratio


def pairs_by_overlap(first: Sequence[Box], second: Sequence[Box], min_iou: float) -> list[tuple[int, int]]:
    """Pair each box of `first` with at most one of `second`, the largest overlap first.

    min_iou: of a pair, above 0. Returns indices into `first` and `second`.
    """
    if not first or not second:
        return []
    overlaps = iou(first, second)
    pairs = []
    while overlaps.max() >= min_iou:
        one, other = (int(number) for number in np.unravel_index(overlaps.argmax(), overlaps.shape))
        pairs.append((one, other))
        overlaps[one, :] = 0
        overlaps[:, other] = 0
    return pairs


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    areas: NDArray[np.float64] = np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1)
    return areas
