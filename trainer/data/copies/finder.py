"""Find copies of one photograph: hashes in, pairs of indices out. Pure.

Candidates look roughly alike in some pose (candidates.py), as portraits of different people may too. So the two are
aligned, and their fine detail decides (detail.py).

The recall is what tests/test_copies.py measures. Nine of ten copies are found that were mirrored, made grey, darker or
noisy, re-encoded (JPEG quality 20), scaled down to 22 pixels, rotated by up to 15 degrees or a quarter turn, cropped by
up to a fifth at all four sides, or framed by 20 pixels; five of six that were blurred (sigma 2) or overexposed; two of
three that lost 15 % at each of two sides. Most are missed that were cropped by a quarter at one side or by more in
total, have a wide frame or a caption, were rotated by 45 degrees, barred or inverted, or are smaller than 18 pixels.

Where many pictures look alike, as frames of one person do, not every pair is aligned. For each picture, the most
similar ones are aligned, by each of its two hashes, until MAX_FAILURES of them were no copies: the work grows with the
number of pictures, not with its square. A copy is missed if that many others look more like it, and that many more like
its original, than the two look like each other. Pictures that are known to belong together do not count, so any number
of copies end in one group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.vision.arrays import Image
from trainer.data.copies.candidates import Candidate, find_candidates
from trainer.data.copies.detail import is_copy
from trainer.data.copies.perceptual_hash import PerceptualHash
from trainer.data.copies.poses import Pose
from trainer.data.split import connected_components

# Rotations in degrees, close enough together that rotations between them are found too.
ROTATIONS = (0.0, -8.0, 8.0, -16.0, 16.0)
QUARTERS = (90.0, 180.0, 270.0)
PICTURE_POSES = (
    *(Pose(mirrored=mirrored, degrees=degrees) for mirrored in (False, True) for degrees in ROTATIONS + QUARTERS),
    *(Pose(mirrored=mirrored, zoom=zoom) for mirrored in (False, True) for zoom in (0.88, 0.77, 0.68, 0.6)),
    *(Pose(zoom=0.83, right=right, down=down) for right in (-0.085, 0.085) for down in (-0.085, 0.085)),
)
# A face's box moves with the face, so that it needs fewer poses.
FACE_POSES = (
    *(Pose(mirrored=mirrored, degrees=degrees) for mirrored in (False, True) for degrees in ROTATIONS),
    *(Pose(mirrored=mirrored, zoom=0.88) for mirrored in (False, True)),
)

# Alignments of a picture that may fail, for each hash, before its other candidates are left out. Of 1,223 copies that
# connect the groups of four public data sets, none has more than 4 failures before it.
MAX_FAILURES = 16

Indices = int | NDArray[np.intp]


def find_copies(hashes: Sequence[PerceptualHash], known: Sequence[int], labels: Sequence[str]) -> list[tuple[int, int]]:
    """Return pairs of indices that connect, beyond what is known, all faces that show the same photograph.

    Copies with different labels are such a pair even if they are known to belong together. For each of the two hashes,
    at most (MAX_FAILURES + 2) n pairs are aligned and MAX_FAILURES * n are held in memory.

    Args:
        hashes: of n faces.
        known: n numbers, equal for faces that are known to belong together.
        labels: n.
    """
    pairs: list[tuple[int, int]] = []
    if not hashes:
        return pairs
    for pictures, poses in (
        (np.stack([one.picture for one in hashes]), PICTURE_POSES),
        (np.stack([one.face for one in hashes]), FACE_POSES),
    ):
        joined = connected_components(len(hashes), [*enumerate(known), *pairs])
        pairs += _find_verified_copies(pictures, poses, joined, labels)
    return pairs


def _find_verified_copies(
    pictures: Image, poses: Sequence[Pose], known: Sequence[int], labels: Sequence[str]
) -> list[tuple[int, int]]:
    """Return the pairs of pictures that are copies and connect what was not connected before.

    A round checks for each picture the most similar of the pairs that would connect something new, as many as it has
    attempts left. A picture that had more candidates, and has attempts left because some were copies or had become
    superfluous, takes part in the next round. Rounds are few and the later ones small, because groups grow in each:
    with 18,555 faces of public data sets there are two, the second for one picture in forty.
    """
    groups = _CopyGroups(known, labels)
    attempts = np.full(len(pictures), MAX_FAILURES)
    pairs: list[tuple[int, int]] = []
    while attempts.any():
        candidates = find_candidates(pictures, poses, attempts, groups.is_wanted)
        pairs += _verify_pairs(pictures, poses, candidates.pairs, groups, attempts)
        attempts[~candidates.has_more] = 0
    return pairs


def _verify_pairs(
    pictures: Image, poses: Sequence[Pose], pairs: NDArray[np.intp], groups: _CopyGroups, attempts: NDArray[np.intp]
) -> list[tuple[int, int]]:
    """Return which of the pairs are new copies; for each that is no copy, count down the owner's attempts."""
    copies: list[tuple[int, int]] = []
    rejected: list[tuple[int, int]] = []
    for posed, plain, pose, owner in pairs.tolist():
        if rejected[-1:] != [(posed, plain)]:  # else it is the same pair for its other owner
            if not groups.connects_new(posed, plain):
                continue
            if is_copy(pictures, Candidate(posed=posed, plain=plain, pose=poses[pose])):
                groups.add(posed, plain)
                copies.append((posed, plain))
                continue
            rejected.append((posed, plain))
        attempts[owner] -= 1
    groups.reject(rejected)
    return copies


class _CopyGroups:
    """Which faces belong together so far, which have a copy with another label, and which pairs are no copies."""

    def __init__(self, known: Sequence[int], labels: Sequence[str]) -> None:
        self._group_ids = np.array(known)
        self._labels = np.unique(np.array(labels), return_inverse=True)[1]
        self._is_contradicted = np.zeros(len(known), bool)
        self._rejected = np.empty((0, 2), np.intp)

    def connects_new(self, one: Indices, other: Indices) -> NDArray[np.bool_]:
        """Return whether two indices, or two arrays of them, would connect something new if they were copies."""
        is_joined = self._group_ids[one] == self._group_ids[other]
        is_known = (self._labels[one] == self._labels[other]) | (
            self._is_contradicted[one] & self._is_contradicted[other]
        )
        return np.asarray(~(is_joined & is_known))

    def is_wanted(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return for r and c indices which pairs would add something and have not been rejected: bool r x c."""
        connects_new = self.connects_new(rows[:, None], columns)
        where = np.full((2, len(self._group_ids)), -1)
        where[0, rows], where[1, columns] = np.arange(len(rows)), np.arange(len(columns))
        for one, other in (self._rejected.T, self._rejected.T[::-1]):
            row, column = where[0, one], where[1, other]
            is_there = (row >= 0) & (column >= 0)
            connects_new[row[is_there], column[is_there]] = False
        return connects_new

    def add(self, one: int, other: int) -> None:
        """Record that two indices are copies."""
        self._group_ids[self._group_ids == self._group_ids[other]] = self._group_ids[one]
        self._is_contradicted[[one, other]] |= self._labels[one] != self._labels[other]

    def reject(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Record pairs that are no copies."""
        self._rejected = np.vstack((self._rejected, np.array(pairs, np.intp).reshape(-1, 2)))
