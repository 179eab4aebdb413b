"""Faces are assigned to cells as SimOTA defines it, and the loss counts what it should."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.detector.yunet_decode import STRIDES, decode_yunet
from pipeline.vision.arrays import Floats
from pipeline.vision.boxes import iou
from trainer.detection.assignment import NO_FACE, assign_faces
from trainer.detection.cells import CANDIDATES, RADIUS, cell_corners, decode_boxes, find_candidates, is_covered
from trainer.detection.losses import box_loss, log_loss, overlap
from trainer.detection.yunet_training import detection_loss

SIZE = 64
CELLS = sum((SIZE // stride) ** 2 for stride in STRIDES)


def boxes_of(seed: int, count: int) -> Floats:
    """Boxes inside a canvas, as random faces have them."""
    rng = np.random.default_rng(seed)
    sides = rng.uniform(4, 30, (count, 2))
    corners = rng.uniform(0, SIZE - sides)
    return np.concatenate([corners, corners + sides], axis=1).astype(np.float32)


def centres() -> Floats:
    corners, strides = cell_corners(SIZE)
    return corners + strides[:, None] / 2


def simota(faces: Floats, scores: Floats, boxes: Floats) -> NDArray[np.int64]:
    """The published algorithm, cell by cell and face by face."""
    _, strides = cell_corners(SIZE)
    points, middles = centres(), (faces[:, :2] + faces[:, 2:]) / 2
    near = (np.abs(points[None] - middles[:, None]) <= RADIUS * strides[None, :, None]).all(axis=-1)
    inside = ((points[None] > faces[:, None, :2]) & (points[None] < faces[:, None, 2:])).all(axis=-1)
    overlaps = iou(faces, boxes)
    cost = -np.log(scores[None] + 1e-7) - 3 * np.log(overlaps + 1e-7) + np.where(inside, 0, 100)
    assigned, paid = np.full(len(boxes), NO_FACE), np.full(len(boxes), np.inf)
    for number, allowed in enumerate(near):
        candidates = np.flatnonzero(allowed)
        wanted = max(1, int(np.sort(overlaps[number, candidates])[-10:].sum()))
        for cell in candidates[np.argsort(cost[number, candidates], kind="stable")][:wanted]:
            if cost[number, cell] < paid[cell]:
                assigned[cell], paid[cell] = number, cost[number, cell]
    return assigned


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_faces_get_the_cells_that_the_published_algorithm_gives_them(seed: int, count: int) -> None:
    faces = boxes_of(seed, count)
    rng = np.random.default_rng(seed)
    near = faces[rng.integers(count, size=CELLS)] + rng.normal(0, 3, (CELLS, 4)).astype(np.float32)
    scores = rng.uniform(0.01, 1, CELLS).astype(np.float32)
    found = find_candidates(faces, SIZE)

    assigned = assign_faces(
        keras.ops.convert_to_tensor(scores[found.cells][None]),
        keras.ops.convert_to_tensor(
            np.stack([iou(face, near[cells])[0] for face, cells in zip(faces, found.cells, strict=True)])[None],
            dtype="float32",
        ),
        keras.ops.convert_to_tensor(found.cells[None]),
        keras.ops.convert_to_tensor(found.is_valid[None]),
        keras.ops.convert_to_tensor(found.is_inside[None]),
        CELLS,
    )

    np.testing.assert_array_equal(np.asarray(assigned)[0], simota(faces, scores, near))


def test_candidates_are_the_cells_around_a_face_in_every_grid() -> None:
    faces = boxes_of(seed=1, count=5)
    _, strides = cell_corners(SIZE)

    found = find_candidates(faces, SIZE)

    assert found.cells.shape == (5, CANDIDATES)
    for face, cells, valid in zip(faces, found.cells, found.is_valid, strict=True):
        apart = np.abs(centres() - (face[:2] + face[2:]) / 2)
        assert set(cells[valid].tolist()) == set(np.flatnonzero((apart <= RADIUS * strides[:, None]).all(axis=1)))


def test_boxes_are_decoded_as_the_served_detector_decodes_them() -> None:
    rng = np.random.default_rng(0)
    offsets = rng.normal(0, 1, (1, CELLS, 4)).astype(np.float32)
    ends = np.cumsum([(SIZE // stride) ** 2 for stride in STRIDES])[:-1]
    outputs = {
        f"bbox_{stride}": part for stride, part in zip(STRIDES, np.split(offsets, ends, axis=1), strict=True)
    } | {
        f"{kind}_{stride}": np.ones((1, (SIZE // stride) ** 2, 1), np.float32)
        for kind in ("cls", "obj")
        for stride in STRIDES
    }

    boxes = decode_boxes(keras.ops.convert_to_tensor(offsets), *cell_corners(SIZE))

    expected, _ = decode_yunet(outputs, SIZE, 0.5)
    np.testing.assert_allclose(np.asarray(boxes)[0], expected, rtol=1e-5, atol=1e-3)


def test_cells_in_ignored_regions_are_covered_and_no_others() -> None:
    region = np.array([[8, 8, 24, 40]], np.float32)

    covered = is_covered(region, SIZE)

    points = centres()
    assert covered.any()
    assert (covered == ((points > region[0, :2]) & (points < region[0, 2:])).all(axis=1)).all()
    assert not is_covered(np.empty((0, 4), np.float32), SIZE).any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_overlaps_are_those_of_the_pipeline(seed: int) -> None:
    first, second = boxes_of(seed, 6), boxes_of(seed + 1, 6)

    overlaps = np.asarray(overlap(keras.ops.convert_to_tensor(first), keras.ops.convert_to_tensor(second)))

    np.testing.assert_allclose(overlaps, np.diag(iou(first, second)), atol=1e-5)


def test_the_box_loss_is_zero_for_equal_boxes_and_grows_with_distance_and_size() -> None:
    target = np.array([[10, 10, 20, 20]], np.float32)
    predicted = np.array([[10, 10, 20, 20], [12, 10, 22, 20], [40, 10, 50, 20], [5, 5, 25, 25]], np.float32)

    same, near, far, wide = np.asarray(box_loss(keras.ops.convert_to_tensor(predicted), target)).tolist()

    assert same == pytest.approx(0, abs=1e-5)
    assert same < near < far
    # 1 - 100/400, and both sides off by 10 of 20.
    assert wide == pytest.approx(0.75 + 2 * 0.25, abs=1e-5)


def test_the_log_loss_is_the_cross_entropy_even_of_large_logits() -> None:
    logits, targets = np.array([0.3, -2.0, 80.0], np.float32), np.array([1.0, 0.25, 0.0], np.float32)

    losses = np.asarray(log_loss(keras.ops.convert_to_tensor(logits), targets))

    expected = [-np.log(1 / (1 + np.exp(-0.3))), 0.25 * np.log1p(np.exp(2.0)) + 0.75 * np.log1p(np.exp(-2.0)), 80.0]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def outputs_and_targets(faces: Floats, ignored: Floats) -> tuple[dict[str, Floats], dict[str, NDArray[np.generic]]]:
    """A network that finds nothing anywhere, and one canvas with faces."""
    outputs = {
        f"{kind}_{stride}": np.full((1, (SIZE // stride) ** 2, values), fill, np.float32)
        for kind, values, fill in (("cls", 1, -2.0), ("obj", 1, -2.0), ("bbox", 4, 0.0))
        for stride in STRIDES
    }
    found = find_candidates(faces, SIZE)
    targets = {
        "boxes": faces[None],
        "weights": np.ones((1, len(faces)), np.float32),
        "cells": found.cells[None],
        "is_valid": found.is_valid[None],
        "is_inside": found.is_inside[None],
        "is_ignored": is_covered(ignored, SIZE)[None],
    }
    return outputs, targets


def loss_of(faces: Floats, ignored: Floats, **changed: float) -> float:
    outputs, targets = outputs_and_targets(faces, ignored)
    outputs |= {name: np.full_like(outputs[name], value) for name, value in changed.items()}
    as_tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, (outputs, targets))
    return float(detection_loss(*as_tensors, *cell_corners(SIZE)))


def test_a_cell_in_an_ignored_region_costs_nothing_but_an_assigned_one_there_does() -> None:
    faces, nothing = np.array([[16, 16, 32, 32]], np.float32), np.empty((0, 4), np.float32)
    everywhere = np.array([[0, 0, SIZE, SIZE]], np.float32)

    ignoring = [loss_of(faces, everywhere, obj_32=value) for value in (-2.0, 9.0)]
    counting = [loss_of(faces, nothing, obj_32=value) for value in (-2.0, 9.0)]

    assert ignoring[0] == pytest.approx(ignoring[1])
    assert counting[0] < counting[1]
    assert ignoring[0] > 0


def test_the_loss_is_a_mean_by_weight() -> None:
    faces = np.array([[16, 16, 32, 32], [64, 64, 112, 112]], np.float32)
    everywhere = np.array([[0, 0, SIZE, SIZE]], np.float32)
    alone = [loss_of(face[None], everywhere) for face in faces]
    outputs, targets = outputs_and_targets(faces, everywhere)

    losses = []
    for weights in ((1.0, 1.0), (3.0, 3.0), (1000.0, 1.0)):
        targets["weights"] = np.array([weights], np.float32)
        as_tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, (outputs, targets))
        losses.append(float(detection_loss(*as_tensors, *cell_corners(SIZE))))

    assert losses[0] == pytest.approx(losses[1])
    assert losses[2] == pytest.approx(alone[0], rel=0.01)
    assert min(alone) < losses[0] < max(alone)


def test_a_canvas_without_faces_teaches_that_there_is_none() -> None:
    nothing = np.empty((0, 4), np.float32)
    padding = np.zeros((1, 4), np.float32)
    outputs, targets = outputs_and_targets(padding, nothing)
    targets["is_valid"] = np.zeros_like(targets["is_valid"])
    as_tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, (outputs, targets))

    loss = float(detection_loss(*as_tensors, *cell_corners(SIZE)))

    assert loss == pytest.approx(CELLS * np.log1p(np.exp(-2.0)), rel=1e-4)
