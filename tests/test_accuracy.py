"""The accuracy figure is right on small cases worked out by hand, and fails rather than leave something out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.accuracy import main
from bench.average_precision import mean_average_precision
from pipeline.vision.faces import Face, Label
from trainer.data.annotations import AnnotatedFace, WornAs

Box = tuple[float, float, float, float]

LEFT: Box = (0, 0, 20, 20)
RIGHT: Box = (100, 0, 120, 20)
FAR: Box = (300, 0, 320, 20)
TINY: Box = (200, 0, 210, 10)


def face(box: Box, worn: WornAs) -> AnnotatedFace:
    return AnnotatedFace(box=box, worn=worn)


def says(box: Box, label: Label, score: float = 0.9, confidence: float = 1.0) -> Face:
    return Face(box=box, label=label, score=score, confidence=confidence)


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
        (tmp_path / "images" / f"{name}.jpg").write_text(f"picture {name}")
    return tmp_path


def line(name: str, *faces: Face, **more: object) -> str:
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
        ([line("a.jpg"), '{"name": "\udcff"}'], "out.jsonl, line 2"),
    ],
)
def test_the_command_fails_when_something_is_missing(
    annotated: Path, tmp_path: Path, lines: list[str], reason: str
) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("\n".join(lines), errors="surrogateescape")

    result = CliRunner().invoke(main, [str(path), str(annotated)])

    assert result.exit_code == 1
    assert reason in result.output


def test_the_command_fails_without_the_pictures(annotated: Path, tmp_path: Path) -> None:
    (annotated / "images" / "b.jpg").unlink()
    path = tmp_path / "out.jsonl"
    path.write_text("\n".join([line("a.jpg"), line("b.jpg")]))

    result = CliRunner().invoke(main, [str(path), str(annotated)])

    assert result.exit_code == 1
    assert all(part in result.output for part in ("b.xml", "b.jpg", "is missing"))


def first_digits(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def test_only_listed_pictures_count_and_only_their_lines(annotated: Path, tmp_path: Path) -> None:
    lines, only = tmp_path / "out.jsonl", tmp_path / "only.txt"
    right = line("a.jpg", says(LEFT, "mask"), says(RIGHT, "no_mask"))
    lines.write_text("\n".join([line("b.jpg", error="dead"), line("elsewhere.jpg"), right]))
    listed = first_digits(annotated / "images" / "a.jpg")
    only.write_text(f"# held back\n\n{listed.upper()}  # a.jpg\n{'0' * 16}\n")

    result = CliRunner().invoke(main, [str(lines), str(annotated), "--only", str(only)])

    assert result.exit_code == 0
    assert result.output.startswith("1 pictures")
    assert "1.000" in result.output


def test_a_listed_picture_without_its_line_is_an_error(annotated: Path, tmp_path: Path) -> None:
    lines, only = tmp_path / "out.jsonl", tmp_path / "only.txt"
    lines.write_text(line("b.jpg"))
    only.write_text(first_digits(annotated / "images" / "a.jpg"))

    result = CliRunner().invoke(main, [str(lines), str(annotated), "--only", str(only)])

    assert result.exit_code == 1
    assert "1 annotated but not labelled ['a.jpg']" in result.output


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ("0" * 16, "lists none of the 2 annotated pictures"),
        ("# nothing\n\n", "lists none of the 2 annotated pictures"),
        ("# one\na.jpg\n", "line 2: 'a.jpg' is not the first 16 digits of a SHA-256"),
        ("0" * 64, "line 1"),
    ],
)
def test_a_list_that_cannot_be_used_is_an_error_of_one_line(
    annotated: Path, tmp_path: Path, listed: str, reason: str
) -> None:
    lines, only = tmp_path / "out.jsonl", tmp_path / "only.txt"
    lines.write_text("\n".join([line("a.jpg"), line("b.jpg")]))
    only.write_text(listed)

    result = CliRunner().invoke(main, [str(lines), str(annotated), "--only", str(only)])

    assert result.exit_code == 1
    assert reason in result.output
    assert len(result.output.splitlines()) == 1
