"""Make probabilities mean what they say: probabilities and truth in, a temperature or a calibration error out.

Pure numpy. "90 % sure" should be right nine times of ten; one scalar, the temperature by which all logits are divided,
does most of that and changes no label (Guo et al., "On Calibration of Modern Neural Networks", 2017, section 4.2).
Probabilities of exactly 0 and 1 are taken as EPSILON and 1 - EPSILON; nothing at all to fit to raises ValueError.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.classifier.mask_classifier import Floats, label_of
from trainer.reports.shares import Share, wilson

Truth = NDArray[np.bool_]
Reals = NDArray[np.float64]

# About what float32 can tell from 1.
EPSILON = 1e-7
# Beyond these a temperature says that the network, not its confidence, is wrong.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 1 / 16, 16.0
# Halvings of the search: enough for a part in a million.
_HALVINGS = 24
# Guo et al. 2017, section 5: 15 bins of equal width over confidences from 0 to 1.
BINS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Faces of about the same confidence: its mean, and the share of them labelled rightly."""

    confidence: float
    right: Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """The bins that hold faces, by rising confidence, and the expected calibration error (0..1) that follows."""

    bins: tuple[Bin, ...]
    ece: float


def fit_temperature(probabilities: Floats, has_mask: Truth) -> float:
    """Find the temperature that minimises the log loss of validation faces.

    The log loss is convex in 1 / temperature, so its slope is followed to zero. The truth is taken with Platt's
    targets, (n + 1) / (n + 2) of a label's n faces instead of all: with every face right the plain minimum would be
    certainty, which no number of validation faces can vouch for (Platt, "Probabilistic Outputs for Support Vector
    Machines", 1999, section 2.2).

    Args:
        probabilities: float32 n of a mask, of faces that were not trained on.
        has_mask: bool n.

    Returns:
        The temperature, LOWEST_TEMPERATURE to HIGHEST_TEMPERATURE: above 1 when the network is too sure of itself.
    """
    if len(has_mask) == 0:
        raise ValueError("there are no validation faces to fit a temperature to")
    logits = _logit(probabilities)
    masked = np.count_nonzero(has_mask)
    bare = len(has_mask) - masked
    targets = np.where(has_mask, (masked + 1) / (masked + 2), 1 / (bare + 2))
    low, high = 1 / HIGHEST_TEMPERATURE, 1 / LOWEST_TEMPERATURE
    for _ in range(_HALVINGS):
        factor = np.sqrt(low * high)
        slope = np.mean(logits * (_sigmoid(factor * logits) - targets))
        low, high = (factor, high) if slope < 0 else (low, factor)
    return float(1 / np.sqrt(low * high))


def at_temperature(probabilities: Floats, temperature: float) -> Floats:
    """Return the probabilities that a network gives when its logits are divided by `temperature`; 1/T undoes T."""
    return _sigmoid(_logit(probabilities) / temperature).astype(np.float32)


def log_loss(probabilities: Floats, has_mask: Truth) -> float:
    """Return the mean binary cross-entropy, in nats, of one face or more."""
    logits = _logit(probabilities)
    return float(np.mean(np.logaddexp(0, np.where(has_mask, -logits, logits))))


def reliability(probabilities: Floats, has_mask: Truth) -> Reliability:
    """Compare how sure a network is of the labels it gives with how often they are right.

    The expected calibration error is the mean distance between confidence and share of right labels in BINS bins
    of equal width over 0..1, weighted by their faces (Guo et al. 2017, equation 3). The confidence is that of the label
    given, so with two labels the bins below 0.5 are empty.

    Args:
        probabilities: float32 n of a mask; n is 1 or more.
        has_mask: bool n.
    """
    labels, confidences = label_of(probabilities)
    right = (np.array(labels) == "mask") == has_mask
    places = np.ceil(confidences * BINS).astype(int)  # a bin holds its upper edge
    bins = tuple(
        Bin(
            confidence=float(confidences[chosen].mean(dtype=np.float64)),
            right=wilson(int(right[chosen].sum()), int(chosen.sum())),
        )
        for chosen in (places == place for place in np.unique(places))
    )
    ece = sum(one.right.faces * abs(one.right.share - one.confidence) for one in bins) / len(right)
    return Reliability(bins=bins, ece=ece)


def _logit(probabilities: Floats) -> Reals:
    clipped = np.clip(probabilities.astype(np.float64), EPSILON, 1 - EPSILON)
    return np.log(clipped) - np.log1p(-clipped)


def _sigmoid(logits: Reals) -> Reals:
    return 1 / (1 + np.exp(-logits))
