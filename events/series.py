"""How a value went while a condition held: points in, at most MAX_POINTS of them kept, however long it holds. Pure.

The first points are a quarter of a second apart, as labels are at most that old. When there are too many, every second
one is left out, and the distance between new ones doubles. So the points are those of the whole time, evenly spread.
"""

from __future__ import annotations

from msgspec import Struct

MAX_POINTS = 120
FIRST_STEP_S = 0.25

Point = tuple[float, float]  # when, Unix seconds; the value


class Series(Struct, kw_only=True):
    """Points in the order of time. step_s: the shortest time between two of them."""

    points: list[Point] = []
    step_s: float = FIRST_STEP_S

    def add(self, at: float, value: float) -> None:
        """Take a value, unless the last one is too new."""
        if self.points and at - self.points[-1][0] < self.step_s:
            return
        self.points.append((at, value))
        if len(self.points) > MAX_POINTS:
            self.points = self.points[::2]
            self.step_s *= 2
