"""Find pairs of pictures that look roughly alike in some pose: hashes in, candidate pairs with their poses out. Pure.

One matrix product compares all pictures, as vectors (poses.py), with all others. Of each picture only the most similar
ones are kept, so that the number of pairs grows with the number of pictures and not with its square.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data.copies.poses import Floats, Pose, downscaled, pose_vectors

Wanted = Callable[[NDArray[np.intp], NDArray[np.intp]], NDArray[np.bool_]]

# The lowest correlation of candidates. For each of 13 ways to change a picture (tests/test_copies.py) 99 of 100 copies
# are above it, and one in 5,000 of all other pairs.
CANDIDATE = 0.85
BLOCK = 1024  # pictures are compared in blocks of BLOCK x BLOCK pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A pair of indices: picture `posed`, seen in the pose, looks like picture `plain`."""

    posed: int
    plain: int
    pose: Pose


@dataclass(frozen=True, slots=True, kw_only=True)
class MostAlike:
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
) -> MostAlike:
    """Find for each hash the most similar others, each in the pose in which it is most similar.

    Pictures are compared in blocks, so that memory holds one block and the kept pairs.

    Args:
        hashes: uint8 n x P x P, grey.
        most: n, the maximum number that is kept for each; its sum limits the number of pairs.
        is_wanted: returns for r and c indices which pairs may be found, bool r x c; the others do not count as kept.
    """
    pictures = downscaled(hashes)
    looking = np.flatnonzero(most)
    order = np.concatenate((looking, np.flatnonzero(most == 0)))
    kept = _Kept(most[looking], len(poses))
    for start in range(0, len(looking), BLOCK):
        rows = looking[start : start + BLOCK]
        posed = [pose_vectors(pictures[rows], pose) for pose in poses]
        for later in range(start, len(order), BLOCK):
            columns = order[later : later + BLOCK]
            wanted = is_wanted(rows, columns)
            if later == start:
                wanted[np.tri(*wanted.shape, dtype=np.bool_)] = False  # each pair once
            if wanted.any():
                best = _compared(pictures[rows], posed, pictures[columns], poses, wanted)
                kept.add(start, columns, best.alike, best.how)
                both = max(0, len(looking) - later)
                kept.add(later, rows, best.alike.T[:both], kept.from_the_other(best.how.T[:both]))
    has_more = np.zeros(len(hashes), bool)
    has_more[looking] = kept.has_more()
    return MostAlike(pairs=kept.pairs(looking), has_more=has_more)


def _compared(
    rows: Floats, posed: Sequence[Floats], columns: Floats, poses: Sequence[Pose], wanted: NDArray[np.bool_]
) -> _Best:
    """Compare small pictures (rows, whose vectors in each pose are `posed`) with others (columns)."""
    best = _Best(wanted)
    plain_rows, plain_columns = pose_vectors(rows, Pose()), pose_vectors(columns, Pose())
    for number, pose in enumerate(poses):
        best.see(posed[number] @ plain_columns.T, number)
        if pose.zoom != 1:  # otherwise another pose is the inverse, and seeing the column in that is the same
            best.see(plain_rows @ pose_vectors(columns, pose).T, number + len(poses))
    return best


class _Best:
    """The best correlation of each wanted pair of a row and a column, and the number of the pose that gives it.

    alike: float32 r x c. how: int16 r x c, -1 where the pair is no candidate.
    """

    def __init__(self, wanted: NDArray[np.bool_]) -> None:
        least = np.nextafter(np.float32(CANDIDATE), np.float32(0))
        self.alike = np.where(wanted, least, np.float32(np.inf))
        self.how = np.full(wanted.shape, -1, np.int16)

    def see(self, alike: Floats, number: int) -> None:
        better = np.flatnonzero(alike > self.alike)
        self.alike.flat[better] = alike.flat[better]
        self.how.flat[better] = number


class _Kept:
    """The most similar pictures of each owner.

    The pose of a pair is numbered from the owner's view: pose p of P is p if the owner is posed, p + P if the other is.
    """

    def __init__(self, most: NDArray[np.intp], poses: int) -> None:
        shape = len(most), int(most.max(initial=1))
        self._most, self._poses = most, poses
        self._count = np.zeros(len(most), np.intp)
        self._alike = np.full(shape, -np.inf, np.float32)
        self._other = np.zeros(shape, np.intp)
        self._how = np.full(shape, -1, np.int16)

    def from_the_other(self, how: NDArray[np.int16]) -> NDArray[np.int16]:
        return np.where(how < 0, how, (how + self._poses) % (2 * self._poses)).astype(np.int16)

    def add(self, first: int, others: NDArray[np.intp], alike: Floats, how: NDArray[np.int16]) -> None:
        """Merge the correlations of owners, from index `first` on and one per row, with others, one per column."""
        count = (how >= 0).sum(axis=1)
        some = np.flatnonzero(count)
        rows, width = some + first, self._alike.shape[1]
        self._count[rows] += count[some]
        joint = np.hstack((self._alike[rows], np.where(how[some] >= 0, alike[some], -np.inf)))
        best = np.argpartition(-joint, width - 1, axis=1)[:, :width]
        self._alike[rows] = np.take_along_axis(joint, best, 1)
        for kept, new in ((self._other, np.broadcast_to(others, (len(some), len(others)))), (self._how, how[some])):
            kept[rows] = np.take_along_axis(np.hstack((kept[rows], new)), best, 1)

    def has_more(self) -> NDArray[np.bool_]:
        return self._count > self._most

    def pairs(self, owners: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the pairs in the format of MostAlike."""
        ranks = np.argsort(np.argsort(-self._alike, axis=1, kind="stable"), axis=1)
        row, slot = np.nonzero((self._how >= 0) & (ranks < self._most[:, None]))
        owner, other, how = owners[row], self._other[row, slot], self._how[row, slot].astype(np.intp)
        is_posed = how < self._poses
        posed, plain = np.where(is_posed, owner, other), np.where(is_posed, other, owner)
        order = np.lexsort((owner, plain, posed, -self._alike[row, slot]))
        return np.column_stack((posed, plain, how % self._poses, owner))[order]
