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
        product = np.clip(outputs[f"cls_{stride}"], 0, 1) * np.clip(outputs[f"obj_{stride}"], 0, 1)
        score = np.sqrt(product.reshape(-1))
        cells = np.flatnonzero(score >= score_threshold)
        boxes.append(_boxes(outputs[f"bbox_{stride}"].reshape(-1, 4)[cells], cells, width // stride, stride))
        scores.append(score[cells])
    return np.concatenate(boxes), np.concatenate(scores)


def _boxes(offsets: Floats, cells: NDArray[np.intp], columns: int, stride: int) -> Floats:
    """Return the boxes of the given cells: float32 n x 4, x1, y1, x2, y2."""
    corner = np.stack([cells % columns, cells // columns], axis=1)
    centre = (corner + offsets[:, :2]) * stride
    half = np.exp(np.minimum(offsets[:, 2:], MAX_LOG_SIZE)) * (stride / 2)
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)
