"""Measure a detector: annotated and found boxes of pictures in, precision, recall and average precision out. Pure.

A found box is a hit if its intersection over union with a face is at least MIN_IOU, each face once, best scores first.
All faces are one class. Faces whose mask is worn incorrectly are neither hit nor miss, as for labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.vision.arrays import Floats
from pipeline.vision.boxes import iou
from trainer.detection.pictures import MeasuredPicture

MIN_IOU = 0.5
SERVED_SCORE = 0.4  # from which on a worker takes a box for a face
GOOD_PRECISION = 0.95
# Ranges of the shorter side of a face's box in pixels of its picture, by name.
SIZES = {
    "": (0.0, np.inf),
    "_16px": (16.0, np.inf),
    "_below_16px": (0.0, 16.0),
    "_16_to_32px": (16.0, 32.0),
    "_32_to_96px": (32.0, 96.0),
    "_from_96px": (96.0, np.inf),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundBoxes:
    """The boxes (float32 n x 4) that a detector found in a picture, best first, and their scores (float32 n)."""

    boxes: Floats
    scores: Floats


def detection_figures(pictures: Sequence[MeasuredPicture], found: Sequence[FoundBoxes]) -> dict[str, float]:
    """Return a set's figures by name, for each range of SIZES in which there are faces.

    pictures; for each range, with its name added, faces, ap (average precision), precision and recall at SERVED_SCORE,
    and recall_at_95 (the highest recall with a precision of at least GOOD_PRECISION); recall_mask and recall_no_mask at
    SERVED_SCORE, because average precision hides if few bare faces among many masked ones are lost.
    """
    figures: dict[str, float] = {"pictures": len(pictures)}
    for name, (low, high) in SIZES.items():
        outcomes = [
            outcome
            for picture, boxes in zip(pictures, found, strict=True)
            for outcome in match_boxes(picture, boxes, low, high)
        ]
        faces = sum(int(_is_within(picture.boxes, low, high).sum()) for picture in pictures)
        if faces:
            scores, hits = (np.array([outcome[column] for outcome in outcomes]) for column in (0, 1))
            figures |= {f"{key}{name}": value for key, value in _figures(scores, hits.astype(bool), faces).items()}
    return figures | _recall_by_label(pictures, found)


def match_boxes(
    picture: MeasuredPicture, found: FoundBoxes, low_px: float, high_px: float
) -> Iterator[tuple[float, bool]]:
    """Match the boxes found in a picture with its faces; yield (score, whether it is a hit) of those that count.

    Faces with a shorter side outside low_px..high_px are neither hit nor miss, nor are unmatched boxes of such sizes.
    """
    counts = _is_within(picture.boxes, low_px, high_px)
    expected = list(picture.boxes[counts])
    neither = np.concatenate([picture.neither, picture.boxes[~counts]])
    for box, score in zip(found.boxes, found.scores.tolist(), strict=True):
        overlaps = iou(box, expected)[0] if expected else np.zeros(1)
        if overlaps.max() >= MIN_IOU:
            expected.pop(int(overlaps.argmax()))
            yield score, True
        elif not (iou(box, neither) >= MIN_IOU).any() and _is_within(box[None], low_px, high_px)[0]:
            yield score, False


def _recall_by_label(pictures: Sequence[MeasuredPicture], found: Sequence[FoundBoxes]) -> dict[str, float]:
    is_bare, is_found = [np.empty(0, bool)], [np.empty(0, bool)]
    for picture, boxes in zip(pictures, found, strict=True):
        served = boxes.boxes[boxes.scores >= SERVED_SCORE]
        is_bare.append(picture.is_bare)
        is_found.append(np.any(iou(picture.boxes, served) >= MIN_IOU, axis=1))
    bare, hits = np.concatenate(is_bare), np.concatenate(is_found)
    by_label = {"recall_mask": hits[~bare], "recall_no_mask": hits[bare]}
    return {name: float(faces.mean()) for name, faces in by_label.items() if len(faces)}


def _figures(scores: NDArray[np.float64], hits: NDArray[np.bool_], faces: int) -> dict[str, float]:
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], hits[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    recall = np.cumsum(hits) / faces
    best_from_here_on = np.maximum.accumulate(precision[::-1])[::-1]
    served = int((scores >= SERVED_SCORE).sum())
    return {
        "faces": faces,
        "ap": float(best_from_here_on[hits].sum() / faces),
        "precision": float(precision[served - 1]) if served else 1.0,
        "recall": float(recall[served - 1]) if served else 0.0,
        "recall_at_95": float(recall[precision >= GOOD_PRECISION].max(initial=0.0)),
    }


def _is_within(boxes: Floats, low_px: float, high_px: float) -> NDArray[np.bool_]:
    sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf)
    return np.asarray((sides >= low_px) & (sides < high_px))
