"""Find pairs of pictures that look roughly alike in some pose: hashes in, candidate pairs with their poses out. Pure.

One matrix product compares all pictures, as vectors (poses.py), with all others. Of each picture only the most similar
ones are kept, so that the number of pairs grows with the number of pictures and not with its square.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.vision.arrays import Floats
from trainer.data.copies.poses import Pose, downscaled, pose_vectors

Wanted = Callable[[NDArray[np.intp], NDArray[np.intp]], NDArray[np.bool_]]

# The lowest correlation of candidates. For each of 13 ways to change a picture (tests/test_copies.py) 99 of 100 copies
# are above it, and one in 5,000 of all other pairs.
MIN_CORRELATION = 0.85
BLOCK = 1024  # pictures are compared in blocks of BLOCK x BLOCK pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A pair of indices: picture `posed`, seen in the pose, looks like picture `plain`."""

    posed: int
    plain: int
    pose: Pose


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidatePairs:
    """The result for n hashes.

    pairs: intp m x 4, most similar first: the index of the picture seen in a pose, the index of the other one, the
    index of the pose, and the owner, that one of the two for which the pair was kept. A pair that was kept for both has
    two rows, one after the other.
    has_more: bool n, whether a picture had more candidates than were kept for it.
    """

    pairs: NDArray[np.intp]
    has_more: NDArray[np.bool_]


def find_candidates(
    hashes: NDArray[np.uint8], poses: Sequence[Pose], most: NDArray[np.intp], is_wanted: Wanted
) -> CandidatePairs:
    """Find for each hash the most similar others, each in the pose in which it is most similar.

    Pictures are compared in blocks, so that memory holds one block and the kept pairs.

    Args:
        hashes: uint8 n x P x P, grey.
        most: n, the maximum number that is kept for each; its sum limits the number of pairs.
        is_wanted: returns for r and c indices which pairs may be found, bool r x c; the others do not count as kept.
    """
    pictures = downscaled(hashes)
    active = np.flatnonzero(most)
    order = np.concatenate((active, np.flatnonzero(most == 0)))
    top = _TopK(most[active], len(poses))
    for start in range(0, len(active), BLOCK):
        rows = active[start : start + BLOCK]
        posed = [pose_vectors(pictures[rows], pose) for pose in poses]
        for later in range(start, len(order), BLOCK):
            columns = order[later : later + BLOCK]
            wanted = is_wanted(rows, columns)
            if later == start:
                wanted[np.tri(*wanted.shape, dtype=np.bool_)] = False  # each pair once
            if wanted.any():
                best = _best_poses(pictures[rows], posed, pictures[columns], poses, wanted)
                top.add(start, columns, best.correlation, best.pose_index)
                both = max(0, len(active) - later)
                top.add(later, rows, best.correlation.T[:both], top.pose_index_of_other(best.pose_index.T[:both]))
    has_more = np.zeros(len(hashes), bool)
    has_more[active] = top.has_more()
    return CandidatePairs(pairs=top.pairs(active), has_more=has_more)


def _best_poses(
    rows: Floats, posed: Sequence[Floats], columns: Floats, poses: Sequence[Pose], wanted: NDArray[np.bool_]
) -> _BestPoses:
    """Compare small pictures (rows, whose vectors in each pose are `posed`) with others (columns)."""
    best = _BestPoses(wanted)
    plain_rows, plain_columns = pose_vectors(rows, Pose()), pose_vectors(columns, Pose())
    for number, pose in enumerate(poses):
        best.update(posed[number] @ plain_columns.T, number)
        if pose.zoom != 1:  # otherwise another pose is the inverse, and seeing the column in that is the same
            best.update(plain_rows @ pose_vectors(columns, pose).T, number + len(poses))
    return best


class _BestPoses:
    """The best correlation of each wanted pair of a row and a column, and the number of the pose that gives it.

    correlation: float32 r x c. pose_index: int16 r x c, -1 where the pair is no candidate.
    """

    def __init__(self, wanted: NDArray[np.bool_]) -> None:
        threshold = np.nextafter(np.float32(MIN_CORRELATION), np.float32(0))
        self.correlation = np.where(wanted, threshold, np.float32(np.inf))
        self.pose_index = np.full(wanted.shape, -1, np.int16)

    def update(self, correlation: Floats, number: int) -> None:
        better = np.flatnonzero(correlation > self.correlation)
        self.correlation.flat[better] = correlation.flat[better]
        self.pose_index.flat[better] = number


class _TopK:
    """The most similar pictures of each owner.

    The pose of a pair is numbered from the owner's view: pose p of P is p if the owner is posed, p + P if the other is.
    """

    def __init__(self, most: NDArray[np.intp], poses: int) -> None:
        shape = len(most), int(most.max(initial=1))
        self._most, self._poses = most, poses
        self._count = np.zeros(len(most), np.intp)
        self._correlation = np.full(shape, -np.inf, np.float32)
        self._other = np.zeros(shape, np.intp)
        self._pose_index = np.full(shape, -1, np.int16)

    def pose_index_of_other(self, pose_index: NDArray[np.int16]) -> NDArray[np.int16]:
        return np.where(pose_index < 0, pose_index, (pose_index + self._poses) % (2 * self._poses)).astype(np.int16)

    def add(self, first: int, others: NDArray[np.intp], correlation: Floats, pose_index: NDArray[np.int16]) -> None:
        """Merge the correlations of owners, from index `first` on and one per row, with others, one per column."""
        count = (pose_index >= 0).sum(axis=1)
        matched = np.flatnonzero(count)
        rows, width = matched + first, self._correlation.shape[1]
        self._count[rows] += count[matched]
        merged = np.hstack((self._correlation[rows], np.where(pose_index[matched] >= 0, correlation[matched], -np.inf)))
        best = np.argpartition(-merged, width - 1, axis=1)[:, :width]
        self._correlation[rows] = np.take_along_axis(merged, best, 1)
        others = np.broadcast_to(others, (len(matched), len(others)))
        for stored, new in ((self._other, others), (self._pose_index, pose_index[matched])):
            stored[rows] = np.take_along_axis(np.hstack((stored[rows], new)), best, 1)

    def has_more(self) -> NDArray[np.bool_]:
        return self._count > self._most

    def pairs(self, owners: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the pairs in the format of CandidatePairs."""
        ranks = np.argsort(np.argsort(-self._correlation, axis=1, kind="stable"), axis=1)
        row, slot = np.nonzero((self._pose_index >= 0) & (ranks < self._most[:, None]))
        owner, other, pose_index = owners[row], self._other[row, slot], self._pose_index[row, slot].astype(np.intp)
        is_posed = pose_index < self._poses
        posed, plain = np.where(is_posed, owner, other), np.where(is_posed, other, owner)
        order = np.lexsort((owner, plain, posed, -self._correlation[row, slot]))
        return np.column_stack((posed, plain, pose_index % self._poses, owner))[order]
