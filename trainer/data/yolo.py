"""Read YOLO's text labels: text files, one for each picture, in; what they say out.

A line is a class number with a box (centre x, centre y, width, height) or with a polygon, as shares of the picture's
sides. Pictures and labels are in `images` and `labels`, with a folder for each split or without, or side by side.
yolo_names.py finds out what the numbers mean. The shares are of the picture as it is seen, turned as its EXIF data ask:
this is what YOLO's tools write and train on. Text files without a picture are lists and notes, unless they look like
labels. A file that cannot be used gets one line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.vision.faces import Box
from trainer.data.annotation import AnnotatedObject, Annotation, box_round, read_object, shortened
from trainer.data.decoding import PictureUnusable
from trainer.data.file_listing import Listing, printable
from trainer.data.orientation import read_header
from trainer.data.picture_finder import PictureFinder, missing_picture
from trainer.data.yolo_names import NAME_LISTS

TEXT_SUFFIXES = frozenset({".txt"})
BOX_NUMBERS = 4
SNIFFED_BYTES = 4096
TOLERANCE = 0.02  # of polygons that reach over an edge, as a share of the side; key points may be -1, a polygon never


def yolo_files(listing: Listing, finder: PictureFinder) -> list[Path]:
    """Return the label files of a data set: text files that have a picture, or look like labels; none without both."""
    texts = [file for file in listing.with_suffix(TEXT_SUFFIXES) if file.name.lower() not in NAME_LISTS]
    if not any(finder.has_beside(file) and _looks_like_labels(file) for file in texts):
        return []
    return [file for file in texts if finder.has_beside(file) or _looks_like_labels(file)]


def read_yolo(
    files: Sequence[Path], names: Mapping[int, str], finder: PictureFinder
) -> tuple[list[Annotation], list[str]]:
    """Read label files in order; return what they say, and a line for each that cannot be used.

    names: of class numbers; the name of another number is the number.
    """
    found: list[Annotation] = []
    problems: list[str] = []
    for file in files:
        try:
            found.append(_read(file, names, finder))
        except OSError as error:
            problems.append(f"{printable(file)} cannot be read ({error.strerror})")
        except ValueError as error:
            problems.append(f"{printable(file)}: {error}")
    return found, problems


def _looks_like_labels(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            lines = opened.read(SNIFFED_BYTES).decode("utf-8-sig", "replace").split("\n")
        words = next((line.split() for line in lines if line.strip()), [])
        return len([float(word) for word in words]) > BOX_NUMBERS
    except (OSError, ValueError):
        return False


def _read(file: Path, names: Mapping[int, str], finder: PictureFinder) -> Annotation:
    picture = finder.beside(file)
    if picture is None:
        raise ValueError(missing_picture(file.stem))
    objects: tuple[AnnotatedObject, ...] = ()
    with suppress(PictureUnusable):  # the picture is reported when it is decoded
        width, height = read_header(picture).upright_size
        lines = file.read_bytes().decode("utf-8-sig", "replace").splitlines()
        objects = tuple(_object(line.split(), names, width, height) for line in lines if line.strip())
    return Annotation(file=file, picture=picture, size=None, objects=objects, is_upright=True)


def _object(words: Sequence[str], names: Mapping[int, str], width: int, height: int) -> AnnotatedObject:
    """Read a line's words; width and height are the upright picture's, in pixels."""

    def box() -> Box:
        x1, y1, x2, y2 = _shares([float(word) for word in words[1:]])
        return x1 * width, y1 * height, x2 * width, y2 * height

    return read_object(_name(words[0], names), box)


def _name(number: str, names: Mapping[int, str]) -> str:
    """Return the name of a class number, which some tools write as 1.0."""
    try:
        value = float(number)
    except ValueError:
        return number
    return names.get(int(value), str(int(value))) if math.isfinite(value) and value.is_integer() else number


def _shares(numbers: Sequence[float]) -> Box:
    """Return x1, y1, x2, y2 of a box or of the box round a polygon.

    An odd count is a box with something behind it: the score of a network, or key points with their visibility.
    """
    if len(numbers) > BOX_NUMBERS and len(numbers) % 2 == 0:
        if not all(-TOLERANCE <= number <= 1 + TOLERANCE for number in numbers):
            raise ValueError(f"the polygon {shortened(str(numbers))} is not inside the picture")
        return box_round(numbers)
    if len(numbers) < BOX_NUMBERS:
        raise ValueError(f"a line with {shortened(str(numbers))} has no box")
    x, y, width, height = numbers[:BOX_NUMBERS]
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2
