"""Read photographs with annotated faces: what a folder holds in; pictures with boxes and labels out.

The annotations are Pascal VOC (voc.py), COCO (coco.py) or YOLO's (yolo.py): the first of these that a folder holds.
Boxes are turned with their pictures (orientation.py). An annotation that does not parse, or whose picture is missing,
annotated twice or not the one that was annotated, gets one line, and so does a box that cannot be used. A class name
whose meaning is not known raises DatasetUnusable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from pipeline.vision.faces import Box
from trainer.data.annotation import AnnotatedObject, Annotation
from trainer.data.class_names import ClassNames, WornAs, unknown_names_text
from trainer.data.coco import JSON_SUFFIXES, coco_files, read_coco
from trainer.data.decoding import PictureUnusable
from trainer.data.file_listing import KNOWN_SUFFIXES, PICTURE_SUFFIXES, Listing, list_folder, printable
from trainer.data.orientation import UPRIGHT, orientation_of_boxes, read_header, turned
from trainer.data.picture_finder import PictureFinder
from trainer.data.voc import FOLDER_NAME, XML_SUFFIXES, read_voc, voc_files
from trainer.data.yolo import TEXT_SUFFIXES, read_yolo, yolo_files
from trainer.data.yolo_names import yolo_names

ANNOTATION_SUFFIXES = XML_SUFFIXES | JSON_SUFFIXES | TEXT_SUFFIXES


class DatasetUnusable(ValueError):
    """A data set cannot be trained on or measured with; the message is one line for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedFace:
    """One face: its box (x1, y1, x2, y2 in pixels of the upright picture) and how its mask is worn."""

    box: Box
    worn: WornAs


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedPicture:
    """One photograph and all its faces."""

    path: Path
    faces: tuple[AnnotatedFace, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOutBox:
    """A face that is left out because of its box.

    frame: of a clip, else 0. number: of the face in its picture, from 0. label: its class name. box: the part inside
    the picture; None for one that cannot be used. problem: the reason. line: the reason with the file that it is in.
    """

    picture: Path
    frame: int = 0
    number: int
    label: str
    box: Box | None
    problem: str
    line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedDataset:
    """The annotated pictures of a folder.

    pictures: those that can be used, sorted by path. boxes: those that are left out of them. problems: a line for each
    annotation that cannot be used. alone: a line for each file that no annotation is about.
    """

    pictures: tuple[AnnotatedPicture, ...]
    boxes: tuple[LeftOutBox, ...]
    problems: tuple[str, ...]
    alone: tuple[str, ...]


def read_annotations(folder: Path, names: ClassNames | None = None) -> list[AnnotatedPicture]:
    """Read all annotations of a folder, sorted by picture name; raise DatasetUnusable if any cannot be used.

    names: what class names mean; None means the defaults.
    """
    listing = list_folder(folder, ANNOTATION_SUFFIXES | PICTURE_SUFFIXES)
    found = usable_annotations(listing, names or ClassNames())
    if found is None:
        where = f"{printable(folder)}/{FOLDER_NAME}" if (folder / FOLDER_NAME).is_dir() else printable(folder)
        raise DatasetUnusable(f"{where} has no .xml files, and there are no labels of COCO or YOLO either")
    if problems := [*listing.problems, *found.problems, *(box.line for box in found.boxes)]:
        raise DatasetUnusable(problems[0])
    return list(found.pictures)


def usable_annotations(listing: Listing, names: ClassNames) -> AnnotatedDataset | None:
    """Read the usable annotations of a folder; None if it holds none at all.

    Raises:
        DatasetUnusable: a class name is not known.
    """
    finder = PictureFinder(listing.files)
    files, annotations, problems = _read(listing, finder)
    if not files:
        return None
    _check_names(listing.folder, annotations, names)
    first = {one.picture: one for one in reversed(annotations)}
    for one in annotations:
        if one is not first[one.picture]:
            what = f"its picture {printable(Path(one.picture.name))} has another annotation already"
            problems.append(f"{printable(one.file)}: {what}")
    pictures, boxes, refused = _pictures([first[path] for path in sorted(first)], names)
    return AnnotatedDataset(
        pictures=tuple(pictures),
        boxes=tuple(boxes),
        problems=(*problems, *refused),
        alone=tuple(_alone(listing, files, first.keys())),
    )


def _read(listing: Listing, finder: PictureFinder) -> tuple[Sequence[Path], list[Annotation], list[str]]:
    """Return the annotation files of the first format that there is, what they say, and a line for each problem."""
    if files := voc_files(listing):
        return files, *read_voc(files, finder)
    if files := coco_files(listing):
        return files, *read_coco(files, finder)
    if files := yolo_files(listing, finder):
        try:
            names = yolo_names(listing)
        except ValueError as error:
            raise DatasetUnusable(str(error)) from error
        return files, *read_yolo(files, names, finder)
    return (), [], []


def _alone(listing: Listing, files: Sequence[Path], annotated: Set[Path]) -> Iterator[str]:
    """Yield a line for each picture and clip without annotation, and for each strange file beside Pascal VOC's.

    The other formats have lists and notes of their own beside their labels.
    """
    stems = {file.stem for file in files}  # an annotation that cannot be used has been reported
    is_voc = files[0].suffix.lower() in XML_SUFFIXES
    folders = {file.parent for file in files} if is_voc else set()
    beside = {picture.parent for picture in annotated} if is_voc else set()
    for file in listing.files:
        is_known = file.suffix.lower() in KNOWN_SUFFIXES
        if file in annotated or file.suffix.lower() in XML_SUFFIXES:
            continue
        if file.parent in folders and not is_known:
            yield f"{printable(file)} is not an .xml file"
        elif file.stem not in stems and (is_known or file.parent in beside):
            yield f"{printable(file)} has no annotation"


def _check_names(folder: Path, annotations: Sequence[Annotation], names: ClassNames) -> None:
    found = {one.name for annotation in annotations for one in annotation.objects}
    unknown = {name for name in found if names.meaning_of(name) is None}
    if unknown:
        raise DatasetUnusable(unknown_names_text(printable(folder), found, unknown))


def _pictures(
    annotations: Sequence[Annotation], names: ClassNames
) -> tuple[list[AnnotatedPicture], list[LeftOutBox], list[str]]:
    """Return the pictures that can be used, the boxes that cannot, and a line for each other picture."""
    pictures: list[AnnotatedPicture] = []
    boxes: list[LeftOutBox] = []
    problems: list[str] = []
    for one in annotations:
        try:
            faces, left_out = _faces(one, names)
        except ValueError as error:
            problems.append(f"{printable(one.picture)}: {error}")
            continue
        boxes += left_out
        if faces or not left_out:  # otherwise its boxes have been reported
            pictures.append(AnnotatedPicture(path=one.picture, faces=faces))
    return pictures, boxes, problems


def _faces(one: Annotation, names: ClassNames) -> tuple[tuple[AnnotatedFace, ...], list[LeftOutBox]]:
    """Return the faces of a picture with upright boxes, and those whose boxes cannot be used.

    Raises:
        ValueError: it is not known how the boxes lie on the picture.
    """
    faces: list[AnnotatedFace] = []
    left_out: list[LeftOutBox] = []
    for number, thing in enumerate(one.objects):
        worn = names.meaning_of(thing.name)
        if worn is None or worn == "ignore":
            continue
        if thing.box is None:
            left_out.append(_left_out(one, number, thing))
        else:
            faces.append(AnnotatedFace(box=thing.box, worn=worn))
    return _upright(one, faces), left_out


def _left_out(one: Annotation, number: int, thing: AnnotatedObject) -> LeftOutBox:
    is_of_many = one.file.suffix.lower() in JSON_SUFFIXES
    where = printable(one.file) + (f": {printable(Path(one.picture.name))}" if is_of_many else "")
    return LeftOutBox(
        picture=one.picture,
        number=number,
        label=thing.name,
        box=None,
        problem=thing.problem,
        line=f"{where}: {thing.problem}",
    )


def _upright(one: Annotation, faces: list[AnnotatedFace]) -> tuple[AnnotatedFace, ...]:
    if one.is_upright or not faces:
        return tuple(faces)
    try:
        header = read_header(one.picture)
    except PictureUnusable:  # it is reported when it is decoded
        return tuple(faces)
    orientation = orientation_of_boxes(header, one.size)
    if orientation == UPRIGHT:
        return tuple(faces)
    return tuple(AnnotatedFace(box=turned(face.box, header, orientation), worn=face.worn) for face in faces)
