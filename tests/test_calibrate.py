"""Temperature scaling makes confidences honest, changes no label, and bears whatever probabilities come."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.vision.arrays import Floats
from trainer.reports.calibrate import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    Truth,
    at_temperature,
    fit_temperature,
    log_loss,
    reliability,
)

probabilities_and_truth = st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=50)


def overconfident(factor: float, faces: int = 20_000) -> tuple[Floats, Truth]:
    """Draw faces whose labels follow their logits, and probabilities from logits `factor` times as large."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, faces)
    has_mask = rng.random(faces) < 1 / (1 + np.exp(-logits))
    return (1 / (1 + np.exp(-factor * logits))).astype(np.float32), has_mask


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_the_temperature_that_logits_were_multiplied_by_is_found(factor: float) -> None:
    probabilities, has_mask = overconfident(factor)

    temperature = fit_temperature(probabilities, has_mask)

    assert temperature == pytest.approx(factor, rel=0.05)
    assert reliability(at_temperature(probabilities, temperature), has_mask).ece < 0.01


def test_no_other_temperature_has_a_lower_log_loss() -> None:
    probabilities, has_mask = overconfident(3.0)

    best = fit_temperature(probabilities, has_mask)

    at_best = log_loss(at_temperature(probabilities, best), has_mask)
    assert at_best < log_loss(at_temperature(probabilities, 1.05 * best), has_mask)
    assert at_best < log_loss(at_temperature(probabilities, best / 1.05), has_mask)


def test_a_temperature_changes_no_label_and_can_be_undone() -> None:
    probabilities = np.linspace(0.001, 0.999, 500, dtype=np.float32)

    scaled = at_temperature(probabilities, 2.5)

    assert ((scaled >= 0.5) == (probabilities >= 0.5)).all()
    np.testing.assert_allclose(at_temperature(scaled, 1 / 2.5), probabilities, atol=1e-5)


def test_certain_and_wrong_probabilities_have_a_temperature_too() -> None:
    probabilities = np.array([0, 1] * 50, np.float32)
    has_mask = probabilities == 1
    has_mask[:2] = ~has_mask[:2]

    temperature = fit_temperature(probabilities, has_mask)

    confident = at_temperature(probabilities, temperature).max()
    assert 0.9 < confident < 0.99
    assert np.isfinite(log_loss(probabilities, has_mask))


def test_faces_that_are_all_right_do_not_vouch_for_certainty() -> None:
    probabilities = np.array([0.1] * 20 + [0.9] * 20, np.float32)

    temperature = fit_temperature(probabilities, probabilities > 0.5)

    assert at_temperature(probabilities, temperature).max() == pytest.approx(21 / 22, abs=1e-3)


def test_a_network_that_is_wrong_throughout_is_made_as_unsure_as_can_be() -> None:
    probabilities = np.array([0.1, 0.9], np.float32)

    temperature = fit_temperature(probabilities, probabilities < 0.5)

    assert temperature == pytest.approx(MAX_TEMPERATURE, rel=1e-3)


def test_no_faces_have_no_temperature() -> None:
    with pytest.raises(ValueError, match="no validation faces"):
        fit_temperature(np.empty(0, np.float32), np.empty(0, bool))


@given(probabilities_and_truth)
def test_any_probabilities_give_a_temperature_and_an_error_within_bounds(faces: list[tuple[float, bool]]) -> None:
    probabilities = np.array([probability for probability, _ in faces], np.float32)
    has_mask = np.array([masked for _, masked in faces])

    temperature = fit_temperature(probabilities, has_mask)
    found = reliability(at_temperature(probabilities, temperature), has_mask)

    assert MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE
    assert 0 <= found.ece <= 1
    assert sum(one.right.faces for one in found.bins) == len(faces)


def test_the_calibration_error_is_the_mean_distance_weighted_by_faces() -> None:
    probabilities = np.array([0.95] * 8 + [0.05] * 2 + [0.6] * 10, np.float32)
    has_mask = np.array([True] * 8 + [True] * 2 + [True] * 7 + [False] * 3)

    found = reliability(probabilities, has_mask)

    # 10 faces of confidence 0.95, 8 right; 10 faces of confidence 0.6, 7 right
    assert [(one.right.faces, one.right.share) for one in found.bins] == [(10, 0.7), (10, 0.8)]
    assert found.ece == pytest.approx((0.15 + 0.1) / 2)
