"""Find copies of one photograph: prints in, pairs of places out. Pure.

Candidates look roughly alike in some pose (candidates.py), as portraits of different people do too. So one is laid over
the other, and their fine detail decides (detail.py).

What is promised is what tests/test_copies.py measures. Nine of ten copies are found that were mirrored, made grey,
darker or noisy, encoded again (JPEG quality 20), scaled down to 22 pixels, turned by up to 15 degrees or a quarter, cut
by up to a fifth at all four sides, or framed by 20 pixels; five of six that were blurred (sigma 2) or made so bright
that parts are white; two of three that lost 15 % at each of two sides. Most are missed that were cut by a quarter at
one side or by more at all, stand in a wide frame or over a caption, were turned by 45 degrees, barred or inverted, or
are smaller than 18 pixels.

Where many look alike, as frames of one person do, not every pair is laid. Of each picture the most alike are, in each
of the two prints, until MAX_IN_VAIN of them were no copies; so the work of laying grows with the number of pictures,
not with its square. A copy is missed if so many others look more like it, and so many more like its original, than the
two look like each other. What belongs together already does not count: any number of copies end in one group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.data.copies.candidates import Candidate, candidates
from trainer.data.copies.detail import is_copy
from trainer.data.copies.perceptual_hash import PerceptualHash
from trainer.data.copies.poses import Pose
from trainer.data.split import connected

# Watchdog that are looked for, close enough together that those between are found too.
TURNS = (0.0, -8.0, 8.0, -16.0, 16.0)
QUARTERS = (90.0, 180.0, 270.0)
PICTURE_POSES = (
    *(Pose(mirrored=mirrored, degrees=degrees) for mirrored in (False, True) for degrees in TURNS + QUARTERS),
    *(Pose(mirrored=mirrored, zoom=zoom) for mirrored in (False, True) for zoom in (0.88, 0.77, 0.68, 0.6)),
    *(Pose(zoom=0.83, right=right, down=down) for right in (-0.085, 0.085) for down in (-0.085, 0.085)),
)
# A face's box goes with the face, so that it needs fewer.
FACE_POSES = (
    *(Pose(mirrored=mirrored, degrees=degrees) for mirrored in (False, True) for degrees in TURNS),
    *(Pose(mirrored=mirrored, zoom=0.88) for mirrored in (False, True)),
)

# So many of the most alike are laid over a picture in vain, in each print, before the rest is left out. Of 1,223 copies
# that connect the groups of four public data sets, none has more than 4 such before it.
MAX_IN_VAIN = 16

Places = int | NDArray[np.intp]


def near_copies(prints: Sequence[PerceptualHash], known: Sequence[int], labels: Sequence[str]) -> list[tuple[int, int]]:
    """Return pairs of places that connect, beyond what is known, all prints that show the same photograph.

    A copy of a photograph that has another label stands in such a pair even if the two are known to belong together.
    For each of the two prints, at most (MAX_IN_VAIN + 2) n pairs are laid over each other, and n * MAX_IN_VAIN held.

    Args:
        prints: of n faces.
        known: n numbers, equal for those that are known to belong together.
        labels: n.
    """
    pairs: list[tuple[int, int]] = []
    if not prints:
        return pairs
    for pictures, poses in (
        (np.stack([taken.picture for taken in prints]), PICTURE_POSES),
        (np.stack([taken.face for taken in prints]), FACE_POSES),
    ):
        pairs += _confirmed(pictures, poses, connected(len(prints), [*enumerate(known), *pairs]), labels)
    return pairs


def _confirmed(
    pictures: NDArray[np.uint8], poses: Sequence[Pose], known: Sequence[int], labels: Sequence[str]
) -> list[tuple[int, int]]:
    """Return the pairs of pictures that are copies, as far as they say something new.

    A round judges of each picture, over all blocks, the most alike of what would be news: as many as it has left. If it
    had more, and some of these were copies, or no news by their turn, then it has some left for a next round, in which
    they are out of the way. Rounds are few and the later ones small (two, and the second for one picture in forty, with
    18,555 faces of public data sets), for in each the groups grow.
    """
    joined = _Joined(known, labels)
    left = np.full(len(pictures), MAX_IN_VAIN)
    pairs: list[tuple[int, int]] = []
    while left.any():
        found = candidates(pictures, poses, left, joined.news_among)
        pairs += _judged(pictures, poses, found.pairs, joined, left)
        left[~found.has_more] = 0
    return pairs


def _judged(
    pictures: NDArray[np.uint8], poses: Sequence[Pose], found: NDArray[np.intp], joined: _Joined, left: NDArray[np.intp]
) -> list[tuple[int, int]]:
    """Return which of the pairs found are copies and news; for those that are no copies, count down what is left."""
    copies: list[tuple[int, int]] = []
    refused: list[tuple[int, int]] = []
    for posed, plain, pose, owner in found.tolist():
        if refused[-1:] != [(posed, plain)]:  # else it is the same for the other's sake
            if not joined.is_news(posed, plain):
                continue
            if is_copy(pictures, Candidate(posed=posed, plain=plain, pose=poses[pose])):
                joined.add(posed, plain)
                copies.append((posed, plain))
                continue
            refused.append((posed, plain))
        left[owner] -= 1
    joined.refuse(refused)
    return copies


class _Joined:
    """What belongs together so far, what is a copy of something with another label, and which pairs are no copies."""

    def __init__(self, known: Sequence[int], labels: Sequence[str]) -> None:
        self._numbers = np.array(known)
        self._labels = np.unique(np.array(labels), return_inverse=True)[1]
        self._is_contradicted = np.zeros(len(known), bool)
        self._refused = np.empty((0, 2), np.intp)

    def is_news(self, one: Places, other: Places) -> NDArray[np.bool_]:
        """Tell of one place and another, or of arrays, whether it would say something new if the two were copies."""
        is_joined = self._numbers[one] == self._numbers[other]
        is_told = (self._labels[one] == self._labels[other]) | (
            self._is_contradicted[one] & self._is_contradicted[other]
        )
        return np.asarray(~(is_joined & is_told))

    def news_among(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Tell of r and c places which pairs would say something new and have not been refused: bool r x c."""
        news = self.is_news(rows[:, None], columns)
        where = np.full((2, len(self._numbers)), -1)
        where[0, rows], where[1, columns] = np.arange(len(rows)), np.arange(len(columns))
        for one, other in (self._refused.T, self._refused.T[::-1]):
            row, column = where[0, one], where[1, other]
            is_there = (row >= 0) & (column >= 0)
            news[row[is_there], column[is_there]] = False
        return news

    def add(self, one: int, other: int) -> None:
        """Note that two places are copies."""
        self._numbers[self._numbers == self._numbers[other]] = self._numbers[one]
        self._is_contradicted[[one, other]] |= self._labels[one] != self._labels[other]

    def refuse(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Note which pairs are no copies."""
        self._refused = np.vstack((self._refused, np.array(pairs, np.intp).reshape(-1, 2)))
