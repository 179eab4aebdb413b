"""How annotators draw boxes, compared with the published detector: pairs of boxes in, a rule to convert them out. Pure.

Data sets differ: those of face-mask-detection are an eighth of a face's height lower than YuNet's, those of ilc-1750 a
sixteenth. A network that is trained on both as they are learns neither, so boxes are converted to one geometry.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.detector.card import OutlineGeometry
from pipeline.vision.arrays import Floats
from pipeline.vision.boxes import iou

# A pair of boxes shows the same face from this intersection over union on; an eighth lower is 0.78.
SAME_FACE_IOU = 0.5
MIN_PAIRS = 20  # a rule from fewer would describe these faces rather than the data set
MIN_SIDE_PX = 12  # boxes of smaller faces are rounded to pixels


def measure_geometry(published: Floats, annotated: Floats) -> OutlineGeometry | None:
    """Return the median rule of pairs of boxes (both n x 4, of the same faces); None if there are too few."""
    is_clear = (published[:, 2:] - published[:, :2]).min(axis=1, initial=np.inf) >= MIN_SIDE_PX
    if is_clear.sum() < MIN_PAIRS:
        return None
    boxes, drawn = published[is_clear], annotated[is_clear]
    sides, drawn_sides = boxes[:, 2:] - boxes[:, :2], drawn[:, 2:] - drawn[:, :2]
    shifts = (drawn[:, :2] + drawn[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2 / sides
    right, down = np.median(shifts, axis=0).tolist()
    wider, higher = np.median(drawn_sides / sides, axis=0).tolist()
    return OutlineGeometry(right=right, down=down, wider=wider, higher=higher)


def pair_boxes(first: Floats, second: Floats) -> NDArray[np.intp]:
    """Return index pairs (p x 2) of boxes that show the same face: each is the best for the other."""
    if len(first) == 0 or len(second) == 0:
        return np.empty((0, 2), np.intp)
    overlaps = iou(first, second)
    best = overlaps.argmax(axis=1)
    indices = np.arange(len(first))
    is_pair = (overlaps.argmax(axis=0)[best] == indices) & (overlaps[indices, best] >= SAME_FACE_IOU)
    return np.stack([indices[is_pair], best[is_pair]], axis=1)
