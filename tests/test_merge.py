"""Candidates become one box a face, whatever a detector proposes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.detector.merge import merge_candidates


def array(*rows: tuple[float, ...]) -> NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(len(rows), -1)


def scores(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def test_a_face_has_the_best_score_and_the_mean_of_the_boxes_that_agree() -> None:
    candidates = array((12, 0, 32, 20), (10, 0, 30, 20), (100, 0, 120, 20))

    boxes, found, left_out = merge_candidates(candidates, scores(0.3, 0.9, 0.5), 10)

    np.testing.assert_allclose(found, [0.9, 0.5])
    np.testing.assert_allclose(boxes, [[10.5, 0, 30.5, 20], [100, 0, 120, 20]], rtol=1e-6)
    assert left_out == 0


def test_a_candidate_that_hardly_agrees_is_no_face_and_moves_none() -> None:
    candidates = array((0, 0, 20, 20), (10, 0, 30, 20))  # overlap 1/3

    boxes, _, _ = merge_candidates(candidates, scores(0.9, 0.8), 10)

    np.testing.assert_array_equal(boxes, [[0, 0, 20, 20]])


def test_faces_beyond_the_limit_are_counted() -> None:
    candidates = array((0, 0, 9, 9), (20, 0, 29, 9), (40, 0, 49, 9))

    boxes, found, left_out = merge_candidates(candidates, scores(0.4, 0.6, 0.5), 2)

    np.testing.assert_array_equal(boxes, candidates[[1, 2]])
    np.testing.assert_array_equal(found, scores(0.6, 0.5))
    assert left_out == 1


def test_no_candidates_make_no_faces() -> None:
    boxes, found, left_out = merge_candidates(np.empty((0, 4), np.float32), np.empty(0, np.float32), 10)

    assert boxes.shape == (0, 4)
    assert found.shape == (0,)
    assert left_out == 0


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 300), spread=st.floats(1, 1000))
def test_faces_lie_within_their_candidates_best_first(seed: int, count: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, spread, (count, 2))
    candidates = np.concatenate([corners, corners + rng.uniform(1, 50, (count, 2))], axis=1).astype(np.float32)

    boxes, found, left_out = merge_candidates(candidates, rng.uniform(0.01, 1, count).astype(np.float32), 20)

    assert 1 <= len(boxes) == len(found) <= 20
    assert len(boxes) == 20 or left_out == 0
    assert (np.diff(found) <= 0).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert candidates.min() - 1e-3 <= boxes.min()
    assert boxes.max() <= candidates.max() + 1e-3
