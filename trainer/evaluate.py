"""Measure a classifier on test data: a network's function and a data folder in, named figures out.

Two kinds of folders: class folders (dataset.py) are measured picture by picture, annotated photographs (annotations.py)
face by face, with the crops that serving would make of the annotated boxes. Nothing is ever chosen by these figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.mask_classifier import Classify, Floats, Pixels, crop_faces
from trainer import dataset
from trainer.annotations import AnnotatedPicture, has_annotations, read_annotations

# Faces whose shorter side is at least this are counted apart too: below it people disagree as well.
CLEAR_FACE_PX = 16
THRESHOLD = 0.5
BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledFaces:
    """Crops uint8 n x S x S x 3 RGB, whether each wears a mask (bool n), and the shorter side of its box (px, n)."""

    crops: Pixels
    has_mask: NDArray[np.bool_]
    side_px: Floats


def evaluate(networks: Mapping[str, Classify], folder: Path, *, size_px: int, margin: float) -> dict[str, float]:
    """Measure networks on one data folder.

    Args:
        networks: by name, each from uint8 n x S x S x 3 RGB to float32 n; the name ends the name of each figure.
        folder: class folders or annotated photographs.
        size_px: side S of the crops.
        margin: of the crops from annotated photographs; pictures in class folders are taken whole.

    Returns:
        By name, counts and shares 0..1. Figures of annotated photographs come twice, the second time (16px) for faces
        of CLEAR_FACE_PX and more.

    Raises:
        DatasetUnusable: the folder cannot be measured with.
    """
    annotated = has_annotations(folder)
    faces = _from_photographs(folder, size_px, margin) if annotated else _from_class_folders(folder, size_px)
    groups = {"": np.ones(len(faces.has_mask), bool)}
    if annotated:
        groups["_16px"] = faces.side_px >= CLEAR_FACE_PX
    figures: dict[str, float] = {f"faces{group}": int(chosen.sum()) for group, chosen in groups.items()}
    for name, classify in networks.items():
        says_mask = _says_mask(classify, faces.crops)
        for group, chosen in groups.items():
            for figure, value in _figures(says_mask[chosen], faces.has_mask[chosen]).items():
                figures[f"{figure}{group}_{name}"] = round(value, 4)
    return figures


def check(folder: Path) -> None:
    """Raise DatasetUnusable if a folder cannot be measured with, as far as its file names and annotations tell."""
    if has_annotations(folder):
        read_annotations(folder)
    else:
        dataset.find_samples(folder)


def _figures(says_mask: NDArray[np.bool_], has_mask: NDArray[np.bool_]) -> dict[str, float]:
    right = says_mask == has_mask
    if not (has_mask.any() and (~has_mask).any()):
        raise dataset.DatasetUnusable("test data needs faces with a mask and faces without")
    mask_recall, no_mask_recall = float(right[has_mask].mean()), float(right[~has_mask].mean())
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": (mask_recall + no_mask_recall) / 2,
        "mask_recall": mask_recall,
        "no_mask_recall": no_mask_recall,
    }


def _from_class_folders(folder: Path, size_px: int) -> LabelledFaces:
    pictures = dataset.load(dataset.find_samples(folder), dataset.whole_picture(size_px))
    if pictures.unreadable:
        raise dataset.DatasetUnusable(f"{folder}: {pictures.unreadable[0]} ({len(pictures.unreadable)} such files)")
    sides = np.full(len(pictures.labels), np.inf, np.float32)
    return LabelledFaces(crops=pictures.images, has_mask=pictures.labels == 1, side_px=sides)


def _from_photographs(folder: Path, size_px: int, margin: float) -> LabelledFaces:
    crops, has_mask, side_px = [], [], []
    for picture in read_annotations(folder):
        faces = [face for face in picture.faces if face.worn != "incorrect"]
        boxes = np.array([face.box for face in faces], np.float32).reshape(-1, 4)
        crops.append(crop_faces(_read(picture), boxes, size_px, margin))
        has_mask += [face.worn == "mask" for face in faces]
        side_px.append((boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf))
    return LabelledFaces(crops=np.concatenate(crops), has_mask=np.array(has_mask), side_px=np.concatenate(side_px))


def _read(picture: AnnotatedPicture) -> Pixels:
    frame: Pixels | None = cv2.imread(str(picture.path), cv2.IMREAD_COLOR)
    if frame is None:
        raise dataset.DatasetUnusable(f"{picture.path} is not a picture that can be read")
    return frame


def _says_mask(classify: Classify, crops: Pixels) -> NDArray[np.bool_]:
    parts: list[Floats] = [classify(crops[start : start + BATCH]) for start in range(0, len(crops), BATCH)]
    return np.concatenate(parts) >= THRESHOLD
