"""Decide whether two pictures agree in their fine detail: hashes and a pose in, a boolean out. Pure.

One is aligned with the other by the enhanced correlation coefficient (Evangelidis 2008); then the fine detail of both
must correlate, in all parts.
"""

from __future__ import annotations

import operator

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.vision.arrays import Floats, Image
from trainer.data.copies.candidates import Candidate
from trainer.data.copies.perceptual_hash import HASH_PX
from trainer.data.copies.poses import Pose

SIDE_PX = 40  # candidates are compared at this side
# Band-pass filters (sigmas in pixels) for the alignment and for the two bands of detail, and the correlations of these
# bands from which on two pictures are copies.
ALIGNMENT_BAND = (0.7, 4.0)
DETAIL_BANDS = ((0.7, 2.5), (0.5, 1.6))
SAME_DETAIL = (0.94, 0.88)
# The mean correlation of parts from which on two pictures are copies; a part is a window of PART_PX (sigma), and is
# faint when it has less than this share of the detail's mean square.
SAME_PARTS = 0.85
PART_PX = 3.0
FAINT_SHARE = 0.02
MIN_DETAIL_STD = 0.5  # detail that varies less than this, in grey levels, does not count
MIN_SHARED = 0.7  # the share of the window that both pictures must cover

_WARP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_STOP = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 25, 1e-3)
_RADIUS = np.hypot(*np.meshgrid(*[(np.arange(SIDE_PX) - (SIDE_PX - 1) / 2) / (SIDE_PX / 2)] * 2))
_ALIGNMENT_MASK = np.where(_RADIUS < 0.92, 255, 0).astype(np.uint8)
_WINDOW = np.where(_RADIUS < 0.95, np.exp(-((_RADIUS / 0.55) ** 2) / 2), 0).astype(np.float32)


def is_copy(pictures: NDArray[np.uint8], pair: Candidate) -> bool:
    """Return whether two pictures that look alike in a pose agree in their fine detail, in all parts."""
    in_bands, in_parts = detail_correlations(pictures, pair)
    return in_parts >= SAME_PARTS and all(map(operator.ge, in_bands, SAME_DETAIL))


def detail_correlations(pictures: NDArray[np.uint8], pair: Candidate) -> tuple[tuple[float, ...], float]:
    """Align two pictures; return the correlation of each band of their detail, and the mean correlation of their parts.

    All are 0 if they cannot be aligned or overlap too little.
    """
    plain = _warped(_soft(pictures[pair.plain], 1.0), Pose().matrix(HASH_PX, SIDE_PX))
    posed = _soft(pictures[pair.posed], pair.pose.zoom)
    rough = pair.pose.matrix(HASH_PX, SIDE_PX)
    try:
        _, fine = cv2.findTransformECC(
            _band(plain, *ALIGNMENT_BAND), _band(_warped(posed, rough), *ALIGNMENT_BAND),
            np.eye(2, 3, dtype=np.float32), cv2.MOTION_AFFINE, _STOP, _ALIGNMENT_MASK, 1,
        )  # fmt: skip
    except cv2.error:  # it does not converge
        return (0.0,) * len(DETAIL_BANDS), 0.0
    exact = (_square(rough) @ _square(fine))[:2].astype(np.float32)
    aligned = _warped(posed, exact)
    window = _WINDOW * _inside(exact)
    if window.sum() < MIN_SHARED * _WINDOW.sum():
        return (0.0,) * len(DETAIL_BANDS), 0.0
    window /= window.sum()
    bands = [(_band(aligned, *band), _band(plain, *band)) for band in DETAIL_BANDS]
    return tuple(_correlation(one, other, window) for one, other in bands), _parts_correlation(*bands[0], window)


def _soft(picture: Image, zoom: float) -> Floats:
    """Blur a hash so that it can be sampled at SIDE_PX points."""
    soft: Floats = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 0.64 * zoom * HASH_PX / SIDE_PX)
    return soft


def _warped(picture: Floats, matrix: Floats) -> Floats:
    warped: Floats = cv2.warpAffine(picture, matrix, (SIDE_PX, SIDE_PX), flags=_WARP, borderMode=cv2.BORDER_REPLICATE)
    return warped


def _square(matrix: Floats) -> Floats:
    return np.vstack([matrix, np.array([[0, 0, 1]], np.float32)])


def _inside(matrix: Floats) -> Floats:
    """Return 1 where the matrix maps a point well inside the hash, else 0."""
    full = np.ones((HASH_PX, HASH_PX), np.uint8)
    covered = cv2.warpAffine(full, matrix, (SIDE_PX, SIDE_PX), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    return np.asarray(cv2.erode(covered, np.ones((3, 3), np.uint8), borderValue=0), np.float32)


def _band(picture: Floats, fine: float, soft: float) -> Floats:
    """Return a picture's detail between two sigmas."""
    band: Floats = cv2.GaussianBlur(picture, (0, 0), fine) - cv2.GaussianBlur(picture, (0, 0), soft)
    return band


def _correlation(one: Floats, other: Floats, window: Floats) -> float:
    """Return the correlation of two pictures under a window with sum 1; 0 if one of them has no detail there."""
    one, other = one - (one * window).sum(), other - (other * window).sum()
    spreads = [float(np.sqrt((each * each * window).sum())) for each in (one, other)]
    if min(spreads) < MIN_DETAIL_STD:
        return 0.0
    return float((one * other * window).sum()) / (spreads[0] * spreads[1])


def _parts_correlation(one: Floats, other: Floats, window: Floats) -> float:
    """Return the mean correlation of the parts of two pictures, so that one strong edge in both counts as one part."""

    def blurred(product: Floats) -> Floats:
        means: Floats = cv2.GaussianBlur(product, (0, 0), PART_PX)
        return means

    squares, other_squares, products = blurred(one * one), blurred(other * other), blurred(one * other)
    faint = FAINT_SHARE * float((squares + other_squares).mean()) / 2  # so that a part without detail has no weight
    correlations = (products + faint) / np.sqrt((squares + faint) * (other_squares + faint))
    return float((correlations * window).sum())
