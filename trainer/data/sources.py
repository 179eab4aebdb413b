"""List a data set: its name in; files with labels, and a line for each file that cannot be used, out.

A data set is one of
- a folder with a folder a class: WithMask, with_mask or mask, and WithoutMask, without_mask or no_mask;
- a folder with `annotations` (Pascal VOC) and `images`;
- mask=PATH or no_mask=PATH, where everything in a folder (or one file) has that label; any other "=" is part of a path.
Pictures and video clips may be mixed, links are followed. A file that is missing, empty or without a label is left out
and gets one line; a data set without any usable picture raises DatasetUnusable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.vision.faces import LABELS, Label
from trainer.data.annotations import AnnotatedFace, DatasetUnusable, has_annotations, usable_annotations
from trainer.data.file_listing import files_below, is_utf8, printable

MASK_FOLDERS = frozenset({"mask", "masked", "withmask"})
NO_MASK_FOLDERS = frozenset({"nomask", "unmasked", "withoutmask"})
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
CLIP_SUFFIXES = frozenset({".mkv", ".mp4", ".mov", ".avi", ".webm"})
KNOWN_SUFFIXES = PICTURE_SUFFIXES | CLIP_SUFFIXES
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
    """One data set: its short name, the name it shares with its other parts, its files, and a line for each problem."""

    dataset: DatasetPath
    name: str
    collection: str
    items: tuple[DatasetFile, ...]
    problems: tuple[str, ...]


def read_source(text: str) -> DatasetSource:
    """List the files of a data set (PATH or LABEL=PATH), sorted by path; nothing is decoded.

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
    if label is not None:
        items, problems = _of_one_label(path, label)
    elif not path.is_dir():
        raise DatasetUnusable(f"{path} is not a folder: name its label too, no_mask={path}")
    elif has_annotations(path):
        items, problems = _annotated(path)
    else:
        items, problems = _class_folders(path)
    empty = [item for item in items if item.path.stat().st_size == 0]
    problems += [f"{printable(item.path)} is empty" for item in empty]
    usable = tuple(item for item in items if item not in empty)
    if not usable:
        why = f": {problems[0]}" if problems else ""
        raise DatasetUnusable(f"{printable(path)} has no picture that can be used{why}")
    left_out = tuple(f"{problem}: left out" for problem in problems)
    return DatasetSource(
        dataset=dataset, name=dataset_name(path), collection=dataset_collection(path), items=usable, problems=left_out
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
    while folder.parent.name and (_label_of_folder(folder) or folder.name.lower() in SPLIT_NAMES):
        folder = folder.parent
    return folder.name


def _class_folders(folder: Path) -> tuple[list[DatasetFile], list[str]]:
    items: list[DatasetFile] = []
    problems: list[str] = []
    for child in sorted(folder.iterdir()):
        if child.is_dir() and (label := _label_of_folder(child)):
            of_class, strange = _of_one_label(child, label)
            items += of_class
            problems += strange
        elif not child.name.startswith("."):
            problems.append(f"{printable(child)} is not named for a class, mask or no mask")
    for needed, wanted in (("mask", "with_mask"), ("no_mask", "without_mask")):
        if not any(item.label == needed for item in items):
            raise DatasetUnusable(
                f"{folder} has no pictures in a folder named {wanted}: one folder per class is needed"
            )
    return items, problems


def _label_of_folder(folder: Path) -> Label | None:
    """Return the label of a class folder's name; None for another folder."""
    name = re.sub(r"[^a-z]", "", folder.name.lower())
    return "mask" if name in MASK_FOLDERS else "no_mask" if name in NO_MASK_FOLDERS else None


def _of_one_label(path: Path, label: Label) -> tuple[list[DatasetFile], list[str]]:
    found, problems = ([path], []) if path.is_file() else files_below(path, KNOWN_SUFFIXES)
    items = [DatasetFile(path=file, label=label) for file in found if file.suffix.lower() in KNOWN_SUFFIXES]
    strange = [file for file in found if file.suffix.lower() not in KNOWN_SUFFIXES and not file.name.startswith(".")]
    problems += [f"{printable(file)} is neither a picture nor a video by its name" for file in strange]
    return items, problems


def _annotated(folder: Path) -> tuple[list[DatasetFile], list[str]]:
    pictures, problems = usable_annotations(folder)
    named = {picture.path for picture in pictures}
    stems = {file.stem for file in (folder / "annotations").iterdir()}  # unusable ones have been reported
    found, strange = files_below(folder / "images", PICTURE_SUFFIXES)
    alone = [file for file in found if file not in named and file.stem not in stems and not file.name.startswith(".")]
    problems += strange + [f"{printable(file)} has no annotation" for file in alone]
    return [DatasetFile(path=picture.path, label=None, faces=picture.faces) for picture in pictures], problems
