"""Predict where a face will be: a Kalman filter with constant velocity, one for each face. Pure.

Lengths are in sizes of the face (the mean of its box's width and height), so that near and far faces are alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pipeline.vision.faces import Box

BOX_NOISE = 0.06  # standard deviation of a detected box's middle
FIRST_SPEED = 2.5  # ... of the speed of a face that was seen once, a second
ACCELERATION = 1.5  # ... of the change of speed, a second a second
SIZE_NOISE = 0.12  # ... of the logarithm of the ratio of a box's size to the one before
SIZE_CHANGE = 0.25  # ... which grows by this much a second
MAX_DISTANCE = 3.5  # standard deviations from where a face is expected at which it may still be
NEAR_OFFSET = 0.6  # sizes from there at which it always may be, because people start, stop and turn
NEAR_SPEED = 2.0  # ... and sizes more for each second unseen, for at most NEAR_S
NEAR_S = 0.5
MAX_OFFSET = 3.0  # ... and never beyond
NEAR_GROWTH = 0.5  # logarithm of the ratio of sizes at which it is near
LABEL_WEIGHT = 1.5  # cost of a label that is the opposite of the track's, of the costs below

Floats = NDArray[np.float64]


class Motion(Struct, kw_only=True):
    """Where a face is and how it moves. x, y, size: pixels. dx, dy: pixels a second.

    variance, covariance, speed_variance: of each coordinate, of it and its speed, and of the speed, in sizes.
    """

    x: float
    y: float
    size: float
    dx: float = 0.0
    dy: float = 0.0
    variance: float = BOX_NOISE**2
    covariance: float = 0.0
    speed_variance: float = FIRST_SPEED**2

    def predict(self, seconds: float) -> tuple[float, float, float]:
        """Return where the face will be, x and y in pixels, and the variance of each, in sizes."""
        grown = self.variance + 2 * self.covariance * seconds + self.speed_variance * seconds**2
        return self.x + self.dx * seconds, self.y + self.dy * seconds, grown + ACCELERATION**2 * seconds**4 / 4

    def move(self, box: Box, seconds: float) -> None:
        """Take a new box of the face, so long after the last one."""
        x, y, variance = self.predict(seconds)
        covariance = self.covariance + self.speed_variance * seconds + ACCELERATION**2 * seconds**3 / 2
        gain, speed_gain = variance / (variance + BOX_NOISE**2), covariance / (variance + BOX_NOISE**2)
        new_x, new_y, self.size = place_of(box)
        self.x, self.y = x + gain * (new_x - x), y + gain * (new_y - y)
        self.dx, self.dy = self.dx + speed_gain * (new_x - x), self.dy + speed_gain * (new_y - y)
        self.variance, self.covariance = (1 - gain) * variance, (1 - gain) * covariance
        self.speed_variance += ACCELERATION**2 * seconds**2 - speed_gain * covariance


def place_of(box: Box) -> tuple[float, float, float]:
    """Return the middle and the size of a box, at least a pixel, in pixels."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, max(1.0, (abs(box[2] - box[0]) + abs(box[3] - box[1])) / 2)


def costs(motions: Sequence[Motion], unseen_s: Sequence[float], boxes: Sequence[Box]) -> Floats:
    """Return how unlikely it is that each box is the face of each motion, n x m; infinite where it cannot be.

    unseen_s: time since the box before of each motion. A cost is the negative logarithm of a likelihood.
    """
    expected = np.array([motion.predict(seconds) for motion, seconds in zip(motions, unseen_s, strict=True)])
    sizes = np.array([motion.size for motion in motions])
    found = np.array([place_of(box) for box in boxes])
    offset = np.hypot(found[None, :, 0] - expected[:, 0:1], found[None, :, 1] - expected[:, 1:2]) / sizes[:, None]
    variance = expected[:, 2:3] + BOX_NOISE**2
    growth = np.log(found[None, :, 2] / sizes[:, None])
    growth_variance = (SIZE_NOISE + SIZE_CHANGE * np.array(unseen_s)[:, None]) ** 2
    distance = offset**2 / variance + growth**2 / growth_variance
    cost: Floats = distance / 2 + np.log(variance) + np.log(growth_variance) / 2
    near = NEAR_OFFSET + NEAR_SPEED * np.minimum(unseen_s, NEAR_S)[:, None]
    is_possible = (distance <= MAX_DISTANCE**2) | ((offset <= near) & (np.abs(growth) <= NEAR_GROWTH))
    cost[~is_possible | (offset > MAX_OFFSET)] = math.inf
    return cost


def cheapest_pairs(cost: Floats) -> list[tuple[int, int]]:
    """Pair each row with at most one column, the cheapest pair first; infinite costs make none."""
    rows, columns = np.nonzero(np.isfinite(cost))
    order = np.argsort(cost[rows, columns], kind="stable")
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in pairs and column not in taken:
            pairs[row] = column
            taken.add(column)
    return list(pairs.items())
