"""Measure how well pictures are labelled, from detection to label: mean average precision (mAP) at an overlap of half.

    maskwatch label PICTURES/images --json out.jsonl
    python -m bench.accuracy out.jsonl PICTURES [--only HASHES]

In: the JSON lines of `maskwatch label --json` and the folder with the Pascal VOC annotations (and images) of the same
pictures. Out: a small table, or JSON with --json; mAP is the mean over the labels (precision.py). A picture without its
line, a line without its picture, or a line with an error fails with status 1: a figure over some of the pictures would
look like one over all. To measure on some of them, list them: with --only the others do not count.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from string import hexdigits

import click
import msgspec

from bench.precision import Accuracy, Prediction, mean_average_precision
from models.files import sha256_of
from pipeline.vision.faces import LABELS
from trainer.data.annotations import AnnotatedFace, AnnotatedPicture, read_annotations

# Faces whose shorter side is at least this are also counted apart.
CLEAR_FACE_PX = 16.0
# So many digits of a picture file's SHA-256 name it.
HASH_DIGITS = 16


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `maskwatch label --json`, as far as it matters here."""

    name: str
    faces: tuple[Prediction, ...] = ()
    error: str | None = None


def read_lines(path: Path, only: Collection[str] | None = None) -> dict[str, tuple[Prediction, ...]]:
    """Read the labelled faces of each picture; with `only`, of the pictures of these names.

    Raises:
        ValueError: a line is malformed, is of a picture that could not be labelled, or comes twice.
    """
    found: dict[str, tuple[Prediction, ...]] = {}
    for number, text in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            line = msgspec.json.decode(text, type=Line)
        except msgspec.DecodeError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        if only is not None and line.name not in only:
            continue
        if line.error is not None:
            raise ValueError(f"{path}, line {number}: {line.name} was not labelled ({line.error})")
        if line.name in found:
            raise ValueError(f"{path}, line {number}: {line.name} comes twice")
        found[line.name] = line.faces
    return found


def listed(pictures: Sequence[AnnotatedPicture], hashes: Path) -> list[AnnotatedPicture]:
    """Return the pictures that a file lists.

    Hashes of other pictures are fine, since one list may be for several data sets.

    Raises:
        ValueError: a line is no hash, or no picture is listed.
    """
    wanted = read_hashes(hashes)
    found = [picture for picture in pictures if sha256_of(picture.path.read_bytes())[:HASH_DIGITS] in wanted]
    if not found:
        raise ValueError(f"{hashes} lists none of the {len(pictures)} annotated pictures: there is nothing to measure")
    return found


def read_hashes(path: Path) -> frozenset[str]:
    """Read a list of files: the start of a file's SHA-256 on each line, blank lines and what follows a # left out.

    Raises:
        ValueError: a line is no hash.
    """
    wanted = set()
    for number, text in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        name = text.partition("#")[0].strip().lower()
        if not name:
            continue
        if len(name) != HASH_DIGITS or not set(name) <= set(hexdigits):
            raise ValueError(f"{path}, line {number}: {name!r} is not the first {HASH_DIGITS} digits of a SHA-256")
        wanted.add(name)
    return frozenset(wanted)


@click.command()
@click.argument("lines", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--only",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"Count only the pictures in this list: the first {HASH_DIGITS} digits of a file's SHA-256 on each line.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(lines: Path, folder: Path, only: Path | None, as_json: bool) -> None:
    """Print the mAP of LINES (JSON lines of `maskwatch label --json`) against the annotations in FOLDER."""
    try:
        pictures = read_annotations(folder)
        if only is not None:
            pictures = listed(pictures, only)
        truth = {picture.path.name: picture.faces for picture in pictures}
        measured = _measured(truth, read_lines(lines, None if only is None else truth))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps({name: _as_dict(accuracy) for name, accuracy in measured.items()}, indent=2))
        return
    click.echo(f"{len(truth)} pictures".ljust(20) + "".join(text.rjust(16) for text in ("mAP@0.5", *LABELS)))
    for name, accuracy in measured.items():
        each = (f"{accuracy.average_precision[label]:.3f} ({accuracy.faces[label]})" for label in LABELS)
        click.echo(name.ljust(20) + f"{accuracy.mean:.3f}".rjust(16) + "".join(text.rjust(16) for text in each))


def _measured(
    truth: Mapping[str, Sequence[AnnotatedFace]], predictions: Mapping[str, Sequence[Prediction]]
) -> dict[str, Accuracy]:
    return {
        name: mean_average_precision(truth, predictions, min_side_px=side)
        for name, side in (("all faces", 0.0), (f"{CLEAR_FACE_PX:.0f} px and more", CLEAR_FACE_PX))
    }


def _as_dict(accuracy: Accuracy) -> dict[str, object]:
    return {"mAP@0.5": accuracy.mean, "average_precision": accuracy.average_precision, "faces": accuracy.faces}


if __name__ == "__main__":
    main()
