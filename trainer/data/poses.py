"""Find pairs of pictures that look roughly alike in some pose: prints in, candidate pairs with their poses out. Pure.

A pose is how one of two pictures must be seen, mirrored, turned or nearer, to look like the other. In each pose every
picture becomes a vector: its light and shade of middle size under a round window, so that brightness, noise, blur and
what a turn leaves in the corners hardly count. One matrix product then compares all pictures with all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.data.prints import Grey

Floats = NDArray[np.float32]

# Vectors sample a picture of SEEN_PX a side at GRID x GRID points, those inside a circle.
SEEN_PX = 32
GRID = 16
# Light that changes over more than so many of these points is left out.
SOFT_SIGMA = 2.0
# Width of the round window, where 1 is half the side.
WINDOW_SIGMA = 0.64
# A vector shorter than this (grey levels) shows nothing.
PLAIN = 1.0
# Pairs from this correlation on are candidates. Of 13 ways to change a picture (tests/test_copies.py) each brings 99 of
# 100 copies above it; of all other pairs it lets through one in 5,000.
CANDIDATE = 0.85
# So many pictures are compared with as many others at a time.
BLOCK = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """How a picture is seen: turned by `degrees` after it was mirrored, and of that a part, `zoom` of its side.

    right, down: how far the part's middle lies from the picture's, as a share of its side.
    """

    mirrored: bool = False
    degrees: float = 0.0
    zoom: float = 1.0
    right: float = 0.0
    down: float = 0.0

    def matrix(self, side: int, seen: int) -> Floats:
        """Return the 2 x 3 matrix from points of what is seen (seen x seen) to points of the picture (side x side)."""
        angle = np.deg2rad(self.degrees)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * self.zoom * side / seen
        if self.mirrored:
            turn[0] *= -1
        middle = (side - 1) / 2 + np.array([self.right, self.down]) * side
        shift = middle - turn @ np.full(2, (seen - 1) / 2)
        return np.column_stack([turn, shift]).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A pair: place `posed`, seen in the pose, looks like place `plain`, seen as it is."""

    posed: int
    plain: int
    pose: Pose


def candidates(prints: NDArray[np.uint8], poses: Sequence[Pose]) -> Iterator[NDArray[np.intp]]:
    """Yield the pairs of prints (uint8 n x P x P, grey) that look alike, each once, in the pose in which they most do.

    They come by blocks of pictures, so that what is held at a time is bounded however many pairs there are.

    Yields:
        intp m x 3, most alike first: the place seen in a pose, the place seen as it is, and the pose's place.
    """
    pictures = _small(prints)
    plain = _vectors(pictures, Pose())
    for start in range(0, len(pictures), BLOCK):
        rows = slice(start, start + BLOCK)
        posed = [_vectors(pictures[rows], pose) for pose in poses]
        for later in range(start, len(pictures), BLOCK):
            columns = slice(later, later + BLOCK)
            best = _Best(len(plain[rows]), len(plain[columns]), is_one_block=later == start)
            for number, pose in enumerate(poses):
                best.see(posed[number] @ plain[columns].T, number)
                if pose.zoom != 1:  # else some pose undoes this one, and it is the same to see the later one in it
                    best.see(plain[rows] @ _vectors(pictures[columns], pose).T, number + len(poses))
            row, column, how = best.pairs()
            by_row = how < len(poses)
            one, other = row + start, column + later
            yield np.column_stack((np.where(by_row, one, other), np.where(by_row, other, one), how % len(poses)))


class _Best:
    """Of each pair of a row and a column: how alike it is at best, and by which of the numbers that were seen."""

    def __init__(self, rows: int, columns: int, *, is_one_block: bool) -> None:
        self._alike = np.full((rows, columns), np.nextafter(np.float32(CANDIDATE), np.float32(0)), np.float32)
        self._how = np.full((rows, columns), -1, np.int16)
        if is_one_block:  # each pair once
            self._alike[np.tri(rows, dtype=bool)] = np.inf

    def see(self, alike: Floats, number: int) -> None:
        better = np.flatnonzero(alike > self._alike)
        self._alike.flat[better] = alike.flat[better]
        self._how.flat[better] = number

    def pairs(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """Return row, column and number of each candidate, most alike first."""
        found = np.flatnonzero(self._how >= 0)
        found = found[np.argsort(-self._alike.flat[found], kind="stable")]
        row, column = np.divmod(found, self._how.shape[1])
        return row, column, self._how.flat[found].astype(np.intp)


def _small(prints: NDArray[np.uint8]) -> Floats:
    """Return prints as rows of SEEN_PX x SEEN_PX numbers."""
    pictures = np.empty((len(prints), SEEN_PX, SEEN_PX), np.float32)
    for place, picture in enumerate(prints):
        pictures[place] = cv2.resize(picture, (SEEN_PX, SEEN_PX), interpolation=cv2.INTER_AREA)
    return pictures.reshape(len(prints), -1)


def _vectors(pictures: Floats, pose: Pose) -> Floats:
    """Return pictures (n x SEEN_PX²) as vectors of length 1, of length 0 where there is nothing to see."""
    vectors = pictures @ _as_seen(pose)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    shown: Floats = np.where(lengths >= PLAIN, vectors / np.maximum(lengths, PLAIN), 0).astype(np.float32)
    return shown


@cache
def _as_seen(pose: Pose) -> Floats:
    """Return the matrix that makes vectors of pictures: each step is linear, so what becomes of each pixel is all."""
    points = np.arange(GRID) - (GRID - 1) / 2
    away = (points[:, None] ** 2 + points**2) / (GRID / 2) ** 2
    inside = away <= 1
    window: Grey | Floats = np.exp(-away[inside] / WINDOW_SIGMA**2).astype(np.float32)
    window = window / window.sum()
    matrix = np.empty((SEEN_PX**2, int(inside.sum())), np.float32)
    for row, pixel in zip(matrix, np.eye(SEEN_PX**2, dtype=np.float32), strict=True):
        soft = cv2.GaussianBlur(pixel.reshape(SEEN_PX, SEEN_PX), (0, 0), 0.5 * pose.zoom * SEEN_PX / GRID)
        grid = cv2.warpAffine(
            soft, pose.matrix(SEEN_PX, GRID), (GRID, GRID),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        shape = (grid - cv2.GaussianBlur(grid, (0, 0), SOFT_SIGMA))[inside]
        row[:] = (shape - shape @ window) * np.sqrt(window)
    return matrix
