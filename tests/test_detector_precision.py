"""A detector is measured by what it finds, size by size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.vision.arrays import Floats
from trainer.detection.pictures import MeasuredPicture
from trainer.detection.precision import SERVED_SCORE, FoundBoxes, detection_figures

LARGE, SMALL, WRONGLY_WORN = (0, 0, 40, 40), (100, 0, 110, 10), (200, 0, 240, 40)


def boxes(*rows: tuple[float, float, float, float]) -> Floats:
    return np.array(rows, np.float32).reshape(-1, 4)


def figures(*found: tuple[tuple[float, float, float, float], float]) -> dict[str, float]:
    picture = MeasuredPicture(
        path=Path("one.png"),
        boxes=boxes(LARGE, SMALL),
        is_bare=np.array([False, True]),
        neither=boxes(WRONGLY_WORN),
        source="street",
    )
    answer = FoundBoxes(
        boxes=boxes(*(box for box, _ in found)), scores=np.array([score for _, score in found], np.float32)
    )
    return detection_figures([picture], [answer])


def test_a_detector_that_finds_every_face_and_nothing_else_is_perfect() -> None:
    measured = figures((LARGE, 0.9), (SMALL, 0.8))

    assert (measured["ap"], measured["precision"], measured["recall"], measured["faces"]) == (1, 1, 1, 2)
    assert (measured["ap_16px"], measured["faces_16px"]) == (1, 1)
    assert (measured["ap_below_16px"], measured["faces_below_16px"]) == (1, 1)


def test_a_false_face_costs_precision_from_its_score_on() -> None:
    measured = figures((LARGE, 0.9), ((300, 0, 340, 40), 0.8), (SMALL, 0.7))

    assert measured["ap"] == pytest.approx((1 + 2 / 3) / 2)
    assert measured["precision"] == pytest.approx(2 / 3)
    assert measured["recall_at_95"] == 0.5
    assert measured["ap_below_16px"] == 1  # the false face is large


def test_a_face_counts_once_and_a_second_box_of_it_is_false() -> None:
    measured = figures((LARGE, 0.9), ((1, 1, 41, 41), 0.8))

    assert measured["recall"] == 0.5
    assert measured["precision"] == 0.5


def test_a_wrongly_worn_mask_is_neither_hit_nor_miss() -> None:
    assert figures((WRONGLY_WORN, 0.9), (LARGE, 0.8), (SMALL, 0.7))["ap"] == 1


def test_boxes_below_the_served_score_count_for_average_precision_only() -> None:
    measured = figures((LARGE, 0.9), (SMALL, 0.1))

    assert measured["ap"] == 1
    assert measured["recall"] == 0.5


def test_a_detector_that_finds_nothing_has_a_recall_of_zero() -> None:
    measured = figures()

    assert (measured["ap"], measured["recall"], measured["recall_at_95"]) == (0, 0, 0)


def test_masked_and_bare_faces_are_counted_apart() -> None:
    measured = figures((LARGE, 0.9), (SMALL, SERVED_SCORE - 0.01))

    assert (measured["recall_mask"], measured["recall_no_mask"]) == (1, 0)
