"""Find copies of one photograph: prints in, pairs of places out. Pure.

Candidates look roughly alike in some pose (poses.py), as portraits of different people do too. So one is laid over the
other exactly (by the enhanced correlation coefficient, Evangelidis 2008) and their fine detail decides.

What is promised is what tests/test_copies.py measures. Nine of ten copies are found that were mirrored, made grey,
darker or noisy, encoded again (JPEG quality 20), scaled down to 22 pixels, turned by up to 15 degrees or a quarter, cut
by up to a fifth at all four sides, or framed by 20 pixels; five of six that were blurred (sigma 2) or made so bright
that parts are white; two of three that lost 15 % at each of two sides. Most are missed that were cut by a quarter at
one side or by more at all, stand in a wide frame or over a caption, were turned by 45 degrees, barred or inverted, or
are smaller than 18 pixels.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.data.poses import Candidate, Floats, Pose, candidates
from trainer.data.prints import PRINT_PX, Grey, Print
from trainer.data.split import connected

# Turns that are looked for, close enough together that those between are found too.
TURNS = (0.0, -8.0, 8.0, -16.0, 16.0)
QUARTERS = (90.0, 180.0, 270.0)
PICTURE_POSES = (
    *(Pose(mirrored=mirrored, degrees=degrees) for mirrored in (False, True) for degrees in TURNS + QUARTERS),
    *(Pose(mirrored=mirrored, zoom=zoom) for mirrored in (False, True) for zoom in (0.88, 0.77, 0.68, 0.6)),
    *(Pose(zoom=0.83, right=right, down=down) for right in (-0.085, 0.085) for down in (-0.085, 0.085)),
)
# A face's box goes with the face, so that it needs fewer.
FACE_POSES = (
    *(Pose(mirrored=mirrored, degrees=degrees) for mirrored in (False, True) for degrees in TURNS),
    *(Pose(mirrored=mirrored, zoom=0.88) for mirrored in (False, True)),
)

# Candidates are compared at this side.
SIDE_PX = 40
# What is smaller than the first and larger than the second of these (sigmas in pixels) does not count: for laying one
# over the other, and for the two bands of detail that decide.
LAID_BAND = (0.7, 4.0)
DETAIL_BANDS = ((0.7, 2.5), (0.5, 1.6))
SAME_DETAIL = (0.94, 0.88)
# How far the parts must correlate in the mean; a part is what lies under a window of so many pixels (sigma), and what
# has less than this share of the detail's mean square is faint.
SAME_PARTS = 0.85
PART_PX = 3.0
FAINT = 0.02
# Detail that varies less than this, in grey levels, is none.
PLAIN = 0.5
# At least this share of what is looked at must lie in both.
LEAST_SHARED = 0.7
# So many candidates are gone through before what has been joined is left out of the rest.
BATCH = 512

_WARP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_STOP = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 25, 1e-3)
_AWAY = np.hypot(*np.meshgrid(*[(np.arange(SIDE_PX) - (SIDE_PX - 1) / 2) / (SIDE_PX / 2)] * 2))
_LAID_WHERE = np.where(_AWAY < 0.92, 255, 0).astype(np.uint8)
_WINDOW = np.where(_AWAY < 0.95, np.exp(-((_AWAY / 0.55) ** 2) / 2), 0).astype(np.float32)


def near_copies(prints: Sequence[Print], known: Sequence[int], labels: Sequence[str]) -> list[tuple[int, int]]:
    """Return pairs of places that connect, beyond what is known, all prints that show the same photograph.

    A copy of a photograph that has another label stands in such a pair even if the two are known to belong together.

    Args:
        prints: of n faces.
        known: n numbers, equal for those that are known to belong together.
        labels: n.
    """
    pairs: list[tuple[int, int]] = []
    if not prints:
        return pairs
    for pictures, poses in (
        (np.stack([taken.picture for taken in prints]), PICTURE_POSES),
        (np.stack([taken.face for taken in prints]), FACE_POSES),
    ):
        pairs += _confirmed(pictures, poses, connected(len(prints), [*enumerate(known), *pairs]), labels)
    return pairs


def _confirmed(
    pictures: NDArray[np.uint8], poses: Sequence[Pose], known: Sequence[int], labels: Sequence[str]
) -> list[tuple[int, int]]:
    """Return the pairs of pictures that are copies, as far as they say something new."""
    joined = _Joined(known, labels)
    pairs: list[tuple[int, int]] = []
    for found in candidates(pictures, poses):
        while len(found):
            found = found[joined.is_news(found[:, :2])]
            for posed, plain, pose in found[:BATCH].tolist():
                pair = Candidate(posed=posed, plain=plain, pose=poses[pose])
                if joined.is_news(np.array([[posed, plain]]))[0] and is_copy(pictures, pair):
                    joined.add(posed, plain)
                    pairs.append((posed, plain))
            found = found[BATCH:]
    return pairs


class _Joined:
    """What belongs together so far, and what is a copy of something with another label."""

    def __init__(self, known: Sequence[int], labels: Sequence[str]) -> None:
        self._numbers = np.array(known)
        self._labels = np.array(labels)
        self._is_contradicted = np.zeros(len(known), bool)

    def is_news(self, pairs: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Tell of each pair (m x 2 places) whether it would say something new if the two were copies."""
        numbers, labels, told = (of[pairs].T for of in (self._numbers, self._labels, self._is_contradicted))
        news: NDArray[np.bool_] = (numbers[0] != numbers[1]) | ((labels[0] != labels[1]) & ~(told[0] & told[1]))
        return news

    def add(self, one: int, other: int) -> None:
        """Note that two places are copies."""
        self._numbers[self._numbers == self._numbers[other]] = self._numbers[one]
        self._is_contradicted[[one, other]] |= self._labels[one] != self._labels[other]


