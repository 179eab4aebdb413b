"""Make one box for each face of the many that a detector proposes: candidates in, faces out. Pure; none in, none out.

A detector proposes each face several times, from neighbouring cells and from each look at the frame. The best of those
that overlap gives the score; the box is the mean of those that agree with it, which lies better than any one of them.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.vision.boxes import iou

Floats = NDArray[np.float32]

# Two boxes that overlap by more (intersection over union) are one face; the default of OpenCV's FaceDetectorYN.
SAME_FACE_IOU = 0.3
# A candidate that overlaps a face's best one by at least this much has a say in where the box lies.
AGREEING_IOU = 0.5
# The candidates with the highest scores that are looked at.
TOP_K = 5000


def merge(boxes: Floats, scores: Floats, at_most: int) -> tuple[Floats, Floats, int]:
    """Merge candidates into faces.

    Args:
        boxes: float32 n x 4, x1, y1, x2, y2, none empty; n may be 0.
        scores: float32 n, above 0.
        at_most: the faces to return.

    Returns:
        boxes float32 m x 4 and scores float32 m, best first, m at most at_most; and how many more faces there were.
    """
    if len(boxes) == 0:
        return boxes, scores, 0
    top = np.argsort(-scores, kind="stable")[:TOP_K]
    boxes, scores = boxes[top], scores[top]
    corner_and_size = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    suppress: Any = cv2.dnn.NMSBoxes  # takes arrays too, though its stub says lists
    found = np.asarray(suppress(corner_and_size, scores, 0.0, SAME_FACE_IOU), np.intp).reshape(-1)
    faces = found[:at_most]
    votes = np.where(iou(boxes[faces], boxes) >= AGREEING_IOU, scores, 0).astype(np.float64)
    means = votes @ boxes / votes.sum(axis=1, keepdims=True)
    return means.astype(np.float32), scores[faces], len(found) - len(faces)
