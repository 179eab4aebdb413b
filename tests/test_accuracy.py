"""The accuracy figure is right on small cases worked out by hand, and fails rather than leave something out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.accuracy import Prediction, main, mean_average_precision
from trainer.annotations import AnnotatedFace, WornAs

Box = tuple[float, float, float, float]

LEFT: Box = (0, 0, 20, 20)
RIGHT: Box = (100, 0, 120, 20)
FAR: Box = (300, 0, 320, 20)
TINY: Box = (200, 0, 210, 10)


def face(box: Box, worn: WornAs) -> AnnotatedFace:
    return AnnotatedFace(box=box, worn=worn)


def says(box: Box, label: str, score: float = 0.9, confidence: float = 1.0) -> Prediction:
    return Prediction(box=box, label=label, score=score, confidence=confidence)  # type: ignore[arg-type]


BOTH = (face(LEFT, "mask"), face(RIGHT, "no_mask"))


def test_everything_right_is_one() -> None:
    predictions = (says(LEFT, "mask"), says(RIGHT, "no_mask"))

    accuracy = mean_average_precision({"a": BOTH}, {"a": predictions})

    assert accuracy.mean == 1.0
    assert accuracy.faces == {"mask": 1, "no_mask": 1}


def test_a_wrong_label_is_a_miss_of_one_and_a_false_alarm_of_the_other() -> None:
    predictions = (says(LEFT, "no_mask", 0.95), says(RIGHT, "no_mask", 0.5))

    accuracy = mean_average_precision({"a": BOTH}, {"a": predictions})

    assert accuracy.average_precision == {"mask": 0.0, "no_mask": 0.5}


def test_a_second_box_on_a_face_is_a_false_alarm() -> None:
    truth = (*BOTH, face(FAR, "mask"))
    predictions = (says(LEFT, "mask", 0.9), says(LEFT, "mask", 0.8), says(FAR, "mask", 0.7), says(RIGHT, "no_mask"))

    accuracy = mean_average_precision({"a": truth}, {"a": predictions})

    assert accuracy.average_precision["mask"] == pytest.approx((1 + 2 / 3) / 2)


def test_an_overlap_below_a_half_finds_nothing() -> None:
    shifted: Box = (8, 0, 28, 20)  # overlap 12/28
    predictions = (says(shifted, "mask"), says(RIGHT, "no_mask"))

    accuracy = mean_average_precision({"a": BOTH}, {"a": predictions})

    assert accuracy.average_precision["mask"] == 0.0


def test_masks_worn_incorrectly_are_neither_hit_nor_miss() -> None:
    truth = (*BOTH, face(FAR, "incorrect"))
    predictions = (says(FAR, "mask", 1.0), says(LEFT, "mask", 0.5), says(RIGHT, "no_mask"))

    accuracy = mean_average_precision({"a": truth}, {"a": predictions})

    assert accuracy.mean == 1.0


def test_small_faces_can_be_left_out_of_both_sides() -> None:
    truth = (*BOTH, face(TINY, "mask"))
    elsewhere: Box = (400, 0, 409, 9)
    predictions = (says(elsewhere, "mask", 1.0), says(LEFT, "mask", 0.5), says(RIGHT, "no_mask"))

    every, clear = (mean_average_precision({"a": truth}, {"a": predictions}, min_side_px=side) for side in (0, 16))

    assert every.average_precision["mask"] == pytest.approx(0.25)
    assert clear.mean == 1.0
    assert clear.faces["mask"] == 1


def test_the_rank_is_score_times_confidence_over_all_pictures() -> None:
    truth = {"a": BOTH, "b": ()}
    sure_but_wrong = says(LEFT, "mask", 0.6, 0.9)
    predictions = {"a": (says(LEFT, "mask", 0.9, 0.55), says(RIGHT, "no_mask")), "b": (sure_but_wrong,)}

    accuracy = mean_average_precision(truth, predictions)

    assert accuracy.average_precision["mask"] == 0.5


def test_pictures_that_are_missing_on_one_side_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"1 annotated but not labelled \['b'\], 1 labelled but not annotated \['c'\]"):
        mean_average_precision({"a": BOTH, "b": ()}, {"a": (), "c": ()})


def test_a_label_without_faces_is_an_error() -> None:
    with pytest.raises(ValueError, match="no annotated face is labelled no_mask"):
        mean_average_precision({"a": BOTH[:1]}, {"a": ()})


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").mkdir()
    for name, faces in (("a", BOTH), ("b", ())):
        objects = "".join(
            f"<object><name>{'with_mask' if f.worn == 'mask' else 'without_mask'}</name><bndbox>"
            f"<xmin>{f.box[0]}</xmin><ymin>{f.box[1]}</ymin><xmax>{f.box[2]}</xmax><ymax>{f.box[3]}</ymax>"
            "</bndbox></object>"
            for f in faces
        )
        xml = f"<annotation><filename>{name}.jpg</filename>{objects}</annotation>"
        (tmp_path / "annotations" / f"{name}.xml").write_text(xml)
        (tmp_path / "images" / f"{name}.jpg").write_bytes(b"not looked at")
    return tmp_path


def line(name: str, *faces: Prediction, **more: object) -> str:
    fields = {"source": "images", "frame": 0, "name": name, "width": 400, "height": 20, "model": "m", "latency_ms": 1}
    found = [{"box": f.box, "label": f.label, "score": f.score, "confidence": f.confidence, "track": 1} for f in faces]
    return json.dumps({**fields, "faces": found, **more})


def test_the_command_measures_the_lines_of_label(annotated: Path, tmp_path: Path) -> None:
    lines = tmp_path / "out.jsonl"
    lines.write_text("\n".join([line("a.jpg", says(LEFT, "mask"), says(RIGHT, "no_mask")), line("b.jpg")]) + "\n")

    result = CliRunner().invoke(main, [str(lines), str(annotated), "--json"])

    assert result.exit_code == 0
    assert json.loads(result.output)["all faces"]["mAP@0.5"] == 1.0


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([line("a.jpg")], "1 annotated but not labelled"),
        ([line("a.jpg"), line("b.jpg", error="dead")], "b.jpg was not labelled"),
        ([line("a.jpg"), line("b.jpg"), line("b.jpg")], "b.jpg comes twice"),
        ([line("a.jpg"), '{"name": "b.jpg", "faces": [{"box": [1]}]}'], "line 2"),
    ],
)
def test_the_command_fails_when_something_is_missing(
    annotated: Path, tmp_path: Path, lines: list[str], reason: str
) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("\n".join(lines))

    result = CliRunner().invoke(main, [str(path), str(annotated)])

    assert result.exit_code == 1
    assert reason in result.output


def test_the_command_fails_without_the_pictures(annotated: Path, tmp_path: Path) -> None:
    (annotated / "images" / "b.jpg").unlink()
    path = tmp_path / "out.jsonl"
    path.write_text("\n".join([line("a.jpg"), line("b.jpg")]))

    result = CliRunner().invoke(main, [str(path), str(annotated)])

    assert result.exit_code == 1
    assert "b.jpg, which b.xml annotates, is missing" in result.output
