"""Calibrate probabilities: probabilities and truth in, a temperature or a calibration error out.

Pure numpy. Of faces labelled with 90 % confidence nine of ten should be correct; a temperature by which all logits are
divided achieves most of this and changes no label (Guo et al., "On Calibration of Modern Neural Networks", 2017,
section 4.2). Probabilities of 0 and 1 are clipped to EPSILON and 1 - EPSILON; no faces to fit to raise ValueError.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.classifier.mask_classifier import label_of
from pipeline.vision.arrays import Floats
from trainer.reports.shares import CorrectShare, wilson_share

Truth = NDArray[np.bool_]
Reals = NDArray[np.float64]

EPSILON = 1e-7  # about the resolution of float32 below 1
MIN_TEMPERATURE, MAX_TEMPERATURE = 1 / 16, 16.0  # beyond these the labels are wrong rather than the confidences
_BISECTIONS = 24  # for a relative precision of a millionth
BINS = 15  # of equal width over confidences 0..1 (Guo et al. 2017, section 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceBin:
    """Faces of similar confidence: the mean confidence, and the share of correct labels."""

    confidence: float
    right: CorrectShare


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """The non-empty bins, by rising confidence, and their expected calibration error (0..1)."""

    bins: tuple[ConfidenceBin, ...]
    ece: float


def fit_temperature(probabilities: Floats, has_mask: Truth) -> float:
    """Find the temperature that minimises the log loss of validation faces.

    The log loss is convex in 1 / temperature, so a bisection finds where its slope is zero. The truth is smoothed to
    Platt's targets, (n + 1) / (n + 2) for a label with n faces: otherwise, with every face labelled correctly, the
    minimum would be at absolute certainty (Platt, "Probabilistic Outputs for Support Vector Machines", 1999, section
    2.2).

    Args:
        probabilities: float32 n of a mask, for faces that were not trained on.

    Returns:
        The temperature, MIN_TEMPERATURE to MAX_TEMPERATURE: above 1 for an overconfident network.
    """
    if len(has_mask) == 0:
        raise ValueError("there are no validation faces to fit a temperature to")
    logits = _logit(probabilities)
    masked = np.count_nonzero(has_mask)
    bare = len(has_mask) - masked
    targets = np.where(has_mask, (masked + 1) / (masked + 2), 1 / (bare + 2))
    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    for _ in range(_BISECTIONS):
        factor = np.sqrt(low * high)
        slope = np.mean(logits * (_sigmoid(factor * logits) - targets))
        low, high = (factor, high) if slope < 0 else (low, factor)
    return float(1 / np.sqrt(low * high))


def at_temperature(probabilities: Floats, temperature: float) -> Floats:
    """Return probabilities after their logits were divided by `temperature`; 1/T is the inverse of T."""
    return _sigmoid(_logit(probabilities) / temperature).astype(np.float32)


def log_loss(probabilities: Floats, has_mask: Truth) -> float:
    """Return the mean binary cross-entropy, in nats, of one face or more."""
    logits = _logit(probabilities)
    return float(np.mean(np.logaddexp(0, np.where(has_mask, -logits, logits))))


def reliability(probabilities: Floats, has_mask: Truth) -> Reliability:
    """Compare a network's confidences with the share of correct labels.

    The expected calibration error is the mean distance between confidence and share of correct labels in BINS bins of
    equal width over 0..1, weighted by their faces (Guo et al. 2017, equation 3). The confidence is that of the
    predicted label, so with two labels the bins below 0.5 are empty. There must be one face or more.
    """
    labels, confidences = label_of(probabilities)
    right = (np.array(labels) == "mask") == has_mask
    indices = np.ceil(confidences * BINS).astype(int)  # a bin includes its upper edge
    bins = tuple(
        ConfidenceBin(
            confidence=float(confidences[chosen].mean(dtype=np.float64)),
            right=wilson_share(int(right[chosen].sum()), int(chosen.sum())),
        )
        for chosen in (indices == index for index in np.unique(indices))
    )
    ece = sum(one.right.faces * abs(one.right.share - one.confidence) for one in bins) / len(right)
    return Reliability(bins=bins, ece=ece)


def _logit(probabilities: Floats) -> Reals:
    clipped = np.clip(probabilities.astype(np.float64), EPSILON, 1 - EPSILON)
    return np.log(clipped) - np.log1p(-clipped)


def _sigmoid(logits: Reals) -> Reals:
    return 1 / (1 + np.exp(-logits))
