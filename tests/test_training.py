"""Training goes from data sets to a model folder that serves, and goes on where it was interrupted."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import keras
import msgspec
import numpy as np
import pytest
from toy_faces import write_faces

from models.card import CARD_NAME
from models.classifier import mask_classifier
from models.classifier.card import FLOAT_NAME, INT8_NAME, KERAS_NAME, Card, read_card
from models.classifier.float_graph import to_float
from models.classifier.mask_classifier import crop_faces
from models.classifier.onnx_runtime import load_onnx
from models.files import sha256_of
from trainer import model_folder
from trainer.checks import TrainingPlan, plan_training
from trainer.data.annotations import DatasetUnusable
from trainer.fitting.checkpoint import CHECKPOINT_NAME
from trainer.fitting.progress import Progress
from trainer.fitting.run_folder import LOCK_NAME
from trainer.model_folder import training_command
from trainer.networks.export import to_float_onnx, to_int8_onnx
from trainer.serving_copy import HELD_BACK_NAME, copy_for_serving
from trainer.settings import TrainSettings
from trainer.train import train

# Saving asks NumPy 2 for a copy in a way that TensorFlow's arrays do not know yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIDE = 64
EPOCHS = 8
MODEL_FILES = {CARD_NAME, INT8_NAME, FLOAT_NAME, KERAS_NAME, "manifest.jsonl", HELD_BACK_NAME, "report"}


class Cancelled(Exception):
    """The listener wants no more."""


@dataclass(frozen=True)
class Run:
    """A finished run, what was reported before and after its interruption, and what lay in its folder then."""

    folder: Path
    plan: TrainingPlan
    card: Card
    before: list[Progress]
    between: set[str]
    after: list[Progress]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A training run on toy faces that was cancelled before its last epoch, and gone on with."""
    folder = tmp_path_factory.mktemp("toy")
    settings = TrainSettings(
        datasets=(str(write_faces(folder / "toy" / "Train", 250, seed=1)),),
        tests=(str(write_faces(folder / "other", 8, seed=3)), str(write_faces(folder / "calibration", 8, seed=8))),
        out=str(folder / "run"),
        leave_out_copies=True,
        size_px=SIDE,
        epochs=EPOCHS,
        batch=32,
    )
    plan = plan_training(settings)
    before: list[Progress] = []
    after: list[Progress] = []

    def cancel(now: Progress) -> None:
        before.append(now)
        if now.is_epoch_end and now.epoch == EPOCHS - 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        train(plan, cancel)
    between = {path.name for path in (folder / "run").iterdir()}
    out = train(plan, after.append)
    return Run(out, plan, read_card(out), before, between, after)


def test_a_run_leaves_a_model_folder_that_verifies(run: Run) -> None:
    card = run.card

    assert {path.name for path in run.folder.iterdir()} == MODEL_FILES
    assert (card.size_px, card.settings["seed"], card.settings["epochs"]) == (SIDE, 0, EPOCHS)
    assert (run.folder / KERAS_NAME).stat().st_size < 15e6  # 3.4 million float32 weights, no optimizer state
    assert card.version == f"lite-{card.files[INT8_NAME][:8]}"
    assert card.data["other: test"] == 16
    assert card.data["toy/Train: validation"] == pytest.approx(100, abs=4)


def test_an_interrupted_run_continues_after_its_last_finished_epoch(run: Run) -> None:
    numbers = json.loads((run.folder / "report" / "report.json").read_text())

    assert run.between == {CHECKPOINT_NAME}
    assert {now.epoch for now in run.before} == set(range(1, EPOCHS))
    assert {now.epoch for now in run.after} == {EPOCHS}
    assert [epoch["epoch"] for epoch in numbers["epochs"]] == list(range(1, EPOCHS + 1))


def test_the_report_has_the_time_of_each_runtime_and_what_each_set_is_to_the_training(run: Run) -> None:
    numbers = json.loads((run.folder / "report" / "report.json").read_text())

    assert {latency["runtime"].split(",")[0] for latency in numbers["latencies"]} == {
        "onnx int8",
        "onnx float",
        "keras",
    }
    assert {test["name"]: test["kinship"] for test in numbers["tests"]} == {
        "toy/Train": "same folder",
        "other": "none",
        "calibration": "none",
    }
    assert run.card.job == ""


def test_validation_and_test_faces_are_measured_for_int8_and_float(run: Run) -> None:
    kept = run.card.data["toy/Train: validation"]
    for name, faces in (("toy/Train", kept), ("other", 16), ("calibration", 16)):
        figures = run.card.measured[name]

        assert figures["faces"] == faces
        assert figures["accuracy_float"] > 0.9
        assert abs(figures["accuracy_int8"] - figures["accuracy_float"]) <= 0.005
    assert run.card.tests.keys() == run.card.measured.keys() == {"toy/Train", "other", "calibration"}


