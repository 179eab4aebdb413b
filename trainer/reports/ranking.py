"""Measure how well scores separate two labels at any threshold: scores and truth in, curves and their areas out.

A higher score means positive; the order of faces does not matter. Both labels must occur: without one of them the
curves are not defined.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from pipeline.vision.arrays import Floats

Truth = NDArray[np.bool_]
Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The points of a curve from falling thresholds, float64 m each, and the area under it, 0..1."""

    x: Reals
    y: Reals
    area: float


def roc(scores: Floats, is_positive: Truth) -> Curve:
    """Return the true positive rate (y) over the false positive rate (x)."""
    x, y, _ = roc_curve(is_positive, scores, drop_intermediate=False)
    return Curve(x=x, y=y, area=float(roc_auc_score(is_positive, scores)))


def precision_recall(scores: Floats, is_positive: Truth) -> Curve:
    """Return precision (y) over recall (x); the area is the average precision, a sum of steps without interpolation."""
    precision, recall, _ = precision_recall_curve(is_positive, scores)
    y = precision[::-1].copy()
    y[0] = y[1]  # scikit-learn starts every curve at precision 1, which no threshold has
    return Curve(x=recall[::-1], y=y, area=float(average_precision_score(is_positive, scores)))
