"""Split faces so that no photograph is in two splits: groups in, a split for each out. Pure.

A group holds the faces that belong together: of one file, of files whose names mark them as copies, of pictures that
look the same. Groups are ordered by the hash of (seed, group) within each data set and label, so that each split gets
its share of each, and the same groups whatever else is trained on.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

# out: left out, as a copy of a face kept for reporting or because its label is contradicted.
Split = Literal["training", "calibration", "validation", "test", "out"]

# The share of groups that is kept for reporting: a fifth of pictures, half of clips, since a clip shows one person.
VALIDATION_SHARE = 0.2
CLIP_VALIDATION_SHARE = 0.5
# The share of the rest that the temperature is fitted on.
CALIBRATION_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyGroup:
    """Faces that must stay together.

    name: the lowest SHA-256 of its files. stratum: data set and label, from which the share is taken. share: of its
    stratum that is kept for validation. weight: the number of its clips, or 1. fixed: the split that one of its faces
    was given, by the user or by the training of the weights to start from; None if none was.
    """

    name: str
    stratum: str
    share: float
    weight: int
    fixed: Split | None


def connected_components(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Return for each of `count` indices the lowest index that it is connected to."""
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for one, other in pairs:
        first, second = sorted((root(one), root(other)))
        parent[second] = first
    return [root(index) for index in range(count)]


def assign_splits(groups: Sequence[CopyGroup], seed: int, *, with_validation: bool) -> dict[str, Split]:
    """Return the split of each group by name: its fixed one, validation (if wanted), calibration or training."""
    splits: dict[str, Split] = {group.name: group.fixed for group in groups if group.fixed}
    strata: dict[str, list[CopyGroup]] = defaultdict(list)
    trained_on: Counter[str] = Counter()  # weight of the groups that are fixed to training, of each stratum
    for group in groups:
        if group.fixed is None:
            strata[group.stratum].append(group)
        elif group.fixed == "training":
            trained_on[group.stratum] += group.weight
    for stratum, members in strata.items():
        # Heavy groups first: the light ones after them bring the weight closer to the share.
        members.sort(key=lambda group: (-group.weight, hashlib.sha256(f"{seed}:{group.name}".encode()).digest()))
        others = trained_on[stratum]
        kept = _choose(members, members[0].share, others) if with_validation else set()
        calibrating = _choose([group for group in members if group.name not in kept], CALIBRATION_SHARE, others)
        for group in members:
            splits[group.name] = (
                "validation" if group.name in kept else "calibration" if group.name in calibrating else "training"
            )
    return splits


def _choose(groups: Sequence[CopyGroup], share: float, others: int) -> set[str]:
    """Choose groups in order, each if it brings the chosen weight closer to its share, or at most as far above it.

    others: weight of groups that cannot be chosen and count towards the share.
    """
    missing = share * (sum(group.weight for group in groups) + others)
    chosen: set[str] = set()
    for group in groups:
        if abs(missing - group.weight) <= missing:
            chosen.add(group.name)
            missing -= group.weight
    return chosen


def find_leaks(splits: Sequence[Split], pairs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of indices that belong together and are in two splits, neither of which is "out"."""
    for one, other in pairs:
        if splits[one] != splits[other] and "out" not in (splits[one], splits[other]):
            yield one, other
