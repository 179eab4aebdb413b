"""Figures are right on small cases worked out by hand, and a set with one label gets those that have a meaning."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.classifier.card import DEFAULT_FOLDER, read_card
from models.classifier.mask_classifier import MAX_BATCH
from pipeline.vision.arrays import Floats, Image
from trainer.data.prepare import EvaluationFaces
from trainer.reports.camera_copies import COPIES
from trainer.reports.evaluate import ScoredTestSet, agreement, card_figures, classification_figures, score_test_set
from trainer.reports.ranking import precision_recall, roc
from trainer.reports.shares import wilson_share
from trainer.reports.slices import slices


def some_faces(has_mask: Sequence[bool], side_px: Sequence[float] | None = None) -> EvaluationFaces:
    """Return faces of 4 px whose every pixel is their index in the set."""
    count = len(has_mask)
    crops = np.broadcast_to(np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1), (count, 4, 4, 3)).copy()
    return EvaluationFaces(
        crops=crops,
        has_mask=np.array(has_mask, bool),
        side_px=np.array(side_px or [100.0] * count, np.float32),
        sources=("toy",) * count,
        names=tuple(f"{place}.png" for place in range(count)),
    )


def scored(
    probabilities: Sequence[float], has_mask: Sequence[bool], side_px: Sequence[float] | None = None
) -> ScoredTestSet:
    return ScoredTestSet(
        set_name="toy",
        faces=some_faces(has_mask, side_px),
        probabilities={"x": np.array(probabilities, np.float32)},
    )


def by_index(crops: Image) -> Floats:
    return crops[:, 0, 0, 0].astype(np.float32) / 255


def test_networks_see_all_faces_in_order_and_in_bounded_batches() -> None:
    faces = some_faces([True, False] * 75)
    sizes: list[int] = []

    def network(crops: Image) -> Floats:
        sizes.append(len(crops))
        return by_index(crops)

    found = score_test_set({"int8": network, "float": by_index}, faces, "toy")

    assert sizes == [*[MAX_BATCH] * (150 // MAX_BATCH), 150 % MAX_BATCH] * (1 + len(COPIES))
    assert list(found.probabilities) == ["int8", "float"]
    np.testing.assert_array_equal(found.served, np.arange(150, dtype=np.float32) / 255)


@pytest.mark.parametrize("answer", [np.nan, 1.5, -0.1])
def test_a_network_whose_answers_are_no_probabilities_is_rejected(answer: float) -> None:
    faces = some_faces([True, False])

    with pytest.raises(ValueError, match="network int8 does not give one probability per face on toy"):
        score_test_set({"int8": lambda crops: np.full(len(crops), answer, np.float32)}, faces, "toy")


def test_a_set_without_faces_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match="street cannot be measured"):
        score_test_set({"int8": by_index}, some_faces([]), "street")


def test_figures_are_those_worked_out_by_hand() -> None:
    probabilities = np.array([0.9, 0.8, 0.4, 0.6, 0.1], np.float32)
    has_mask = np.array([True, True, True, False, False])

    found = classification_figures(probabilities, has_mask)

    assert (found["accuracy"], found["mask_recall"], found["no_mask_recall"]) == pytest.approx((3 / 5, 2 / 3, 1 / 2))
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["roc_auc"] == pytest.approx(5 / 6)
    assert found["mask_average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert found["no_mask_average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["log_loss"] == pytest.approx(-np.mean(np.log([0.9, 0.8, 0.4, 0.4, 0.9])))


def test_large_faces_are_measured_apart_when_sizes_differ() -> None:
    test = scored([0.9, 0.1, 0.9, 0.1], [True, False, False, True], side_px=[16, 20, 15.9, 3])

    found = card_figures(test)

    assert (found["faces"], found["faces_16px"]) == (4, 2)
    assert (found["accuracy_x"], found["accuracy_16px_x"]) == (0.5, 1.0)


def test_faces_of_one_size_are_measured_once() -> None:
    found = card_figures(scored([0.9, 0.1], [True, False]))

    assert not [name for name in found if "16px" in name]


def test_a_group_without_faces_is_counted_and_not_measured() -> None:
    found = card_figures(scored([0.9, 0.1], [True, False], side_px=[8, 9]))

    assert found["faces_16px"] == 0
    assert "accuracy_16px_x" not in found


def test_figures_keep_the_names_of_earlier_cards() -> None:
    faces = some_faces([True, False, True, False], side_px=[8, 8, 20, 20])

    found = card_figures(score_test_set({"int8": by_index, "float": by_index}, faces, "toy"))

    assert read_card(DEFAULT_FOLDER).measured["face-mask-detection"].keys() <= found.keys()


def test_copies_of_the_faces_are_measured_apart() -> None:
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (4, 16, 16, 3), np.uint8)
    faces = dataclasses.replace(some_faces([True, True, False, False]), crops=crops)

    def is_coloured(seen: Image) -> Floats:
        return (np.ptp(seen.astype(int), axis=3).max(axis=(1, 2)) > 0).astype(np.float32)

    found = score_test_set({"int8": is_coloured}, faces, "toy")

    assert card_figures(found)["accuracy_grey_int8"] == 0.5  # every grey copy is called bare
    assert card_figures(found)["accuracy_dark_int8"] == 0.5  # and every coloured one masked
    assert {one.name: one.no_mask_recall for one in slices([found]) if one.cut_by == "copies"} == {
        "grey": wilson_share(2, 2), "dark": wilson_share(0, 2), "blurred": wilson_share(0, 2),
    }  # fmt: skip


def test_copies_are_worse_pictures_of_the_same_shape() -> None:
    crops = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)

    made = {name: copy(crops) for name, copy in COPIES.items()}

    assert all(one.shape == crops.shape and one.dtype == np.uint8 for one in made.values())
    assert np.ptp(made["grey"].astype(int), axis=3).max() == 0
    assert made["dark"].mean() < 0.25 * crops.mean()
    assert made["blurred"].std() < 0.6 * crops.std()
    np.testing.assert_array_equal(COPIES["dark"](crops), made["dark"])


def test_where_nobody_wears_a_mask_false_masks_are_counted() -> None:
    found = card_figures(scored([0.1, 0.2, 0.9, 0.3], [False] * 4))

    assert found.keys() == {"faces", "no_mask_recall_x", "false_mask_share_x", "log_loss_x", "ece_x"}
    assert (found["no_mask_recall_x"], found["false_mask_share_x"]) == (0.75, 0.25)


def test_where_everybody_wears_a_mask_its_recall_is_measured() -> None:
    found = card_figures(scored([0.9, 0.2], [True] * 2))

    assert found.keys() == {"faces", "mask_recall_x", "log_loss_x", "ece_x"}


def test_networks_agree_as_far_as_their_labels_and_probabilities_do() -> None:
    one, other = np.array([0.4, 0.9, 0.1, 0.2], np.float32), np.array([0.6, 0.9, 0.1, 0.1], np.float32)

    found = agreement(one, other)

    assert found.labels_differ == 0.25
    assert (found.mean_difference, found.max_difference) == pytest.approx((0.075, 0.2), abs=1e-6)


# Few distinct values, so that many are equal.
scores_and_truth = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()), max_size=20).map(
    lambda some: [*some, (0.5, True), (0.25, False)]
)


@given(scores_and_truth)
def test_the_area_under_the_roc_is_the_share_of_pairs_in_the_right_order(faces: list[tuple[float, bool]]) -> None:
    scores = np.array([value for value, _ in faces], np.float32)
    positive = np.array([truth for _, truth in faces])
    pairs = [(yes > no) + 0.5 * (yes == no) for yes in scores[positive] for no in scores[~positive]]

    curve = roc(scores, positive)

    assert curve.area == pytest.approx(np.mean(pairs))


@given(scores_and_truth, st.randoms(use_true_random=False))
def test_the_order_of_faces_does_not_matter(faces: list[tuple[float, bool]], random: Random) -> None:
    shuffled = list(faces)
    random.shuffle(shuffled)

    one, other = (
        precision_recall(np.array([value for value, _ in some], np.float32), np.array([truth for _, truth in some]))
        for some in (faces, shuffled)
    )

    assert one.area == other.area
    np.testing.assert_array_equal(one.x, other.x)
