"""Crops are cut the same way everywhere, and a model folder is loaded whole or refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.card import CARD_NAME
from models.classifier import mask_classifier
from models.classifier.card import INT8_NAME, read_card
from models.classifier.mask_classifier import DEFAULT_FOLDER, MAX_BATCH, crop_faces, label_of
from models.files import ModelUnusable

NO_BOXES = np.empty((0, 4), np.float32)


def box(*corners: float) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array([corners], np.float32).reshape(1, 4)


@pytest.fixture
def copy_of_default(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEFAULT_FOLDER, tmp_path / "model"))


def test_a_crop_is_the_box_in_rgb() -> None:
    frame = np.zeros((100, 200, 3), np.uint8)
    frame[20:60, 100:140] = (255, 128, 0)  # blue, green, red

    crops = crop_faces(frame, box(100, 20, 140, 60), 32, margin=0)

    assert crops.dtype == np.uint8
    assert crops.shape == (1, 32, 32, 3)
    assert (crops == (0, 128, 255)).all()


def test_the_margin_is_a_share_of_the_longer_side_at_each_side() -> None:
    frame = np.zeros((200, 200, 3), np.uint8)
    frame[50:150, 80:120] = 255

    crop = crop_faces(frame, box(80, 50, 120, 150), 140, margin=0.2)[0, :, :, 0]

    rows, columns = np.flatnonzero(crop.any(axis=1)), np.flatnonzero(crop.any(axis=0))
    assert (rows[0], rows[-1]) == (20, 119)
    assert (columns[0], columns[-1]) == (50, 89)


def test_beyond_the_frame_its_edge_is_repeated() -> None:
    frame = np.full((40, 40, 3), 90, np.uint8)

    crops = crop_faces(frame, np.array([[0, 0, 20, 20], [30, 30, 40, 40]], np.float32), 24, margin=0.5)

    assert (crops == 90).all()


def test_no_boxes_give_no_crops() -> None:
    frame = np.zeros((40, 40, 3), np.uint8)

    crops = crop_faces(frame, NO_BOXES, 112, margin=0.1)

    assert crops.shape == (0, 112, 112, 3)


@settings(max_examples=100, deadline=None)
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    corners=st.tuples(*[st.floats(-50, 110, width=32)] * 4),
    margin=st.floats(0, 1),
)
def test_any_box_of_any_frame_can_be_cropped(
    size: tuple[int, int], corners: tuple[float, float, float, float], margin: float
) -> None:
    frame = np.full((*size, 3), 7, np.uint8)

    crops = crop_faces(frame, box(*corners), 16, margin)

    assert (crops == 7).all()


def test_the_default_model_tells_masks_in_real_pictures(pictures: Path) -> None:
    classifier = mask_classifier.load_classifier()
    folder = pictures / "face-mask-12k" / "Validation"

    said = {}
    for name in ("WithMask", "WithoutMask"):
        frames = [np.asarray(cv2.imread(str(path)), np.uint8) for path in sorted((folder / name).iterdir())[:50]]
        crops = [crop_faces(f, box(0, 0, f.shape[1], f.shape[0]), classifier.card.size_px, 0)[0] for f in frames]
        said[name] = classifier.mask_probability(np.stack(crops))

    assert (said["WithMask"] > 0.5).mean() > 0.95
    assert (said["WithoutMask"] < 0.5).mean() > 0.95


def test_the_default_model_fits_into_the_repository() -> None:
    files = list(DEFAULT_FOLDER.iterdir())

    total = sum(path.stat().st_size for path in files)

    assert {path.name for path in files} == {CARD_NAME, INT8_NAME, "held_back.txt"}
    assert total < 5_000_000


def test_no_crops_give_no_probabilities() -> None:
    classifier = mask_classifier.load_classifier()
    side = classifier.card.size_px

    probability = classifier.mask_probability(np.empty((0, side, side, 3), np.uint8))

    assert probability.shape == (0,)
    assert probability.dtype == np.float32


def test_many_crops_are_answered_in_order() -> None:
    classifier = mask_classifier.load_classifier()
    side = classifier.card.size_px
    crops = np.random.default_rng(0).integers(0, 256, (MAX_BATCH + 9, side, side, 3), np.uint8)

    probability = classifier.mask_probability(crops)

    one_by_one = np.concatenate([classifier.mask_probability(crop[None]) for crop in crops])
    np.testing.assert_allclose(probability, one_by_one, atol=1e-5)


def test_crops_made_for_another_model_are_resized() -> None:
    classifier = mask_classifier.load_classifier()
    crops = np.zeros((3, classifier.card.size_px * 2, classifier.card.size_px * 2, 3), np.uint8)

    probability = classifier.mask_probability(crops)

    assert probability.shape == (3,)


def test_labels_carry_the_confidence_of_the_label_given() -> None:
    probability = np.array([0.0, 0.25, 0.5, 0.9], np.float32)

    labels, confidences = label_of(probability)

    assert labels == ["no_mask", "no_mask", "mask", "mask"]
    np.testing.assert_allclose(confidences, [1.0, 0.75, 0.5, 0.9])


def test_at_another_threshold_confidence_still_starts_at_a_half() -> None:
    probability = np.array([0.0, 0.8, 1.0], np.float32)

    labels, confidences = label_of(probability, threshold=0.8)

    assert labels == ["no_mask", "mask", "mask"]
    np.testing.assert_allclose(confidences, [1.0, 0.5, 1.0])


def test_a_damaged_network_is_refused(copy_of_default: Path) -> None:
    network = copy_of_default / INT8_NAME
    network.write_bytes(network.read_bytes()[:-100])

    with pytest.raises(ModelUnusable, match=r"classifier\.int8\.onnx is damaged"):
        mask_classifier.load_classifier(copy_of_default)


def test_a_missing_network_is_named(copy_of_default: Path) -> None:
    (copy_of_default / INT8_NAME).unlink()

    with pytest.raises(ModelUnusable, match=r"classifier\.int8\.onnx is missing"):
        mask_classifier.load_classifier(copy_of_default)


@pytest.mark.parametrize("text", ["", "{}", '{"version": 3}', "\x00"])
def test_a_card_that_does_not_fit_is_refused(copy_of_default: Path, text: str) -> None:
    (copy_of_default / CARD_NAME).write_text(text)

    with pytest.raises(ModelUnusable, match=r"card\.json is damaged"):
        mask_classifier.load_classifier(copy_of_default)


def test_a_card_that_is_not_utf_8_is_refused(copy_of_default: Path) -> None:
    (copy_of_default / CARD_NAME).write_bytes(b'{"version": "caf\xe9"}')

    with pytest.raises(ModelUnusable, match=r"card\.json is not UTF-8: "):
        mask_classifier.load_classifier(copy_of_default)


def test_a_folder_without_a_card_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match="is not a model folder"):
        mask_classifier.load_classifier(tmp_path)


def test_the_keras_runtime_needs_a_run_folder() -> None:
    with pytest.raises(ModelUnusable, match=r"has no classifier\.keras, which runtime keras needs"):
        mask_classifier.load_classifier(runtime="keras")


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown runtime 'torch'"):
        mask_classifier.load_classifier(runtime="torch")


def test_the_default_card_says_what_was_measured() -> None:
    card = read_card(DEFAULT_FOLDER)

    measured = card.measured["face-mask-12k/Test"]

    assert measured["accuracy_int8"] >= 0.985
    assert abs(measured["accuracy_int8"] - measured["accuracy_float"]) <= 0.005
