"""Sort the files of a data set by class folders: a listing in; the files of each label out. Pure.

A class folder may be at any depth, and everything below it has its label. A folder that is named for a class but has
folders of both classes below it, as mask/with_mask and mask/without_mask, only contains them. What is named for masks
that are worn incorrectly, or is to be ignored, has no label, wherever it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.vision.faces import LABELS, Label
from trainer.data.class_names import ClassNames, Meaning
from trainer.data.file_listing import Listing


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesByClass:
    """The files of a data set with class folders.

    files: of each label, sorted. unnamed: files and folders without a label; the files in such a folder are not listed.
    """

    files: Mapping[Label, list[Path]]
    unnamed: list[Path]


def files_by_class(listing: Listing, names: ClassNames) -> FilesByClass:
    """Sort files by the class folders that they are in."""
    classes = _class_folders(listing, names)
    files: dict[Label, list[Path]] = {label: [] for label in LABELS}
    for file in listing.files:
        label = _class_of(file, classes)
        if label == "mask" or label == "no_mask":
            files[label].append(file)
    return FilesByClass(files=files, unnamed=_unnamed(listing, classes))


def class_of_folder(folder: Path) -> Meaning | None:
    """Return the class that a folder is named for by default; None for another folder."""
    return ClassNames().meaning_of_folder(folder.name)


def _class_folders(listing: Listing, names: ClassNames) -> dict[Path, Meaning]:
    """Return the class of each class folder, without those that only contain others."""
    named = {folder: meaning for folder in listing.folders if (meaning := names.meaning_of_folder(folder.name))}
    below: dict[Path, set[Meaning]] = {}
    for folder, meaning in named.items():
        for parent in folder.parents:
            below.setdefault(parent, set()).add(meaning)
    return {folder: meaning for folder, meaning in named.items() if not below.get(folder, set()).issuperset(LABELS)}


def _class_of(path: Path, classes: Mapping[Path, Meaning]) -> Meaning | None:
    """Return the class of the highest class folder that holds a path, unless one of them has no label."""
    found = [classes[folder] for folder in (path, *path.parents) if folder in classes]
    unlabelled = [meaning for meaning in found if meaning not in LABELS]
    return unlabelled[0] if unlabelled else found[-1] if found else None


def _unnamed(listing: Listing, classes: Mapping[Path, Meaning]) -> list[Path]:
    """Return what has no label, a folder in place of all that is in it."""
    labelled = {folder for folder in classes if _class_of(folder, classes) in LABELS}
    containing = {listing.folder} | {parent for folder in labelled for parent in folder.parents}
    return [
        path
        for path in sorted([*listing.files, *listing.folders])
        if path not in containing and path.parent in containing | labelled and _class_of(path, classes) not in LABELS
    ]
