"""Read photographs with annotated faces: a folder in, pictures with boxes and labels out.

The folder has `annotations` (Pascal VOC, one XML file per picture) and `images`. An annotation that does not parse, or
whose picture is missing or annotated twice, gets one line; a folder without annotations raises DatasetUnusable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from trainer.data.file_listing import files_below, printable

ANNOTATION_SUFFIXES = frozenset({".xml"})
MAX_QUOTED_CHARS = 60  # of a file's content in an error message
MAX_MESSAGE_CHARS = 300
# A mask worn incorrectly is neither of the two labels.
WornAs = Literal["mask", "no_mask", "incorrect"]
WORN_AS: dict[str, WornAs] = {
    "with_mask": "mask",
    "without_mask": "no_mask",
    "mask_weared_incorrect": "incorrect",
}


class DatasetUnusable(ValueError):
    """A data set cannot be trained on or measured with; the message is one line for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedFace:
    """One face: its box (x1, y1, x2, y2 in pixels) and how its mask is worn."""

    box: tuple[float, float, float, float]
    worn: WornAs


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedPicture:
    """One photograph and all its faces."""

    path: Path
    faces: tuple[AnnotatedFace, ...]


def has_annotations(folder: Path) -> bool:
    """Return whether a data folder holds annotated photographs rather than class folders."""
    return (folder / "annotations").is_dir()


def read_annotations(folder: Path) -> list[AnnotatedPicture]:
    """Read all annotations of a folder, sorted by picture name; raise DatasetUnusable if any cannot be used."""
    pictures, problems = usable_annotations(folder)
    if problems:
        raise DatasetUnusable(problems[0])
    return pictures


def usable_annotations(folder: Path) -> tuple[list[AnnotatedPicture], list[str]]:
    """Read a folder's usable annotations, sorted by picture name, and a line for each unusable one."""
    listed, problems = files_below(folder / "annotations", ANNOTATION_SUFFIXES)
    files = [file for file in listed if file.suffix.lower() in ANNOTATION_SUFFIXES]
    if not files:
        raise DatasetUnusable(f"{printable(folder)}/annotations has no .xml files")
    problems += [f"{printable(file)} is not an .xml file" for file in listed if file not in files]
    by_picture: dict[Path, AnnotatedPicture] = {}
    for file in files:
        try:
            picture = _read(file, folder / "images")
            if picture.path in by_picture:
                raise ValueError(f"its picture {printable(Path(picture.path.name))} has another annotation already")
        # LookupError: an encoding that Python does not know.
        except (ElementTree.ParseError, ValueError, LookupError, OSError) as error:
            problems.append(f"{printable(file)}: {_brief(str(error), MAX_MESSAGE_CHARS)}")
        else:
            by_picture[picture.path] = picture
    return sorted(by_picture.values(), key=lambda picture: picture.path), problems


def _read(path: Path, images: Path) -> AnnotatedPicture:
    root = ElementTree.parse(path).getroot()  # noqa: S314  # the user's own data; expat 2.4 bounds entities
    picture = images / Path(_text(root, "filename")).name
    faces = tuple(_face(element) for element in root.iter("object"))
    if not _is_there(picture):
        raise ValueError(f"its picture {_brief(printable(Path(picture.name)))} is missing")
    return AnnotatedPicture(path=picture, faces=faces)


def _face(element: ElementTree.Element) -> AnnotatedFace:
    box = (
        float(_text(element, "bndbox/xmin")),
        float(_text(element, "bndbox/ymin")),
        float(_text(element, "bndbox/xmax")),
        float(_text(element, "bndbox/ymax")),
    )
    name = _text(element, "name")
    if name not in WORN_AS:
        raise ValueError(f"a face is named {_brief(name)!r}, not one of {', '.join(WORN_AS)}")
    if not all(map(math.isfinite, box)):
        raise ValueError(f"the box {box} is unusable: its numbers are not finite")
    if not (box[0] < box[2] and box[1] < box[3]):
        raise ValueError(f"the box {box} has no area")
    return AnnotatedFace(box=box, worn=WORN_AS[name])


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"<{path}> is missing")
    return text


def _is_there(picture: Path) -> bool:
    try:
        return picture.is_file()
    except OSError:  # the name is too long for a file
        return False


def _brief(text: str, limit: int = MAX_QUOTED_CHARS) -> str:
    """Shorten a text that is too long for one line."""
    return text if len(text) <= limit else text[:limit] + "..."
