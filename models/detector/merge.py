"""Merge a detector's candidates into one box for each face. Pure; no candidates in, no faces out.

A detector finds each face several times, in neighbouring cells, and in each pass if it has several. The best of those
that overlap gives the score; the box is the mean of those that agree with it, which is more accurate than any single
one.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from pipeline.vision.arrays import Floats
from pipeline.vision.boxes import iou

# Two boxes that overlap by more (intersection over union) are one face; the default of OpenCV's FaceDetectorYN.
SAME_FACE_IOU = 0.3
# Candidates that overlap a face's best one by at least this much are averaged into its box.
AGREEING_IOU = 0.5
# Only this many of the highest-scoring candidates are kept.
TOP_K = 5000


def merge_candidates(boxes: Floats, scores: Floats, max_faces: int) -> tuple[Floats, Floats, int]:
    """Merge candidates into faces.

    Args:
        boxes: float32 n x 4, x1, y1, x2, y2, none empty; n may be 0.
        scores: float32 n, above 0.
        max_faces: how many faces to return.

    Returns:
        boxes float32 m x 4 and scores float32 m, best first, m at most max_faces; and how many more faces there were.
    """
    if len(boxes) == 0:
        return boxes, scores, 0
    top = np.argsort(-scores, kind="stable")[:TOP_K]
    boxes, scores = boxes[top], scores[top]
    corner_and_size = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    suppress: Any = cv2.dnn.NMSBoxes  # accepts arrays, which its type stub does not say
    found = np.asarray(suppress(corner_and_size, scores, 0.0, SAME_FACE_IOU), np.intp).reshape(-1)
    faces = found[:max_faces]
    votes = np.where(iou(boxes[faces], boxes) >= AGREEING_IOU, scores, 0).astype(np.float64)
    means = votes @ boxes / votes.sum(axis=1, keepdims=True)
    return means.astype(np.float32), scores[faces], len(found) - len(faces)
