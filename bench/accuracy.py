"""Measure detection and labelling together: mean average precision (mAP) at an intersection over union of 0.5.

    maskwatch label FOLDER/images --json out.jsonl
    python -m bench.accuracy out.jsonl FOLDER [--only HASHES]

In: the JSON lines of `maskwatch label --json`, and the folder with the images and their Pascal VOC annotations. Out: a
table, or JSON with --json; mAP is the mean over the labels (precision.py). An image without line, a line without image,
or a line with an error fails with status 1, so that no figure covers only some of the images by accident. To measure on
some of them, list their hashes with --only.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

import click
import msgspec

from bench.average_precision import mean_average_precision
from models.files import sha256_of
from pipeline.vision.faces import LABELS, Face
from trainer.data.annotations import AnnotatedPicture, read_annotations
from trainer.data.class_names import ClassNames
from trainer.data.hash_list import HASH_DIGITS, read_hashes
from trainer.reports.evaluate import CLEAR_FACE_PX

# By name: of the faces that are measured, their shorter side.
MIN_SIDES_PX = {"all faces": 0.0, f"{CLEAR_FACE_PX} px and more": CLEAR_FACE_PX}

only_option = click.option(
    "--only",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"Measure only the files in this list: the first {HASH_DIGITS} digits of a file's SHA-256 on each line.",
)

map_option = click.option(
    "--map",
    "class_names",
    multiple=True,
    metavar="NAME=mask|no_mask|ignore",
    help="What a class name of a data set means, if it is none of the usual ones.",
)


class LabelLine(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a line of `maskwatch label --json` that are used here."""

    name: str
    faces: tuple[Face, ...] = ()
    error: str | None = None


def read_label_lines(path: Path, only: Collection[str] | None = None) -> dict[str, tuple[Face, ...]]:
    """Return the labelled faces of each image, or of the images named in `only`.

    Raises:
        ValueError: a line is invalid, has an error, or is the second of its image.
    """
    found: dict[str, tuple[Face, ...]] = {}
    for number, text in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            line = msgspec.json.decode(text, type=LabelLine)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        if only is not None and line.name not in only:
            continue
        if line.error is not None:
            raise ValueError(f"{path}, line {number}: {line.name} was not labelled ({line.error})")
        if line.name in found:
            raise ValueError(f"{path}, line {number}: {line.name} comes twice")
        found[line.name] = line.faces
    return found


def select_pictures(pictures: Sequence[AnnotatedPicture], hashes: Path) -> list[AnnotatedPicture]:
    """Return the images listed in a file, which may list images of other data sets too.

    Raises:
        ValueError: a line is not a hash, or no image is listed.
    """
    wanted = read_hashes(hashes)
    found = [picture for picture in pictures if sha256_of(picture.path.read_bytes())[:HASH_DIGITS] in wanted]
    if not found:
        raise ValueError(f"{hashes} lists none of the {len(pictures)} annotated pictures: there is nothing to measure")
    return found


@click.command()
@click.argument("lines", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@only_option
@map_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(lines: Path, folder: Path, only: Path | None, class_names: tuple[str, ...], as_json: bool) -> None:
    """Print the mAP of LINES (JSON lines of `maskwatch label --json`) against the annotations in FOLDER."""
    try:
        pictures = read_annotations(folder, ClassNames(class_names))
        if only is not None:
            pictures = select_pictures(pictures, only)
        truth = {picture.path.name: picture.faces for picture in pictures}
        predictions = read_label_lines(lines, None if only is None else truth)
        measured = {
            name: mean_average_precision(truth, predictions, min_side_px=side_px)
            for name, side_px in MIN_SIDES_PX.items()
        }
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        figures = {
            name: {"mAP@0.5": found.mean, "average_precision": found.average_precision, "faces": found.faces}
            for name, found in measured.items()
        }
        click.echo(json.dumps(figures, indent=2))
        return
    click.echo(f"{len(truth)} pictures".ljust(20) + "".join(text.rjust(16) for text in ("mAP@0.5", *LABELS)))
    for name, accuracy in measured.items():
        each = (f"{accuracy.average_precision[label]:.3f} ({accuracy.faces[label]})" for label in LABELS)
        click.echo(name.ljust(20) + f"{accuracy.mean:.3f}".rjust(16) + "".join(text.rjust(16) for text in each))


if __name__ == "__main__":
    main()