def test_the_last_epoch_is_kept(run: Run) -> None:
    last = run.card.last_epoch

    assert last["epoch"] == EPOCHS
    assert last["validation_loss"] == round(run.after[-1].validation_loss or 0, 4)


def test_the_temperature_is_on_the_card_and_in_the_network(run: Run) -> None:
    calibration = run.card.calibration

    assert calibration["faces"] == run.card.data["toy/Train: calibration"] >= model_folder.MIN_CALIBRATION_FACES
    assert calibration["temperature"] not in (0.0, 1.0)


def test_both_runtimes_give_nearly_the_same_probabilities(run: Run) -> None:
    pictures = sorted(Path(run.plan.settings.tests[0]).rglob("*.png"))[:13]  # the Keras runtime pads to 16
    whole = np.array([[0, 0, 40, 40]], np.float32)
    crops = np.concatenate([crop_faces(cv2.imread(str(path)), whole, SIDE, 0.0) for path in pictures])

    by_onnx = mask_classifier.load_classifier(run.folder, "onnx").mask_probability(crops)
    by_keras = mask_classifier.load_classifier(run.folder, "keras").mask_probability(crops)

    assert by_keras.dtype == np.float32
    np.testing.assert_allclose(by_onnx, by_keras, atol=0.1)


def test_on_a_gpu_the_int8_network_gives_nearly_the_probabilities_of_the_float_network(run: Run) -> None:
    crops = np.concatenate(
        [
            crop_faces(cv2.imread(str(path)), np.array([[0, 0, 40, 40]], np.float32), SIDE, 0.0)
            for path in sorted(Path(run.plan.settings.tests[0]).rglob("*.png"))
        ]
    )

    in_float16 = load_onnx(to_float((run.folder / INT8_NAME).read_bytes(), INT8_NAME, np.float16), threads=1)
    in_float = load_onnx((run.folder / FLOAT_NAME).read_bytes(), threads=1)

    np.testing.assert_allclose(in_float16(crops), in_float(crops), atol=0.1)


def test_the_same_network_gives_the_same_files_whatever_the_process_has_done_before(run: Run, tmp_path: Path) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (64, SIDE, SIDE, 3), np.uint8)

    to_float_onnx(run.folder / KERAS_NAME, tmp_path / FLOAT_NAME)
    for name in ("one", "other"):
        to_int8_onnx(tmp_path / FLOAT_NAME, tmp_path / name, crops)

    assert (tmp_path / FLOAT_NAME).read_bytes() == (run.folder / FLOAT_NAME).read_bytes()
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_the_published_folder_serves_on_cpus_alone(run: Run, tmp_path: Path) -> None:
    card = copy_for_serving(run.folder, tmp_path / "served")

    assert {path.name for path in (tmp_path / "served").iterdir()} == {CARD_NAME, INT8_NAME, HELD_BACK_NAME}
    assert mask_classifier.load_classifier(tmp_path / "served").card == card


def test_the_published_folder_names_what_was_kept_for_reporting(run: Run, tmp_path: Path) -> None:
    copy_for_serving(run.folder, tmp_path / "served")

    digits = set((tmp_path / "served" / HELD_BACK_NAME).read_text().split())
    tested = {sha256_of(path.read_bytes())[:16] for path in Path(run.plan.settings.tests[0]).rglob("*.png")}
    assert tested <= digits
    assert all(len(one) == 16 for one in digits)


def test_the_report_says_how_to_train_it_again_but_not_where_data_is(run: Run) -> None:
    page = (run.folder / "report" / "report.html").read_text()

    command = training_command(run.plan)

    assert command == (
        "maskwatch train toy/Train --arch lite --seed 0 --test other --test calibration --size-px 64 --epochs 8 "
        "--batch 32 --leave-out-copies"
    )
    assert command in page
    assert str(run.folder.parent) not in page + (run.folder / CARD_NAME).read_text()


def test_the_command_to_train_it_again_has_the_meanings_of_class_names(run: Run) -> None:
    settings = msgspec.structs.replace(run.plan.settings, class_names=("hard hat=ignore", "kn95=mask"))

    command = training_command(replace(run.plan, settings=settings))

    assert "--map 'hard hat=ignore' --map kn95=mask" in command


def test_the_command_to_train_it_again_has_the_precision(run: Run) -> None:
    settings = msgspec.structs.replace(run.plan.settings, mixed_precision=True)

    command = training_command(replace(run.plan, settings=settings))

    assert command.endswith("--leave-out-copies --mixed-precision")