def is_copy(pictures: NDArray[np.uint8], pair: Candidate) -> bool:
    """Tell whether two pictures that look alike in a pose show the same down to their detail, in all parts."""
    in_bands, in_parts = detail_alike(pictures, pair)
    return in_parts >= SAME_PARTS and all(map(operator.ge, in_bands, SAME_DETAIL))


def detail_alike(pictures: NDArray[np.uint8], pair: Candidate) -> tuple[tuple[float, ...], float]:
    """Lay two pictures over each other; return how far each band of their detail correlates, and how far the parts do.

    All is 0 if they cannot be laid, or share too little.
    """
    plain = _warped(_soft(pictures[pair.plain], 1.0), Pose().matrix(PRINT_PX, SIDE_PX))
    posed = _soft(pictures[pair.posed], pair.pose.zoom)
    roughly = pair.pose.matrix(PRINT_PX, SIDE_PX)
    try:
        _, finely = cv2.findTransformECC(
            _band(plain, *LAID_BAND), _band(_warped(posed, roughly), *LAID_BAND), np.eye(2, 3, dtype=np.float32),
            cv2.MOTION_AFFINE, _STOP, _LAID_WHERE, 1,
        )  # fmt: skip
    except cv2.error:  # it found no way
        return (0.0,) * len(DETAIL_BANDS), 0.0
    exactly = (_square(roughly) @ _square(finely))[:2].astype(np.float32)
    laid = _warped(posed, exactly)
    window = _WINDOW * _inside(exactly)
    if window.sum() < LEAST_SHARED * _WINDOW.sum():
        return (0.0,) * len(DETAIL_BANDS), 0.0
    window /= window.sum()
    bands = [(_band(laid, *band), _band(plain, *band)) for band in DETAIL_BANDS]
    return tuple(_correlation(one, other, window) for one, other in bands), _of_parts(*bands[0], window)


def _soft(picture: Grey, zoom: float) -> Floats:
    """Blur a print so that SIDE_PX points hold what is seen of it."""
    soft: Floats = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 0.64 * zoom * PRINT_PX / SIDE_PX)
    return soft


def _warped(picture: Floats, matrix: Floats) -> Floats:
    warped: Floats = cv2.warpAffine(picture, matrix, (SIDE_PX, SIDE_PX), flags=_WARP, borderMode=cv2.BORDER_REPLICATE)
    return warped


def _square(matrix: Floats) -> Floats:
    return np.vstack([matrix, np.array([[0, 0, 1]], np.float32)])


def _inside(matrix: Floats) -> Floats:
    """Return 1 where a point lies well inside the print that the matrix leads to, else 0."""
    whole = np.ones((PRINT_PX, PRINT_PX), np.uint8)
    there = cv2.warpAffine(whole, matrix, (SIDE_PX, SIDE_PX), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    return np.asarray(cv2.erode(there, np.ones((3, 3), np.uint8), borderValue=0), np.float32)


def _band(picture: Floats, fine: float, soft: float) -> Floats:
    """Return the detail of a picture between two sizes."""
    band: Floats = cv2.GaussianBlur(picture, (0, 0), fine) - cv2.GaussianBlur(picture, (0, 0), soft)
    return band


def _correlation(one: Floats, other: Floats, window: Floats) -> float:
    """Correlate two pictures under a window whose sum is 1; 0 if one of them has no detail there."""
    one, other = one - (one * window).sum(), other - (other * window).sum()
    spreads = [float(np.sqrt((side * side * window).sum())) for side in (one, other)]
    if min(spreads) < PLAIN:
        return 0.0
    return float((one * other * window).sum()) / (spreads[0] * spreads[1])


def _of_parts(one: Floats, other: Floats, window: Floats) -> float:
    """Return the mean correlation of the parts of two pictures: one strong edge that both have counts as one part."""

    def around(product: Floats) -> Floats:
        means: Floats = cv2.GaussianBlur(product, (0, 0), PART_PX)
        return means

    squares, other_squares, products = around(one * one), around(other * other), around(one * other)
    faint = FAINT * float((squares + other_squares).mean()) / 2  # a part without detail neither agrees nor differs
    alike = (products + faint) / np.sqrt((squares + faint) * (other_squares + faint))
    return float((alike * window).sum())
