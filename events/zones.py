"""Polygons in shares of the picture: whether a point is inside, and whether a polygon has a clear inside. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

Point = tuple[float, float]


def contains(polygon: Sequence[Point], point: Point) -> bool:
    """Return whether a point is inside a polygon: a ray from it to the right crosses an odd number of sides."""
    x, y = point
    inside = False
    for (x1, y1), (x2, y2) in _sides(polygon):
        if (y1 > y) != (y2 > y) and x < x1 + (x2 - x1) * (y - y1) / (y2 - y1):
            inside = not inside
    return inside


def is_simple(polygon: Sequence[Point]) -> bool:
    """Return whether a polygon has an area, and no side of it crosses another."""
    sides = _sides(polygon)
    area = sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in sides)
    return abs(area) > 1e-9 and not any(_cross(*one, *other) for one, other in combinations(sides, 2))


def _sides(polygon: Sequence[Point]) -> list[tuple[Point, Point]]:
    return list(pairwise([*polygon, polygon[0]]))


def _cross(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Return whether the lines a-b and c-d cross at an inner point of both."""
    return _turn(a, b, c) * _turn(a, b, d) < 0 and _turn(c, d, a) * _turn(c, d, b) < 0


def _turn(a: Point, b: Point, c: Point) -> float:
    """Return twice the area of a triangle, positive if it turns left."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
