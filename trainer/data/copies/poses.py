"""Compute feature vectors of pictures in poses: hashes in, vectors that correlate where pictures look alike out. Pure.

A pose is the transformation (mirrored, rotated, zoomed) that makes one of two pictures look like the other. In each
pose every picture becomes a vector: its band-pass filtered grey levels under a round window, so that brightness, noise,
blur and the corners that a rotation leaves empty have little influence.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.vision.arrays import Floats, Image

# Vectors sample a picture of SEEN_PX x SEEN_PX pixels at those of GRID x GRID points that are inside a circle.
SEEN_PX = 32
GRID = 16
SOFT_SIGMA = 2.0  # high-pass filter, in points of the grid
WINDOW_SIGMA = 0.64  # width of the round window, where 1 is half the side
MIN_LENGTH = 1.0  # a vector shorter than this (grey levels) is set to zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """How a picture is seen: mirrored, then rotated by `degrees`, then cropped to a part with `zoom` of its side.

    right, down: the distance of the part's centre from the picture's, as a share of its side.
    """

    mirrored: bool = False
    degrees: float = 0.0
    zoom: float = 1.0
    right: float = 0.0
    down: float = 0.0

    def matrix(self, side: int, seen: int) -> Floats:
        """Return the 2 x 3 matrix from points of the posed picture (seen x seen) to the original (side x side)."""
        angle = np.deg2rad(self.degrees)
        rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * self.zoom * side / seen
        if self.mirrored:
            rotation[0] *= -1
        middle = (side - 1) / 2 + np.array([self.right, self.down]) * side
        shift = middle - rotation @ np.full(2, (seen - 1) / 2)
        return np.column_stack([rotation, shift]).astype(np.float32)


def downscaled(hashes: NDArray[np.uint8]) -> Floats:
    """Return hashes (uint8 n x P x P, grey) as rows of SEEN_PX x SEEN_PX numbers."""
    pictures = np.empty((len(hashes), SEEN_PX, SEEN_PX), np.float32)
    for picture, hashed in zip(pictures, hashes, strict=True):
        picture[:] = cv2.resize(hashed, (SEEN_PX, SEEN_PX), interpolation=cv2.INTER_AREA)
    return pictures.reshape(len(hashes), -1)


def pose_vectors(pictures: Floats, pose: Pose) -> Floats:
    """Return pictures (n x SEEN_PX²) as vectors of length 1, of length 0 for plain pictures."""
    seen = pictures @ _as_seen(pose)
    lengths = np.linalg.norm(seen, axis=1, keepdims=True)
    shown: Floats = np.where(lengths >= MIN_LENGTH, seen / np.maximum(lengths, MIN_LENGTH), 0).astype(np.float32)
    return shown


@cache
def _as_seen(pose: Pose) -> Floats:
    """Return the matrix from pictures to vectors: each step is linear, so each row is what a single pixel becomes."""
    points = np.arange(GRID) - (GRID - 1) / 2
    radius_squared = (points[:, None] ** 2 + points**2) / (GRID / 2) ** 2
    inside = radius_squared <= 1
    window: Image | Floats = np.exp(-radius_squared[inside] / WINDOW_SIGMA**2).astype(np.float32)
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
