"""Measure how well pictures are labelled, from detection to label: mean average precision (mAP) at an overlap of half.

    maskwatch label PICTURES/images --json out.jsonl
    python -m bench.accuracy out.jsonl PICTURES

In: the JSON lines of `maskwatch label --json` and the folder with the Pascal VOC annotations (and images) of the same
pictures. Out: a small table, or JSON with --json. A picture without its line, a line without its picture, or a line
with an error fails with status 1: a figure over some of the pictures would look like one over all.

The figure: for each label, predictions are ranked by face score times confidence of the label; average precision is the
area under the precision-recall curve made monotonic (all points); mAP is the mean over labels. Faces whose mask is worn
incorrectly are neither hit nor miss.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import click
import msgspec
import numpy as np
from numpy.typing import NDArray

from trainer.annotations import AnnotatedFace, read_annotations
from trainer.dataset import DatasetUnusable

Label = Literal["mask", "no_mask"]
LABELS: tuple[Label, ...] = ("mask", "no_mask")
Floats = NDArray[np.float64]

# Faces whose shorter side is at least this are also counted apart.
CLEAR_FACE_PX = 16.0


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One labelled face: box x1, y1, x2, y2 in pixels, score of the face and confidence of the label, both 0..1."""

    box: tuple[float, float, float, float]
    label: Label
    score: Annotated[float, msgspec.Meta(ge=0, le=1)]
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `maskwatch label --json`, as far as it matters here."""

    name: str
    faces: tuple[Prediction, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Average precision of each label, 0..1, and the number of annotated faces it rests on."""

    average_precision: dict[Label, float]
    faces: dict[Label, int]

    @property
    def mean(self) -> float:
        """The mean over the labels."""
        return sum(self.average_precision.values()) / len(self.average_precision)


def mean_average_precision(
    truth: Mapping[str, Sequence[AnnotatedFace]],
    predictions: Mapping[str, Sequence[Prediction]],
    iou: float = 0.5,
    *,
    min_side_px: float = 0.0,
) -> Accuracy:
    """Compare predictions with annotations.

    Args:
        truth: the annotated faces by picture.
        predictions: the labelled faces by picture; exactly the same pictures.
        iou: the overlap (intersection over union, 0..1) from which a prediction finds a face.
        min_side_px: annotated faces with a shorter side below it are neither hit nor miss, and neither are unmatched
            predictions as small; 0 counts all.

    Raises:
        ValueError: the pictures differ, or a label has no annotated face.
    """
    if truth.keys() != predictions.keys():
        missing, extra = truth.keys() - predictions.keys(), predictions.keys() - truth.keys()
        raise ValueError(
            f"pictures differ: {len(missing)} annotated but not labelled {sorted(missing)[:3]}, "
            f"{len(extra)} labelled but not annotated {sorted(extra)[:3]}"
        )
    precision, faces = {}, {}
    for label in LABELS:
        outcomes = [
            outcome for name in truth for outcome in _outcomes(truth[name], predictions[name], label, iou, min_side_px)
        ]
        faces[label] = sum(_counts(face, label, min_side_px) for found in truth.values() for face in found)
        if faces[label] == 0:
            raise ValueError(f"no annotated face is labelled {label}: there is nothing to measure")
        precision[label] = _average_precision(outcomes, faces[label])
    return Accuracy(average_precision=precision, faces=faces)


def _outcomes(
    truth: Sequence[AnnotatedFace], predictions: Sequence[Prediction], label: Label, iou: float, min_side_px: float
) -> Iterator[tuple[float, bool]]:
    """Match one picture's predictions of a label, best first; yield (rank, hit) of those that count."""
    wanted = [face.box for face in truth if _counts(face, label, min_side_px)]
    # A face of the other label excuses nothing; an incorrect or a small one of this label does.
    excused = [
        face.box
        for face in truth
        if face.worn == "incorrect" or (face.worn == label and not _counts(face, label, min_side_px))
    ]
    for prediction in sorted(predictions, key=_rank, reverse=True):
        if prediction.label != label:
            continue
        overlaps = [_iou(prediction.box, box) for box in wanted]
        if overlaps and max(overlaps) >= iou:
            wanted.pop(int(np.argmax(overlaps)))
            yield _rank(prediction), True
        elif not any(_iou(prediction.box, box) >= iou for box in excused) and _side(prediction.box) >= min_side_px:
            yield _rank(prediction), False


def _average_precision(outcomes: Sequence[tuple[float, bool]], faces: int) -> float:
    """Integrate precision over recall, from (rank, hit) of every prediction that counts."""
    if not outcomes:
        return 0.0
    order = np.argsort([-rank for rank, _ in outcomes], kind="stable")
    hits = np.array([hit for _, hit in outcomes])[order]
    found = np.cumsum(hits)
    precision: Floats = found / np.arange(1, len(hits) + 1)
    best_from_here_on = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_from_here_on[hits].sum() / faces)


def _counts(face: AnnotatedFace, label: Label, min_side_px: float) -> bool:
    return face.worn == label and _side(face.box) >= min_side_px


def _rank(prediction: Prediction) -> float:
    return prediction.score * prediction.confidence


def _side(box: Sequence[float]) -> float:
    return min(box[2] - box[0], box[3] - box[1])


def _iou(one: Sequence[float], other: Sequence[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def read_lines(path: Path) -> dict[str, tuple[Prediction, ...]]:
    """Read the labelled faces of each picture.

    Raises:
        ValueError: a line is malformed, is of a picture that could not be labelled, or comes twice.
    """
    found: dict[str, tuple[Prediction, ...]] = {}
    for number, text in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            line = msgspec.json.decode(text, type=Line)
        except msgspec.DecodeError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        if line.error is not None:
            raise ValueError(f"{path}, line {number}: {line.name} was not labelled ({line.error})")
        if line.name in found:
            raise ValueError(f"{path}, line {number}: {line.name} comes twice")
        found[line.name] = line.faces
    return found


@click.command()
@click.argument("lines", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(lines: Path, folder: Path, as_json: bool) -> None:
    """Print the mAP of LINES (JSON lines of `maskwatch label --json`) against the annotations in FOLDER."""
    try:
        truth = {picture.path.name: picture.faces for picture in read_annotations(folder)}
        predictions = read_lines(lines)
        measured = {
            name: mean_average_precision(truth, predictions, min_side_px=side)
            for name, side in (("all faces", 0.0), (f"{CLEAR_FACE_PX:.0f} px and more", CLEAR_FACE_PX))
        }
    except (ValueError, DatasetUnusable) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps({name: _as_dict(accuracy) for name, accuracy in measured.items()}, indent=2))
        return
    click.echo(f"{len(truth)} pictures".ljust(20) + "".join(text.rjust(16) for text in ("mAP@0.5", *LABELS)))
    for name, accuracy in measured.items():
        each = (f"{accuracy.average_precision[label]:.3f} ({accuracy.faces[label]})" for label in LABELS)
        click.echo(name.ljust(20) + f"{accuracy.mean:.3f}".rjust(16) + "".join(text.rjust(16) for text in each))


def _as_dict(accuracy: Accuracy) -> dict[str, object]:
    return {"mAP@0.5": accuracy.mean, "average_precision": accuracy.average_precision, "faces": accuracy.faces}


if __name__ == "__main__":
    main()
