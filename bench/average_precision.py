"""Average precision of labelled faces: predictions and annotated faces by image in, average precision out. Pure.

Predictions of each label are ranked by face score times confidence; average precision is the area under the monotonic
precision-recall curve (all points). Faces whose mask is worn incorrectly are neither hit nor miss. Images that are in
only one of the inputs, and a label without annotated faces, raise ValueError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.vision.boxes import iou
from pipeline.vision.faces import LABELS, Face, Label
from trainer.data.annotations import AnnotatedFace

MIN_IOU = 0.5  # intersection over union from which a prediction matches a face


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Average precision of each label, 0 to 1, and its number of annotated faces."""

    average_precision: dict[Label, float]
    faces: dict[Label, int]

    @property
    def mean(self) -> float:
        """The mean over the labels."""
        return sum(self.average_precision.values()) / len(self.average_precision)


def mean_average_precision(
    truth: Mapping[str, Sequence[AnnotatedFace]],
    predictions: Mapping[str, Sequence[Face]],
    *,
    min_side_px: float = 0.0,
) -> Accuracy:
    """Compare predictions with annotations.

    Args:
        truth: the annotated faces by image.
        predictions: the labelled faces by image.
        min_side_px: annotated faces with a smaller shorter side are neither hit nor miss, nor are unmatched predictions
            of that size.

    Raises:
        ValueError: the images differ, or a label has no annotated face.
    """
    if truth.keys() != predictions.keys():
        missing, extra = truth.keys() - predictions.keys(), predictions.keys() - truth.keys()
        raise ValueError(
            f"images differ: {len(missing)} annotated but not labelled {sorted(missing)[:3]}, "
            f"{len(extra)} labelled but not annotated {sorted(extra)[:3]}"
        )
    precision, faces = {}, {}
    for label in LABELS:
        outcomes = [
            outcome for name in truth for outcome in _outcomes(truth[name], predictions[name], label, min_side_px)
        ]
        faces[label] = sum(_counts(face, label, min_side_px) for found in truth.values() for face in found)
        if faces[label] == 0:
            raise ValueError(f"no annotated face is labelled {label}: there is nothing to measure")
        precision[label] = _average_precision(outcomes, faces[label])
    return Accuracy(average_precision=precision, faces=faces)


def _outcomes(
    truth: Sequence[AnnotatedFace],
    predictions: Sequence[Face],
    label: Label,
    min_side_px: float,
) -> Iterator[tuple[float, bool]]:
    """Match one image's predictions of a label, best first; yield (rank, hit) of those that count."""
    expected = [face.box for face in truth if _counts(face, label, min_side_px)]
    # an unmatched prediction on one of these is not a false positive; one on a face of the other label is
    ignored = [
        face.box
        for face in truth
        if face.worn == "incorrect" or (face.worn == label and not _counts(face, label, min_side_px))
    ]
    for prediction in sorted(predictions, key=_rank, reverse=True):
        if prediction.label != label:
            continue
        overlaps = iou([prediction.box], expected)[0]
        if expected and overlaps.max() >= MIN_IOU:
            expected.pop(int(overlaps.argmax()))
            yield _rank(prediction), True
        elif not (iou([prediction.box], ignored) >= MIN_IOU).any() and _side(prediction.box) >= min_side_px:
            yield _rank(prediction), False


def _average_precision(outcomes: Sequence[tuple[float, bool]], faces: int) -> float:
    """Integrate precision over recall, from (rank, hit) of each prediction that counts."""
    if not outcomes:
        return 0.0
    order = np.argsort([-rank for rank, _ in outcomes], kind="stable")
    hits = np.array([hit for _, hit in outcomes])[order]
    found = np.cumsum(hits)
    precision: NDArray[np.float64] = found / np.arange(1, len(hits) + 1)
    best_from_here_on = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_from_here_on[hits].sum() / faces)


def _counts(face: AnnotatedFace, label: Label, min_side_px: float) -> bool:
    return face.worn == label and _side(face.box) >= min_side_px


def _rank(prediction: Face) -> float:
    return prediction.score * prediction.confidence


def _side(box: Sequence[float]) -> float:
    return min(box[2] - box[0], box[3] - box[1])