def test_a_model_folder_is_not_overwritten(run: Run) -> None:
    with pytest.raises(ValueError, match="already holds a model"):
        train(run.plan, lambda _: None)

    assert {path.name for path in run.folder.iterdir()} == MODEL_FILES


def test_measuring_on_training_data_is_rejected(run: Run, tmp_path: Path) -> None:
    settings = msgspec.structs.replace(run.plan.settings, tests=run.plan.settings.datasets, out=str(tmp_path / "run"))

    with pytest.raises(ValueError, match="is both trained on and tested with"):
        train(plan_training(settings), lambda _: None)


def test_two_data_sets_of_one_name_are_rejected(run: Run, tmp_path: Path) -> None:
    tests = (str(write_faces(tmp_path / "toy" / "Train", 1, seed=4)),)
    settings = msgspec.structs.replace(run.plan.settings, tests=tests, out=str(tmp_path / "run"))

    with pytest.raises(ValueError, match="are both called toy/Train in reports: rename one of them"):
        train(plan_training(settings), lambda _: None)


def test_test_data_that_is_missing_is_reported_before_training(run: Run, tmp_path: Path) -> None:
    tests = (str(tmp_path / "nowhere"),)
    settings = msgspec.structs.replace(run.plan.settings, tests=tests, out=str(tmp_path / "run"))

    with pytest.raises(DatasetUnusable, match="nowhere does not exist"):
        train(plan_training(settings), lambda _: None)
    assert not (tmp_path / "run").exists()


def test_too_few_pictures_to_validate_with_are_rejected_and_leave_nothing(tmp_path: Path) -> None:
    settings = TrainSettings(
        datasets=(str(write_faces(tmp_path / "few", 2, seed=5)),), out=str(tmp_path / "run"), size_px=SIDE
    )

    with pytest.raises(DatasetUnusable, match=r"too few pictures .* --validation"):
        train(plan_training(settings), lambda _: None)
    assert not (tmp_path / "run").exists()


def test_an_unknown_architecture_is_rejected_before_data_is_read(tmp_path: Path) -> None:
    settings = TrainSettings(datasets=(str(tmp_path / "nowhere"),), out=str(tmp_path / "run"), arch="vgg")

    with pytest.raises(ValueError, match="unknown architecture"):
        train(plan_training(settings), lambda _: None)


def test_a_lock_left_by_a_killed_run_keeps_nobody_out(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text("4711")
    (tmp_path / CARD_NAME).touch()
    settings = TrainSettings(datasets=(str(write_faces(tmp_path / "few", 1, seed=6)),), out=str(tmp_path))

    with pytest.raises(ValueError, match="already holds a model"):
        train(plan_training(settings), lambda _: None)


def test_resnet50_is_trained_by_its_recipe_on_real_pictures(pictures: Path, tmp_path: Path) -> None:
    body = keras.applications.ResNet50(include_top=False, input_shape=(32, 32, 3), pooling="avg", weights=None)
    body.save_weights(tmp_path / "body.weights.h5")
    for name in ("WithMask", "WithoutMask"):
        (tmp_path / "faces" / name).mkdir(parents=True)
        found = sorted((pictures / "face-mask-12k" / "Train" / name).iterdir())
        for path in found[:: len(found) // 20][:20]:
            (tmp_path / "faces" / name / path.name).symlink_to(path)
    settings = TrainSettings(
        datasets=(str(tmp_path / "faces"),),
        out=str(tmp_path / "run"),
        arch="resnet50",
        weights=str(tmp_path / "body.weights.h5"),
        size_px=32,
        epochs=1,
        batch=16,
    )
    reports: list[Progress] = []

    folder = train(plan_training(settings), reports.append)

    card = read_card(folder)
    served = mask_classifier.load_classifier(folder, "onnx")
    probabilities = served.mask_probability(np.zeros((3, 32, 32, 3), np.uint8))
    assert reports[-1].is_epoch_end
    assert (card.settings["optimizer"], card.settings["learning_rate"], card.settings["ema_decay"]) == (
        "adam",
        1e-4,
        None,
    )
    assert card.settings["weights"] == "body.weights.h5"
    assert (folder / "report" / "report.html").stat().st_size > 10_000
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    in_float16 = load_onnx(to_float((folder / INT8_NAME).read_bytes(), INT8_NAME, np.float16), threads=1)
    np.testing.assert_allclose(in_float16(np.zeros((3, 32, 32, 3), np.uint8)), probabilities, atol=0.1)


def test_keras_is_set_up_for_tensorflow() -> None:
    assert keras.backend.backend() == "tensorflow"
