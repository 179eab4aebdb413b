"""How well scores part two labels at any threshold: scores and truth in, curves and their areas out.

Pure numpy. A face's score is higher the more it looks positive; equal scores are taken together, so the order of faces
does not matter. Both labels must occur: without one of them a curve has no meaning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.classifier.mask_classifier import Floats

Truth = NDArray[np.bool_]
Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The points of a curve from falling thresholds, float64 m each, and the area under it, 0..1."""

    x: Reals
    y: Reals
    area: float


def roc(scores: Floats, is_positive: Truth) -> Curve:
    """Return the share of positives found (y) over the share of negatives taken for positives (x)."""
    hits, alarms = _counts(scores, is_positive)
    x = np.append(0.0, alarms / alarms[-1])
    y = np.append(0.0, hits / hits[-1])
    return Curve(x=x, y=y, area=float(np.trapezoid(y, x)))


def precision_recall(scores: Floats, is_positive: Truth) -> Curve:
    """Return precision (y) over recall (x); the area is the average precision, a sum of steps without interpolation."""
    hits, alarms = _counts(scores, is_positive)
    recall = hits / hits[-1]
    precision = hits / (hits + alarms)
    area = float(np.sum(np.diff(recall, prepend=0.0) * precision))
    return Curve(x=np.append(0.0, recall), y=np.append(precision[0], precision), area=area)


def _counts(scores: Floats, is_positive: Truth) -> tuple[Reals, Reals]:
    """Count positives and negatives at or above each distinct score, from the highest down."""
    order = np.argsort(-scores, kind="stable")
    last_of_its_value = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    hits = np.cumsum(is_positive[order])[last_of_its_value].astype(np.float64)
    return hits, last_of_its_value + 1 - hits
