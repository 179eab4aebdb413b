"""A taught network learns from the label and from what trained classifiers say of the same crop."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from toy_faces import write_faces

from models.classifier.card import DEFAULT_FOLDER, INT8_NAME, read_card, write_card
from models.classifier.mask_classifier import load_classifier
from models.files import ModelUnusable, sha256_of
from trainer.checks import plan_training
from trainer.data.augment import augmented_crops
from trainer.data.batches import Batches, sampling_chances
from trainer.data.faces import FacePatches
from trainer.data.teachers import Teachers
from trainer.settings import RECIPES, TAUGHT_SHARE, TrainSettings

RECIPE = msgspec.structs.replace(RECIPES["resnet18-half"], batch=6)
OF_OURS = str(DEFAULT_FOLDER)


def patches() -> FacePatches:
    pixels = np.random.default_rng(3).integers(0, 256, (12, 160, 160, 3), np.uint8)
    return FacePatches(
        pixels=pixels,
        squares=np.tile(np.array([[16, 16, 144]], np.float32), (12, 1)),
        tight=np.zeros(12, bool),
        has_mask=np.arange(12) % 2 == 0,
        side_px=np.full(12, 128, np.float32),
        sources=("toy",) * 12,
    )


def other_model(folder: Path, margin: float) -> Path:
    """Write a copy of the built-in classifier that says that its crops have another margin."""
    shutil.copytree(DEFAULT_FOLDER, folder)
    write_card(folder, msgspec.structs.replace(read_card(folder), margin=margin))
    return folder


def test_targets_lie_between_the_label_and_the_answer_of_the_teachers_to_the_crop_in_colour() -> None:
    labels_only, taught = Batches(patches(), RECIPE, 0), Batches(patches(), RECIPE, 0, teachers=Teachers([OF_OURS]))

    crops, labels = labels_only[0]
    same_crops, targets = taught[0]

    chosen = np.random.default_rng([0, 0, 0]).choice(12, 12, p=sampling_chances(patches()))
    rng = np.random.default_rng([0, 0, 1])
    drawn, coloured = augmented_crops(patches(), chosen[: len(crops)], RECIPE.size_px, RECIPE.margin, rng)
    answer = load_classifier(DEFAULT_FOLDER, "onnx").mask_probability(coloured)[:, None]
    assert np.array_equal(crops, same_crops)
    assert np.array_equal(crops, drawn)
    assert (drawn != coloured).any()
    np.testing.assert_allclose(targets, TAUGHT_SHARE * answer + (1 - TAUGHT_SHARE) * labels, atol=1e-6)
    assert targets.dtype == np.float32


def test_several_teachers_answer_with_their_mean(tmp_path: Path) -> None:
    crops = np.random.default_rng(5).integers(0, 256, (4, 112, 112, 3), np.uint8)
    twin = other_model(tmp_path / "twin", RECIPE.margin)

    alone = Teachers([OF_OURS]).mask_probability(crops)

    np.testing.assert_allclose(Teachers([OF_OURS, str(twin)]).mask_probability(crops), alone, atol=1e-6)


def test_a_teacher_whose_file_is_no_network_is_refused_before_the_data_are_prepared(tmp_path: Path) -> None:
    folder = other_model(tmp_path / "broken", RECIPE.margin)
    (folder / INT8_NAME).write_bytes(b"no network")
    write_card(folder, msgspec.structs.replace(read_card(folder), files={INT8_NAME: sha256_of(b"no network")}))

    with pytest.raises(ModelUnusable, match="holds no classifier that runs"):
        Teachers([str(folder)])


def test_a_plan_knows_its_teachers_and_leaves_smoothing_to_them(tmp_path: Path) -> None:
    faces = str(write_faces(tmp_path / "faces", 8, seed=1))
    settings = TrainSettings(datasets=(faces,), out=str(tmp_path / "run"), arch="resnet18-half", teachers=(OF_OURS,))

    plan = plan_training(settings)

    assert plan.recipe.teachers == (read_card(DEFAULT_FOLDER).version,)
    assert plan.recipe.label_smoothing == 0.0


@pytest.mark.parametrize(
    ("arch", "teacher", "error", "message"),
    [
        ("resnet18-half", "wide", ValueError, "was trained on crops with a margin of 0.3, this network gets 0.05"),
        ("resnet18-half", "nowhere", ModelUnusable, "nowhere"),
        ("yunet", "wide", ValueError, "learns from boxes: --teacher is for classifiers"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused_before_training(
    tmp_path: Path, arch: str, teacher: str, error: type[Exception], message: str
) -> None:
    other_model(tmp_path / "wide", 0.3)
    faces = str(write_faces(tmp_path / "faces", 8, seed=1))
    settings = TrainSettings(
        datasets=(faces,), out=str(tmp_path / "run"), arch=arch, teachers=(str(tmp_path / teacher),)
    )

    with pytest.raises(error, match=message):
        plan_training(settings)
