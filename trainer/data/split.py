"""Part faces into sides so that no photograph stands on two of them: groups in, a side for each out. Pure.

A group is what belongs together: faces of one file, of files whose names say they are copies, of pictures that look the
same. Groups are drawn by the hash of (seed, group), one data set and label after the other, so that each side has its
share of each, the same ones whatever else is trained on.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

# out: too close to a picture kept for reporting.
Side = Literal["training", "calibration", "validation", "test", "out"]

# The share of groups that is kept for reporting: of pictures 80:20, of clips half, since a clip shows one person.
VALIDATION_SHARE = 0.2
CLIP_VALIDATION_SHARE = 0.5
# The share of the rest that the temperature is fitted on.
CALIBRATION_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Faces that must stay together.

    name: the least SHA-256 among its files. stratum: data set and label, its share is drawn from. share: of its stratum
    that is kept for validation. weight: 1, of clips how many there are in it. fixed: the side that one of its faces was
    given by the user, None if none was.
    """

    name: str
    stratum: str
    share: float
    weight: int
    fixed: Side | None


def connected(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Number what hangs together: for each of `count` places the least place it is connected to."""
    parent = list(range(count))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for one, other in pairs:
        first, second = sorted((root(one), root(other)))
        parent[second] = first
    return [root(place) for place in range(count)]


def drawn(groups: Sequence[Group], seed: int, *, with_validation: bool) -> dict[str, Side]:
    """Give each group without a fixed side its side: validation (if wanted), calibration or training."""
    sides: dict[str, Side] = {group.name: group.fixed for group in groups if group.fixed}
    strata: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        if group.fixed is None:
            strata[group.stratum].append(group)
    for members in strata.values():
        # Heavy groups first: the light ones after them bring the weight nearer to what is wanted.
        members.sort(key=lambda group: (-group.weight, hashlib.sha256(f"{seed}:{group.name}".encode()).digest()))
        kept = _taken(members, members[0].share) if with_validation else set()
        rest = [group for group in members if group.name not in kept]
        calibrated = _taken(rest, CALIBRATION_SHARE)
        for group in members:
            sides[group.name] = (
                "validation" if group.name in kept else "calibration" if group.name in calibrated else "training"
            )
    return sides


def _taken(groups: Sequence[Group], share: float) -> set[str]:
    """Take groups, in order, if that brings their weight nearer to its share or from below to as much above it."""
    missing = share * sum(group.weight for group in groups)
    taken: set[str] = set()
    for group in groups:
        if abs(missing - group.weight) <= missing:
            taken.add(group.name)
            missing -= group.weight
    return taken


def leaks(sides: Sequence[Side], pairs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of places that belong together and stand on two sides, of which neither is left out."""
    for one, other in pairs:
        if sides[one] != sides[other] and "out" not in (sides[one], sides[other]):
            yield one, other
