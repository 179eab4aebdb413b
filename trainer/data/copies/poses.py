"""See pictures in poses: prints in, vectors that are alike where pictures are out. Pure.

A pose is how one of two pictures must be seen, mirrored, turned or nearer, to look like the other. In each pose every
picture becomes a vector: its light and shade of middle size under a round window, so that brightness, noise, blur and
what a turn leaves in the corners hardly count.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.data.copies.perceptual_hash import Grey

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


def small(prints: NDArray[np.uint8]) -> Floats:
    """Return prints (uint8 n x P x P, grey) as rows of SEEN_PX x SEEN_PX numbers."""
    pictures = np.empty((len(prints), SEEN_PX, SEEN_PX), np.float32)
    for place, picture in enumerate(prints):
        pictures[place] = cv2.resize(picture, (SEEN_PX, SEEN_PX), interpolation=cv2.INTER_AREA)
    return pictures.reshape(len(prints), -1)


def vectors(pictures: Floats, pose: Pose) -> Floats:
    """Return pictures (n x SEEN_PX²) as vectors of length 1, of length 0 where there is nothing to see."""
    seen = pictures @ _as_seen(pose)
    lengths = np.linalg.norm(seen, axis=1, keepdims=True)
    shown: Floats = np.where(lengths >= PLAIN, seen / np.maximum(lengths, PLAIN), 0).astype(np.float32)
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
