"""Training goes from folders of pictures to a model folder that serves, and the same seed gives the same batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from models import mask_classifier
from models.card import CARD_NAME, FLOAT_NAME, INT8_NAME, KERAS_NAME, read_card
from models.mask_classifier import Floats, Pixels
from trainer.dataset import DatasetUnusable, Pictures, find_samples, load, whole_picture
from trainer.evaluate import evaluate
from trainer.export import publish
from trainer.fit import Batches, Progress
from trainer.train import TrainSettings, short_name, train

# Saving asks NumPy 2 for a copy in a way that TensorFlow's arrays do not know yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIDE = 32


def write_faces(folder: Path, count: int, seed: int) -> Path:
    """Write toy faces: bright ones with a dark lower half wear a mask, those with a bright lower half do not."""
    rng = np.random.default_rng(seed)
    for name, lower in (("with_mask", 30), ("without_mask", 220)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            picture = rng.integers(100, 156, (40, 40, 3), np.uint8)
            picture[20:] = rng.integers(lower - 25, lower + 25, (20, 40, 3), np.uint8)
            cv2.imwrite(str(folder / name / f"{number}.png"), picture)
    return folder


def write_photograph(folder: Path, faces: dict[str, tuple[int, int, int, int]]) -> Path:
    """Write one annotated photograph with faces of the given labels and boxes."""
    for name in ("annotations", "images"):
        (folder / name).mkdir(parents=True)
    picture = np.full((80, 120, 3), 128, np.uint8)
    cv2.imwrite(str(folder / "images" / "a.png"), picture)
    objects = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax>"
        f"<ymax>{box[3]}</ymax></bndbox></object>"
        for label, box in faces.items()
    )
    (folder / "annotations" / "a.xml").write_text(f"<annotation><filename>a.png</filename>{objects}</annotation>")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainSettings, list[Progress]]:
    """A training run of two epochs on toy faces."""
    folder = tmp_path_factory.mktemp("toy")
    settings = TrainSettings(
        datasets=(write_faces(folder / "toy" / "Train", 24, seed=1),),
        validation=write_faces(folder / "toy" / "Validation", 8, seed=2),
        tests=(write_faces(folder / "toy" / "Test", 8, seed=3),),
        out=folder / "run",
        size_px=SIDE,
        epochs=2,
        batch=16,
    )
    reports: list[Progress] = []
    return train(settings, reports.append), settings, reports


Run = tuple[Path, TrainSettings, list[Progress]]


def test_a_run_leaves_a_model_folder_that_verifies(run: Run) -> None:
    folder, settings, _ = run

    card = read_card(folder)

    assert {path.name for path in folder.iterdir()} == {CARD_NAME, INT8_NAME, FLOAT_NAME, KERAS_NAME}
    assert card.data == {"toy/Train": 48, "toy/Validation": 16, "unreadable": 0}
    assert (card.size_px, card.margin, card.settings["seed"]) == (SIDE, settings.margin, settings.seed)
    assert (folder / KERAS_NAME).stat().st_size < 12e6  # 2.8 million float32 weights, no optimizer state
    assert card.version == f"lite-{card.files[INT8_NAME][:8]}"


def test_every_epoch_is_reported_and_the_best_one_kept(run: Run) -> None:
    folder, _, reports = run

    best = read_card(folder).measured["best_epoch"]

    assert [(report.epoch, report.epochs) for report in reports] == [(1, 2), (2, 2)]
    assert best["validation_loss"] == round(min(report.validation_loss for report in reports), 4)


def test_test_data_is_measured_for_int8_and_float(run: Run) -> None:
    folder, _, _ = run

    measured = read_card(folder).measured["toy/Test"]

    assert measured["faces"] == 16
    assert {"accuracy_int8", "accuracy_float", "mask_recall_int8", "no_mask_recall_int8"} <= measured.keys()


def test_annotated_photographs_are_measured_face_by_face(tmp_path: Path) -> None:
    boxes = {"with_mask": (5, 5, 45, 45), "without_mask": (60, 5, 70, 15), "mask_weared_incorrect": (80, 40, 110, 70)}
    large = {"with_mask": (5, 5, 45, 45), "without_mask": (60, 5, 90, 35)}
    seen: list[tuple[int, ...]] = []

    def always_mask(crops: Pixels) -> Floats:
        seen.append(crops.shape)
        return np.ones(len(crops), np.float32)

    figures = evaluate({"x": always_mask}, write_photograph(tmp_path / "b", large), size_px=SIDE, margin=0.1)

    assert seen == [(2, SIDE, SIDE, 3)]
    assert (figures["faces"], figures["faces_16px"]) == (2, 2)
    assert (figures["mask_recall_x"], figures["no_mask_recall_16px_x"]) == (1.0, 0.0)
    assert figures["balanced_accuracy_x"] == 0.5
    with pytest.raises(DatasetUnusable, match="needs faces with a mask and faces without"):
        evaluate({"x": always_mask}, write_photograph(tmp_path / "a", boxes), size_px=SIDE, margin=0.1)


def test_both_runtimes_give_nearly_the_same_probabilities(run: Run) -> None:
    folder, settings, _ = run
    crops = load(find_samples(settings.tests[0]), whole_picture(SIDE)).images[:13]  # the Keras runtime pads to 16

    by_onnx = mask_classifier.load(folder, "onnx").mask_probability(crops)
    by_keras = mask_classifier.load(folder, "keras").mask_probability(crops)

    assert by_keras.dtype == np.float32
    np.testing.assert_allclose(by_onnx, by_keras, atol=0.1)


def test_the_published_folder_serves_on_cpus_alone(run: Run, tmp_path: Path) -> None:
    folder, _, _ = run

    card = publish(folder, tmp_path / "served")

    assert {path.name for path in (tmp_path / "served").iterdir()} == {CARD_NAME, INT8_NAME}
    assert mask_classifier.load(tmp_path / "served").card == card


def test_measuring_on_training_data_is_refused(run: Run) -> None:
    _, settings, _ = run

    with pytest.raises(ValueError, match="is both trained on and tested with"):
        train(replace(settings, tests=settings.datasets), lambda _: None)


def test_test_data_that_is_missing_is_told_before_training(run: Run, tmp_path: Path) -> None:
    _, settings, _ = run

    with pytest.raises(DatasetUnusable, match="nowhere is not a folder"):
        train(replace(settings, tests=(tmp_path / "nowhere",), out=tmp_path / "run"), lambda _: None)


def test_a_model_folder_is_not_overwritten(run: Run) -> None:
    _, settings, _ = run

    with pytest.raises(ValueError, match="already holds a model"):
        train(settings, lambda _: None)


def test_an_unknown_architecture_is_refused_before_data_is_read(tmp_path: Path) -> None:
    settings = TrainSettings(datasets=(tmp_path / "nowhere",), out=tmp_path / "run", arch="vgg")

    with pytest.raises(ValueError, match="unknown architecture"):
        train(settings, lambda _: None)


def test_a_folder_that_is_no_data_set_ends_training(tmp_path: Path) -> None:
    settings = TrainSettings(datasets=(tmp_path,), out=tmp_path / "run")

    with pytest.raises(DatasetUnusable, match="one folder a class"):
        train(settings, lambda _: None)
    assert not (tmp_path / "run").exists()


def test_batches_repeat_for_the_same_seed_and_cover_every_picture() -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), np.uint8)
    pictures = Pictures(images=images, labels=np.arange(10, dtype=np.float32))

    first, second = Batches(pictures, 4, seed=7), Batches(pictures, 4, seed=7)

    assert [len(first[place][0]) for place in range(len(first))] == [4, 4, 2]
    assert sorted(int(label) for place in range(3) for label in first[place][1][:, 0]) == list(range(10))
    np.testing.assert_array_equal(first[1][0], second[1][0])
    second.on_epoch_end()
    assert (first[1][1] != second[1][1]).any()


def test_names_on_the_card_do_not_say_where_data_lies() -> None:
    folders = [Path("/home/someone/face-mask-12k/Train"), Path("/home/someone/street")]

    names = [short_name(folder) for folder in folders]

    assert names == ["face-mask-12k/Train", "street"]


def test_keras_is_set_up_for_tensorflow() -> None:
    assert keras.backend.backend() == "tensorflow"
