"""List a data set: its name in; files with labels, and a line for each file that cannot be used, out.

A data set is one of
- a folder with annotated photographs (annotations.py);
- a folder with a folder a class anywhere below it (class_folders.py);
- mask=PATH or no_mask=PATH, where everything in a folder (or one file) has that label; any other "=" is part of a path.
Pictures and video clips may be mixed, links are followed. A file that is missing, empty or without a label is left out
and gets one line, what tools leave behind is counted; a data set without any usable picture raises DatasetUnusable.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.vision.faces import LABELS, Label
from trainer.data.annotations import (
    ANNOTATION_SUFFIXES,
    AnnotatedDataset,
    AnnotatedFace,
    DatasetUnusable,
    LeftOutBox,
    usable_annotations,
)
from trainer.data.class_folders import class_of_folder, files_by_class
from trainer.data.class_names import ClassNames
from trainer.data.file_listing import CLIP_SUFFIXES, KNOWN_SUFFIXES, Listing, is_utf8, list_folder, printable
from trainer.data.yolo_names import YAML_SUFFIXES

# Folders of these names are parts of a data set: face-mask-12k/Train and face-mask-12k/Test are one source.
SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFile:
    """One file with its label, or, for an annotated photograph, its faces (label None)."""

    path: Path
    label: Label | None
    faces: tuple[AnnotatedFace, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetPath:
    """Where a data set is, and the label of all its files; None where the data set itself has the labels."""

    label: Label | None
    path: Path

    @classmethod
    def parse(cls, text: str) -> DatasetPath:
        """Parse PATH or LABEL=PATH."""
        for label in LABELS:
            if text.startswith(f"{label}="):
                return cls(label=label, path=Path(text.removeprefix(f"{label}=")))
        return cls(label=None, path=Path(text))

    def __str__(self) -> str:
        return self._named(str(self.path))

    def absolute(self) -> str:
        """Return it as text with an absolute path."""
        return self._named(str(self.path.absolute()))

    def without_location(self) -> str:
        """Return it as text with its short name in place of the path."""
        return self._named(dataset_name(self.path))

    def _named(self, path: str) -> str:
        return f"{self.label}={path}" if self.label else path


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSource:
    """One data set: its short name, the name it shares with its other parts, its files, and a line for each problem.

    boxes: those that are left out of its files; their lines are among the problems. leftovers: what tools left behind.
    """

    dataset: DatasetPath
    name: str
    collection: str
    items: tuple[DatasetFile, ...]
    problems: tuple[str, ...]
    boxes: tuple[LeftOutBox, ...] = ()
    leftovers: tuple[Path, ...] = ()


def read_source(text: str, names: ClassNames | None = None) -> DatasetSource:
    """List the files of a data set (PATH or LABEL=PATH), sorted by path; of a picture at most its header is read.

    Args:
        text: where it is.
        names: what class names mean; None means the defaults.

    Raises:
        DatasetUnusable: it is missing, is not a data set, or has no picture that can be used.
    """
    dataset = DatasetPath.parse(text)
    label, path = dataset.label, dataset.path
    if not path.exists():
        hint = ": to give all of it one label, write mask=PATH or no_mask=PATH" if label is None and "=" in text else ""
        raise DatasetUnusable(f"{printable(path)} does not exist{hint}")
    if not is_utf8(path.resolve()):
        raise DatasetUnusable(f"{printable(path)} has a name that is not UTF-8: rename it")
    if label is None and not path.is_dir():
        hint = f"name its label too, no_mask={path}"
        if path.suffix.lower() in ANNOTATION_SUFFIXES | YAML_SUFFIXES:
            hint = f"name the folder with its pictures, {path.parent}"
        raise DatasetUnusable(f"{printable(path)} is not a folder: {hint}")
    found = _of_one_label([path], label) if label and path.is_file() else _folder(path, label, names or ClassNames())
    empty = [item for item in found.items if item.path.stat().st_size == 0]
    problems = [*found.problems, *(f"{printable(item.path)} is empty" for item in empty)]
    usable = tuple(item for item in found.items if item not in empty)
    if not usable:
        why = f": {problems[0]}" if problems else ""
        raise DatasetUnusable(f"{printable(path)} has no picture that can be used{why}")
    return DatasetSource(
        dataset=dataset,
        name=dataset_name(path),
        collection=dataset_collection(path),
        items=usable,
        problems=tuple(f"{problem}: left out" for problem in problems),
        boxes=found.boxes,
        leftovers=found.leftovers,
    )


def is_clip(path: Path) -> bool:
    """Return whether a file is a video by its name."""
    return path.suffix.lower() in CLIP_SUFFIXES


def dataset_name(path: Path) -> str:
    """Return a data set's name without its location: the last part of its path, for a split also its parent's."""
    parts = path.resolve().parts
    return "/".join(parts[-2:] if parts[-1].lower() in SPLIT_NAMES else parts[-1:])


def dataset_collection(path: Path) -> str:
    """Return the name that all parts of a data set share: of the nearest folder that is neither a class nor a split."""
    resolved = path.resolve()
    folder = resolved.parent if resolved.is_file() else resolved
    while folder.parent.name and (class_of_folder(folder) or folder.name.lower() in SPLIT_NAMES):
        folder = folder.parent
    return folder.name


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """The files of a data set, and what of it is left out."""

    items: list[DatasetFile]
    problems: list[str]
    boxes: tuple[LeftOutBox, ...] = ()
    leftovers: tuple[Path, ...] = ()


def _folder(path: Path, label: Label | None, names: ClassNames) -> _Found:
    listing = list_folder(path, KNOWN_SUFFIXES if label else KNOWN_SUFFIXES | ANNOTATION_SUFFIXES)
    if label is not None:
        found = _of_one_label(listing.files, label)
    elif annotated := usable_annotations(listing, names):
        _check_is_of_one_kind(listing, annotated, names)
        found = _annotated(annotated)
    else:
        found = _class_folders(listing, names)
    return _Found(
        items=found.items,
        problems=listing.problems + found.problems,
        boxes=found.boxes,
        leftovers=tuple(listing.leftovers),
    )


def _check_is_of_one_kind(listing: Listing, annotated: AnnotatedDataset, names: ClassNames) -> None:
    """Raise DatasetUnusable if there are class folders of both labels in which nothing is annotated."""
    in_folders = files_by_class(listing, names).files
    has_boxes = {picture.path for picture in annotated.pictures}
    if all(in_folders.values()) and has_boxes.isdisjoint(file for files in in_folders.values() for file in files):
        folder = printable(listing.folder)
        raise DatasetUnusable(f"{folder} has class folders and annotated photographs: name each by itself")


def _class_folders(listing: Listing, names: ClassNames) -> _Found:
    items: list[DatasetFile] = []
    problems: list[str] = []
    by_class = files_by_class(listing, names)
    for label in LABELS:
        of_class = _of_one_label(by_class.files[label], label)
        items += of_class.items
        problems += of_class.problems
    problems += [f"{printable(path)} is not named for a class, mask or no mask" for path in by_class.unnamed]
    for needed, wanted in (("mask", "with_mask"), ("no_mask", "without_mask")):
        if not any(item.label == needed for item in items):
            raise DatasetUnusable(
                f"{printable(listing.folder)} has no pictures in a folder named {wanted}: one folder per class is "
                f"needed (--map FOLDER={needed} for another name), or boxes in files of Pascal VOC, COCO or YOLO"
            )
    return _Found(items=items, problems=problems)


def _of_one_label(files: list[Path], label: Label) -> _Found:
    items = [DatasetFile(path=file, label=label) for file in files if file.suffix.lower() in KNOWN_SUFFIXES]
    strange = [file for file in files if file.suffix.lower() not in KNOWN_SUFFIXES]
    problems = [f"{printable(file)} is neither a picture nor a video by its name" for file in strange]
    return _Found(items=items, problems=problems)


def _annotated(found: AnnotatedDataset) -> _Found:
    items = [DatasetFile(path=picture.path, label=None, faces=picture.faces) for picture in found.pictures]
    problems = [*found.problems, *(box.line for box in found.boxes), *found.alone]
    return _Found(items=items, problems=problems, boxes=found.boxes)
