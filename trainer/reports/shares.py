"""Compute a share of correct labels with its 95 % confidence interval: counts in, a CorrectShare out."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

WILSON_Z = 1.959964  # 95 % of a normal distribution are within this many standard deviations


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectShare:
    """The share of a number of faces that is labelled correctly, with its 95 % confidence interval; all 0..1."""

    faces: int
    share: float
    low: float
    high: float


def wilson_share(right: int, faces: int) -> CorrectShare:
    """Return a share of one face or more with its Wilson score interval.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927. Unlike the normal
    approximation it holds for few faces and for shares near 0 and 1.
    """
    share, spread = right / faces, WILSON_Z**2 / faces
    middle = (share + spread / 2) / (1 + spread)
    reach = WILSON_Z / (1 + spread) * sqrt(share * (1 - share) / faces + spread / faces / 4)
    return CorrectShare(faces=faces, share=share, low=max(0.0, middle - reach), high=min(1.0, middle + reach))
