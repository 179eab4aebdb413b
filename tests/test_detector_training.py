"""A detector is trained from a data set with boxes to a model folder, and goes on where it was interrupted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from test_detector_data import street
from toy_faces import write_faces

from bench.detection import main as bench_command
from commands.training import train as train_command
from models.detector.card import DETECTOR_NAME, DetectorCard, read_detector_card
from models.detector.face_detector import load_detector
from models.files import sha256_of
from models.registry.kinds import DETECTOR
from models.registry.registry import BUILT_IN, Registry, registry_at
from trainer.checks import TrainingPlan, plan_training
from trainer.data.annotations import AnnotatedFace, DatasetUnusable, WornAs
from trainer.data.published_detector import read_published
from trainer.detection.pictures import measured_picture
from trainer.detection.train_detector import pictures_digest
from trainer.fitting.checkpoint import CHECKPOINT_NAME
from trainer.fitting.progress import Progress
from trainer.jobs.work_horse import train_and_register
from trainer.settings import TrainSettings
from trainer.train import train

EPOCHS = 3


class Cancelled(Exception):
    """The listener wants no more."""


@dataclass(frozen=True)
class Run:
    """A run that was cancelled after its first epoch and gone on with, and the same run without interruption.

    The latter was added to a registry.
    """

    folder: Path
    card: DetectorCard
    between: set[str]
    reported: list[Progress]
    straight: Path
    registry: Registry[DetectorCard]


def settings_of(dataset: Path, out: Path) -> TrainSettings:
    return TrainSettings(
        datasets=(str(dataset),), out=str(out), arch="yunet", size_px=256, epochs=EPOCHS, batch=4, threads=1
    )


def plan(dataset: Path, out: Path) -> TrainingPlan:
    return plan_training(settings_of(dataset, out))


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("detector")
    dataset = street(pictures, folder / "street", 30)
    reported: list[Progress] = []

    def cancel(now: Progress) -> None:
        reported.append(now)
        if now.is_epoch_end and now.epoch == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        train(plan(dataset, folder / "run"), cancel)
    between = {path.name for path in (folder / "run").iterdir()}
    train(plan(dataset, folder / "run"), reported.append)
    place = str(folder / "registry")
    train_and_register(settings_of(dataset, folder / "straight"), place, lambda _: None)
    return Run(
        folder / "run",
        read_detector_card(folder / "run"),
        between,
        reported,
        folder / "straight",
        registry_at(place).of_kind(DETECTOR),
    )


def test_a_run_leaves_a_model_folder_with_a_detector(run: Run) -> None:
    content = (run.folder / DETECTOR_NAME).read_bytes()

    assert run.between == {CHECKPOINT_NAME}
    assert {path.name for path in run.folder.iterdir()} == {
        *(DETECTOR_NAME, "card.json", "manifest.jsonl", "held_back.txt", "report")
    }
    assert run.card.files == {DETECTOR_NAME: sha256_of(content)}
    assert run.card.version == f"yunet-{sha256_of(content)[:8]}"
    assert content != read_published()
    assert 0.02 < run.card.outlines.down < 0.15  # between the published boxes and those of the annotators


def test_the_loss_falls(run: Run) -> None:
    losses = [now.loss for now in run.reported if now.is_epoch_end]

    assert len(losses) == EPOCHS
    assert losses[-1] < losses[0]


def test_an_interrupted_run_gives_the_bytes_of_one_that_was_not(run: Run) -> None:
    assert (run.folder / DETECTOR_NAME).read_bytes() == (run.straight / DETECTOR_NAME).read_bytes()


def test_the_trained_file_finds_faces_in_kept_pictures(run: Run) -> None:
    figures = run.card.measured["street"]

    assert figures["pictures"] == run.card.data["street: validation"]
    assert figures["ap_16px"] > 0.7
    assert run.card.last_epoch["average_precision"] == pytest.approx(figures["ap"], abs=1e-4)


def test_the_trained_file_serves_frames_of_any_size(run: Run) -> None:
    detector = load_detector(folder=run.folder)
    image = cv2.imread(str(min((run.folder.parent / "street" / "images").iterdir())))

    faces = detector.find(np.asarray(image, np.uint8))

    assert len(faces.boxes)
    assert detector.input_px == run.card.input_px
    np.testing.assert_allclose(run.card.outlines.outlines_of(faces.boxes)[0], faces.outlines[0], atol=0.1)


def test_the_report_shows_figures_by_size_and_the_worst_mistakes(run: Run) -> None:
    page = (run.folder / "report" / "report.html").read_text()
    numbers = json.loads((run.folder / "report" / "report.json").read_text())

    assert [epoch["epoch"] for epoch in numbers["epochs"]] == list(range(1, EPOCHS + 1))
    assert numbers["card"]["measured"]["street"]["ap_below_16px"] >= 0
    assert numbers["ms_a_frame"]["640"] > 0
    for mistake in numbers["missed_faces"] + numbers["false_faces"]:
        assert (run.folder / "report" / mistake["picture"]).read_bytes().startswith(b"\x89PNG")
    assert "maskwatch train street --arch yunet" in page
    assert str(run.folder.parent) not in page


def test_progress_names_the_average_precision(run: Run) -> None:
    last = run.reported[-1]

    assert last.average_precision == pytest.approx(run.card.last_epoch["average_precision"])
    assert "on validation pictures average precision 0." in last.text()


def test_a_data_set_without_boxes_is_refused(tmp_path: Path) -> None:
    faces = write_faces(tmp_path / "toy", 2, seed=1)

    with pytest.raises(DatasetUnusable, match="toy has no boxes to train a detector on"):
        plan(faces, tmp_path / "run")
    outcome = CliRunner().invoke(train_command, [str(faces), "--arch", "yunet", "--out", str(tmp_path / "run")])
    assert outcome.exit_code == 1
    assert outcome.output.count("\n") == 1


@pytest.mark.parametrize("role", ["datasets", "validation"])
def test_clips_alone_are_refused(role: str, pictures: Path, tmp_path: Path) -> None:
    clip, dataset = f"no_mask={pictures}/hand-over-face/bird.mkv", street(pictures, tmp_path / "street", 2)
    roles = {"datasets": (str(dataset),)} | {role: (clip,) if role == "datasets" else clip}

    with pytest.raises(DatasetUnusable, match=r"bird\.mkv: clips alone have no boxes to (train|validate) on"):
        plan_training(TrainSettings(out=str(tmp_path / "run"), arch="yunet", **roles))


def test_the_bench_measures_a_trained_detector_beside_the_published_one(run: Run, pictures: Path) -> None:
    street_photographs, detector = run.folder.parent / "street", run.folder / DETECTOR_NAME

    outcome = CliRunner().invoke(bench_command, [str(street_photographs), str(detector), "--px", "640"])

    lines = outcome.output.splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "published, 640 px", "published, two looks", "run/detector.onnx, 640 px",
    ]  # fmt: skip
    assert all(float(line.split()[-8]) > 0.5 for line in lines[1:])


def test_a_registry_that_was_named_gets_the_detector(run: Run) -> None:
    straight = read_detector_card(run.straight)

    assert run.registry.versions() == [straight.version]
    assert run.registry.card(straight.version) == straight
    assert (run.registry.folder(straight.version) / "report" / "report.html").is_file()
    assert run.registry.current().version == BUILT_IN


def test_the_card_tells_by_digests_which_sets_were_measured(run: Run) -> None:
    assert run.card.tests.keys() == run.card.measured.keys() == {"street"}
    assert run.card.tests == read_detector_card(run.straight).tests


def test_the_digest_of_a_set_follows_from_its_pictures_and_annotations(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        noise = np.random.default_rng(number).integers(0, 256, (60, 60, 3), np.uint8)
        _, content = cv2.imencode(".png", noise)
        (tmp_path / name).write_bytes(content.tobytes())
    box = (1.0, 2.0, 30.0, 40.0)

    def digest(*named: str, box: tuple[float, float, float, float] = box, worn: WornAs = "mask") -> str:
        face = AnnotatedFace(box=box, worn=worn)
        return pictures_digest([measured_picture("street", tmp_path / name, [face]) for name in named])

    assert digest("a", "b") == digest("b", "a")
    different = [digest("a", "b"), digest("a"), digest("b"), digest("a", box=(1.0, 2.0, 30.0, 41.0))]
    different += [digest("a", worn="no_mask"), digest("a", worn="incorrect")]
    assert len(set(different)) == len(different)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"margin": 0.1}, "yunet cuts no crops: --margin is for classifiers"),
        ({"mixed_precision": True}, "yunet is trained in float32: --mixed-precision is for classifiers"),
        ({"weights": "none"}, "--weights none: yunet starts from its published weights only"),
        ({"size_px": 100}, "training yunet needs canvases of a multiple of 32 px"),
        ({"hold_back": "nowhere.txt"}, r"--hold-back nowhere\.txt cannot be read"),
        ({"hold_back": "list.txt", "validation": "faces"}, "--validation and --hold-back both say"),
        ({"leave_out": "nowhere.txt"}, r"--leave-out nowhere\.txt cannot be read"),
    ],
)
def test_settings_that_no_detector_can_be_trained_with_are_refused(
    settings: dict[str, object], match: str, pictures: Path, tmp_path: Path
) -> None:
    dataset = street(pictures, tmp_path / "street", 2)

    with pytest.raises(ValueError, match=match):
        plan_training(TrainSettings(datasets=(str(dataset),), out=str(tmp_path / "run"), arch="yunet", **settings))
