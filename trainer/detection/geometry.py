"""How annotators draw boxes, compared with the published detector: pairs of boxes in, a rule to convert them out. Pure.

Data sets differ: those of face-mask-detection are an eighth of a face's height lower than YuNet's, those of ilc-1750 a
sixteenth. A network that is trained on both as they are learns neither, so boxes are converted to one geometry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.vision.arrays import Floats
from pipeline.vision.boxes import iou

# A pair of boxes shows the same face from this intersection over union on; an eighth lower is 0.78.
SAME_FACE_IOU = 0.5
MIN_PAIRS = 20  # a rule from fewer would describe these faces rather than the data set
MIN_SIDE_PX = 12  # boxes of smaller faces are rounded to pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxGeometry:
    """A rule from the published detector's box to the one that an annotator draws around the same face.

    right, down: of the centre, as shares of the box's width and height. wider, higher: factors of its sides.
    """

    right: float = 0.0
    down: float = 0.0
    wider: float = 1.0
    higher: float = 1.0

    def from_published(self, boxes: Floats) -> Floats:
        """Convert the published detector's boxes (n x 4) to the annotator's."""
        sides = boxes[:, 2:] - boxes[:, :2]
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + sides * np.array([self.right, self.down], np.float32)
        halves = sides * np.array([self.wider, self.higher], np.float32) / 2
        return np.concatenate([centres - halves, centres + halves], axis=1)

    def to_published(self, boxes: Floats) -> Floats:
        """Convert an annotator's boxes (n x 4) to the published detector's."""
        sides = (boxes[:, 2:] - boxes[:, :2]) / np.array([self.wider, self.higher], np.float32)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2 - sides * np.array([self.right, self.down], np.float32)
        return np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)


def measure_geometry(published: Floats, annotated: Floats) -> BoxGeometry | None:
    """Return the median rule of pairs of boxes (both n x 4, of the same faces); None if there are too few."""
    is_clear = (published[:, 2:] - published[:, :2]).min(axis=1, initial=np.inf) >= MIN_SIDE_PX
    if is_clear.sum() < MIN_PAIRS:
        return None
    boxes, drawn = published[is_clear], annotated[is_clear]
    sides, drawn_sides = boxes[:, 2:] - boxes[:, :2], drawn[:, 2:] - drawn[:, :2]
    shifts = (drawn[:, :2] + drawn[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2 / sides
    right, down = np.median(shifts, axis=0).tolist()
    wider, higher = np.median(drawn_sides / sides, axis=0).tolist()
    return BoxGeometry(right=right, down=down, wider=wider, higher=higher)


def pair_boxes(first: Floats, second: Floats) -> NDArray[np.intp]:
    """Return index pairs (p x 2) of boxes that show the same face: each is the best for the other."""
    if len(first) == 0 or len(second) == 0:
        return np.empty((0, 2), np.intp)
    overlaps = iou(first, second)
    best = overlaps.argmax(axis=1)
    indices = np.arange(len(first))
    is_pair = (overlaps.argmax(axis=0)[best] == indices) & (overlaps[indices, best] >= SAME_FACE_IOU)
    return np.stack([indices[is_pair], best[is_pair]], axis=1)
