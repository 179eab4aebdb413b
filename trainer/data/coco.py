"""Read COCO annotations: JSON files, each for many pictures, in; what they say out.

Such are Roboflow's `_annotations.coco.json` and COCO's own `annotations/instances_*.json`. An object without `bbox` has
the box round its polygons. A file that does not parse gets one line, and so does a picture that is missing.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from pipeline.vision.faces import Box
from trainer.data.annotation import (
    MAX_MESSAGE_CHARS,
    AnnotatedObject,
    Annotation,
    box_round,
    read_object,
    shortened,
)
from trainer.data.file_listing import Listing, printable
from trainer.data.picture_finder import PictureFinder, missing_picture

JSON_SUFFIXES = frozenset({".json"})
COCO_PREFIX = "instances_"  # of COCO's own files, before the name of their split
KEYS = (b'"images"', b'"annotations"', b'"categories"')


class _Image(Struct, frozen=True):
    id: int | str
    file_name: str
    width: float | None = None
    height: float | None = None


class _Object(Struct, frozen=True):
    """bbox: x, y, width, height in pixels. segmentation: polygons, each x, y, x, y... Neither is checked yet."""

    image_id: int | str
    category_id: int | str | None = None
    bbox: Any = None
    segmentation: Any = None


class _Category(Struct, frozen=True):
    id: int | str
    name: str


class _Document(Struct, frozen=True):
    images: list[_Image]
    annotations: list[_Object]
    categories: list[_Category]


def coco_files(listing: Listing) -> list[Path]:
    """Return the JSON files of a data set that are COCO's by their names, or by their keys."""
    return [file for file in listing.with_suffix(JSON_SUFFIXES) if _is_named_so(file) or _has_keys(file)]


def read_coco(files: Sequence[Path], finder: PictureFinder) -> tuple[list[Annotation], list[str]]:
    """Read annotation files in order; return what they say of each picture, and a line for each problem."""
    found: list[Annotation] = []
    problems: list[str] = []
    for file in files:
        try:
            # The standard library's parser, because it reads the NaN that Python writes.
            document = msgspec.convert(json.loads(file.read_bytes()), _Document)
        except (ValueError, RecursionError, OSError) as error:
            reason = shortened(str(error), MAX_MESSAGE_CHARS)
            problems.append(f"{printable(file)} is not a COCO file that can be read ({reason})")
            continue
        of_file, strange = _of_document(document, file, finder)
        found += of_file
        problems += [f"{printable(file)}: {problem}" for problem in strange]
    return found, problems


def _is_named_so(file: Path) -> bool:
    name = file.name.lower()
    return name.endswith(".coco.json") or name.startswith(COCO_PREFIX)


def _has_keys(file: Path) -> bool:
    try:
        content = file.read_bytes()
    except OSError:
        return False
    return all(key in content for key in KEYS)


def _of_document(document: _Document, file: Path, finder: PictureFinder) -> tuple[list[Annotation], list[str]]:
    found: list[Annotation] = []
    problems: list[str] = []
    names = {category.id: category.name for category in document.categories}
    objects: dict[int | str, list[AnnotatedObject]] = defaultdict(list)
    for one in document.annotations:
        objects[one.image_id].append(_object(one, names))
    for image in document.images:
        of_image = tuple(objects.pop(image.id, ()))
        try:
            picture = finder.named(image.file_name, _likely_place(file, image.file_name))
        except ValueError as error:
            problems.append(f"{shortened(image.file_name)}: {error}")
            continue
        if picture is None:
            problems.append(missing_picture(image.file_name))
            continue
        size = (image.width, image.height) if image.width and image.height else None
        found.append(Annotation(file=file, picture=picture, size=size, objects=of_image))
    problems += [f"image {shortened(str(id_))} has objects, but is not listed" for id_ in objects]
    return found, problems


def _likely_place(file: Path, name: str) -> Path:
    """Return where a picture is likely to be: below the JSON file's folder, or in one named for its split."""
    split = file.stem.removeprefix(COCO_PREFIX) if file.name.startswith(COCO_PREFIX) else ""
    return file.parent / split / name.replace("\\", "/")


def _object(one: _Object, names: dict[int | str, str]) -> AnnotatedObject:
    def box() -> Box:
        if one.bbox:
            x, y, width, height = _numbers(one.bbox, 4)
            return x, y, x + width, y + height
        if not isinstance(one.segmentation, list) or not one.segmentation:
            raise ValueError("an object has neither a bbox nor polygons")
        return box_round([number for polygon in one.segmentation for number in _numbers(polygon)])

    name = names.get(one.category_id) if one.category_id is not None else None
    return read_object(str(one.category_id) if name is None else name.strip(), box)


def _numbers(numbers: object, count: int | None = None) -> list[float]:
    """Return a list of numbers, so many if a count is given; raise ValueError for anything else."""
    try:
        found = msgspec.convert(numbers, list[float], strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"the box {shortened(str(numbers))} is unusable: {error}") from error
    if count not in (None, len(found)):
        raise ValueError(f"the box {shortened(str(numbers))} has {len(found)} numbers instead of {count}")
    return found
