"""Decode YuNet's raw outputs into candidates: boxes and scores, several for each face (see merge.py). Pure numpy.

YuNet has one anchor for each cell of three grids (strides 8, 16 and 32 px). The formulas are those of OpenCV's
FaceDetectorYN, so both give the same candidates.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.vision.arrays import Floats

STRIDES = (8, 16, 32)
# Height and width of YuNet's input must be multiples of its largest stride.
SIZE_MULTIPLE = STRIDES[-1]
# Logarithm of the largest box side, in cells; the output for an image of noise must not overflow.
MAX_LOG_SIZE = 10.0
ROUNDING = 0.999  # a product that rounding puts below the square of the threshold is looked at exactly
OUTPUT_NAMES = tuple(f"{kind}_{stride}" for kind in ("cls", "obj", "bbox") for stride in STRIDES)


def decode_yunet(outputs: Mapping[str, Floats], width: int, score_threshold: float) -> tuple[Floats, Floats]:
    """Decode the outputs for one image.

    Args:
        outputs: by name, cls_* and obj_* float32 1 x cells x 1 in 0..1, bbox_* float32 1 x cells x 4 (centre's offset
            from the cell in cells, logarithm of width and height in cells).
        width: of the network's input in pixels, which gives the row length of each grid.
        score_threshold: 0..1, candidates below are left out; score = sqrt(cls * obj).

    Returns:
        boxes float32 n x 4 (x1, y1, x2, y2 in pixels of the network's input) and scores float32 n, in the order of the
        cells; both empty without a face.
    """
    boxes, scores = [], []
    for stride in STRIDES:
        cls, obj = outputs[f"cls_{stride}"].reshape(-1), outputs[f"obj_{stride}"].reshape(-1)
        cells = np.flatnonzero(cls * obj >= ROUNDING * score_threshold**2)  # few of thousands: the rest is for them
        score = np.sqrt(np.clip(cls[cells], 0, 1) * np.clip(obj[cells], 0, 1))
        seen = score >= score_threshold
        cells = cells[seen]
        if len(cells):
            boxes.append(_boxes(outputs[f"bbox_{stride}"].reshape(-1, 4)[cells], cells, width // stride, stride))
            scores.append(score[seen])
    if not boxes:
        return np.empty((0, 4), np.float32), np.empty(0, np.float32)
    return np.concatenate(boxes), np.concatenate(scores)


def _boxes(offsets: Floats, cells: NDArray[np.intp], columns: int, stride: int) -> Floats:
    """Return the boxes of the given cells: float32 n x 4, x1, y1, x2, y2."""
    boxes = np.empty((len(cells), 4), np.float32)
    rows, places = np.divmod(cells, columns)
    centre = (np.stack([places, rows], axis=1) + offsets[:, :2]) * stride
    half = np.exp(np.minimum(offsets[:, 2:], MAX_LOG_SIZE)) * (stride / 2)
    boxes[:, :2], boxes[:, 2:] = centre - half, centre + half
    return boxes
