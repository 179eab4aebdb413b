"""Read labelled pictures of faces: one folder a class in, uint8 arrays and 0/1 labels out.

A data set is a folder with one folder for each class, named WithMask, with_mask or mask, and WithoutMask, without_mask
or no_mask. Each picture shows one face. Files that cannot be read are left out and named; a folder without both classes
raises DatasetUnusable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models import face_detector
from models.mask_classifier import Pixels, crop_faces

# Makes the crop (uint8 S x S x 3, RGB) of a picture (uint8 H x W x 3, BGR).
Crop = Callable[[Pixels], Pixels]

MASK_FOLDERS = frozenset({"mask", "masked", "withmask"})
NO_MASK_FOLDERS = frozenset({"nomask", "unmasked", "withoutmask"})
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})

# The share of a data set without a validation folder that is kept for validation.
VALIDATION_SHARE = 0.1

# Pictures of a data set are often cut so tightly that the detector needs some edge around them, as a share of a side.
SEARCH_BORDER = 0.25
# The long side the detector sees; these faces are large.
SEARCH_PX = 320
# A "face" smaller than this share of the picture is an eye or a print, not the face that the label is about.
MIN_FACE_SHARE = 0.25

# "Augmented_12_5550.png" is a copy of "5550.png": copies stay on one side of a split.
_COPY_PREFIX = re.compile(r"^augmented_\d+_", re.IGNORECASE)


class DatasetUnusable(ValueError):
    """A data folder cannot be trained on or measured with; the message is one line for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One picture file and whether its face wears a mask."""

    path: Path
    has_mask: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Loaded samples: images uint8 n x S x S x 3 RGB, labels float32 n (1 mask, 0 no mask), and what was left out."""

    images: NDArray[np.uint8]
    labels: NDArray[np.float32]
    unreadable: tuple[str, ...] = field(default=())


def find_samples(folder: Path) -> list[Sample]:
    """List the pictures of a data set, sorted by path.

    Raises:
        DatasetUnusable: the folder is missing, or has no picture of one of the classes.
    """
    if not folder.is_dir():
        raise DatasetUnusable(f"{folder} is not a folder")
    samples = []
    for child in sorted(folder.iterdir()):
        name = re.sub(r"[^a-z]", "", child.name.lower())
        if child.is_dir() and name in MASK_FOLDERS | NO_MASK_FOLDERS:
            samples += [Sample(path=path, has_mask=name in MASK_FOLDERS) for path in _pictures_in(child)]
    for has_mask, wanted in ((True, "with_mask"), (False, "without_mask")):
        if not any(sample.has_mask is has_mask for sample in samples):
            raise DatasetUnusable(f"{folder} has no pictures in a folder named {wanted}: one folder a class is needed")
    return samples


def split(samples: Sequence[Sample], seed: int, share: float = VALIDATION_SHARE) -> tuple[list[Sample], list[Sample]]:
    """Part samples into training and validation, the same way for the same seed.

    Augmented copies, known by their file names, go where their original goes.
    """
    groups: dict[tuple[bool, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.has_mask, _original_name(sample.path)), []).append(sample)
    training: list[Sample] = []
    validation: list[Sample] = []
    for has_mask in (True, False):
        keys = sorted(key for key in groups if key[0] is has_mask)
        order = np.random.default_rng([seed, has_mask]).permutation(len(keys))
        kept_out = round(share * len(keys))
        for place, index in enumerate(order):
            (validation if place < kept_out else training).extend(groups[keys[index]])
    return training, validation


def load(samples: Iterable[Sample], crop: Crop) -> Pictures:
    """Read pictures into memory as the crops that `crop` makes of them (37 kB each at 112 px)."""
    images, labels, unreadable = [], [], []
    for sample in samples:
        picture = cv2.imread(str(sample.path), cv2.IMREAD_COLOR)
        if picture is None:
            unreadable.append(_why_unreadable(sample.path))
            continue
        images.append(crop(picture))
        labels.append(sample.has_mask)
    if not images:
        raise DatasetUnusable(f"none of the pictures can be read: {unreadable[0] if unreadable else 'there are none'}")
    return Pictures(images=np.stack(images), labels=np.array(labels, np.float32), unreadable=tuple(unreadable))


def whole_picture(size_px: int) -> Crop:
    """Take each picture as the crop it is."""

    def crop(picture: Pixels) -> Pixels:
        height, width = picture.shape[:2]
        box = np.array([[0, 0, width, height]], np.float32)
        return np.squeeze(crop_faces(picture, box, size_px, margin=0.0), axis=0)

    return crop


def found_face(size_px: int, margin: float) -> Crop:
    """Cut out the largest face that the detector finds, as serving does; take the whole picture where it finds none.

    Without this the masked and the bare faces of a data set, which come from different sources, differ in how much
    they show around the face, and a network learns that instead of the mask.
    """
    detector = face_detector.load(input_px=SEARCH_PX)
    whole = whole_picture(size_px)

    def crop(picture: Pixels) -> Pixels:
        edge = round(SEARCH_BORDER * max(picture.shape[:2]))
        framed: Pixels = cv2.copyMakeBorder(picture, edge, edge, edge, edge, cv2.BORDER_REPLICATE)
        boxes = detector.find(framed).boxes
        sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
        if len(boxes) == 0 or sides.max() < MIN_FACE_SHARE * max(picture.shape[:2]):
            return whole(picture)
        largest = sides.argmax()
        return np.squeeze(crop_faces(framed, boxes[largest : largest + 1], size_px, margin), axis=0)

    return crop


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)


def _original_name(path: Path) -> str:
    return _COPY_PREFIX.sub("", path.stem).lower()


def _why_unreadable(path: Path) -> str:
    reason = "is empty" if path.exists() and path.stat().st_size == 0 else "is not a picture that can be read"
    return f"{path} {reason}: left out"
