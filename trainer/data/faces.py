"""Find the faces of a data set and cut them out: items (sources.py) in; faces with boxes, then crops, out.

look() decodes each file once and notes its faces, hash and fingerprints. cut_as_served() makes the crops that a
classify worker would see, for measuring; cut_patches() makes larger patches, of which training cuts its varied crops.
A file that cannot be decoded, or of which no face can be used, becomes one line.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models import face_detector
from models.face_detector import FaceDetector
from models.files import sha256_of
from models.mask_classifier import Pixels, crop_faces
from trainer.data import copies
from trainer.data.copies import Fingerprints
from trainer.data.sources import Item, Label, is_clip

Box = tuple[float, float, float, float]

# Pictures of class folders are often cut so tightly that the detector needs some edge around them, as a share of a
# side.
SEARCH_BORDER = 0.25
# The long side the detector sees in class folders, whose faces are large.
SEARCH_PX = 320
# A "face" smaller than this share of the picture is an eye or a print, not the face that the label is about.
MIN_FACE_SHARE = 0.25
# A picture whose face fills at least this share of its longer side is a crop of a face by itself.
TIGHT_SHARE = 0.5
# Of a clip so many frames are taken, evenly spread.
CLIP_FRAMES = 100
# How much of the surroundings a patch shows, as a multiple of the face's box. A photograph has them, a tight crop not.
PATCH_REACH = 1.6
# Copies are looked for among faces from this size on; smaller ones all look alike.
MIN_PRINT_PX = 20
LOOKING_THREADS = 2

_local = threading.local()


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFace:
    """One face that can be trained on or measured with.

    file, sha256: of the picture or clip. frame: its number in a clip, else 0. number: of the face in its picture.
    box: x1, y1, x2, y2 in pixels of the picture; what serving would cut, before the margin.
    tight: whether the picture is a crop of a face by itself, that may be taken whole as well.
    """

    source: str
    family: str
    file: Path
    sha256: str
    frame: int
    number: int
    label: Label
    box: Box
    tight: bool

    @property
    def side_px(self) -> float:
        """The shorter side of its box."""
        return min(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def is_clip(self) -> bool:
        """Whether its file is a video."""
        return is_clip(self.file)

    @property
    def name(self) -> str:
        """File, frame and face for people."""
        return (
            self.file.name
            + (f" frame {self.frame}" if self.frame else "")
            + (f" #{self.number}" if self.number else "")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one file holds: its faces with their fingerprints, or the line that says why nothing of it is used."""

    faces: tuple[FoundFace, ...] = ()
    prints: Fingerprints | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """Faces to train on.

    pixels: uint8 n x P x P x 3 RGB, a face with its surroundings. squares: float32 n x 3, x, y and side of the square
    round the face's box, in pixels of the patch. tight: bool n, whether the whole patch is a crop by itself. has_mask:
    bool n. side_px: float32 n, as Faces. sources: n.
    """

    pixels: Pixels
    squares: NDArray[np.float32]
    tight: NDArray[np.bool_]
    has_mask: NDArray[np.bool_]
    side_px: NDArray[np.float32]
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)


def look_at(items: Sequence[Item], source: str, family: str) -> Iterator[Look]:
    """Look at each file of a data set, in order."""
    with ThreadPoolExecutor(LOOKING_THREADS) as threads:
        yield from threads.map(partial(_look, source=source, family=family), items)


def cut_as_served(faces: Sequence[FoundFace], size_px: int, margin: float) -> Pixels:
    """Cut each face as a classify worker gets it: uint8 n x S x S x 3 RGB. Tight pictures are taken whole."""
    crops = np.empty((len(faces), size_px, size_px, 3), np.uint8)
    for place, (face, picture) in enumerate(_with_pictures(faces)):
        box, around = (_whole(picture), 0.0) if face.tight else (face.box, margin)
        crops[place] = crop_faces(picture, np.array([box], np.float32), size_px, around)[0]
    return crops


def cut_patches(faces: Sequence[FoundFace], patch_px: int) -> Patches:
    """Cut each face with its surroundings."""
    pixels = np.empty((len(faces), patch_px, patch_px, 3), np.uint8)
    squares = np.empty((len(faces), 3), np.float32)
    for place, (face, picture) in enumerate(_with_pictures(faces)):
        reach = _square(_whole(picture)) if face.tight else _square(face.box, PATCH_REACH)
        box = np.array([[reach[0], reach[1], reach[0] + reach[2], reach[1] + reach[2]]], np.float32)
        pixels[place] = crop_faces(picture, box, patch_px, 0.0)[0]
        x, y, side = _square(face.box)
        scale = patch_px / reach[2]
        squares[place] = (x - reach[0]) * scale, (y - reach[1]) * scale, side * scale
    return Patches(
        pixels=pixels,
        squares=squares,
        tight=np.array([face.tight for face in faces], bool),
        has_mask=np.array([face.label == "mask" for face in faces], bool),
        side_px=np.array([face.side_px for face in faces], np.float32),
        sources=tuple(face.source for face in faces),
    )


def _look(item: Item, *, source: str, family: str) -> Look:
    raw = item.path.read_bytes()
    sha256 = sha256_of(raw)
    faces: list[FoundFace] = []
    crops: list[Pixels] = []
    pictures = list(_pictures(item, raw))
    if not pictures:
        return Look(problem=f"{item.path} is not a {'video' if item.is_clip else 'picture'} that can be read: left out")
    for frame, picture in pictures:
        for number, (label, box, tight) in enumerate(_faces_in(item, picture)):
            faces.append(
                FoundFace(
                    source=source,
                    family=family,
                    file=item.path,
                    sha256=sha256,
                    frame=frame,
                    number=number,
                    label=label,
                    box=box,
                    tight=tight,
                )
            )
            crops.append(crop_faces(picture, np.array([box], np.float32), copies.DETAIL_PX * 2, 0.0)[0])
    if not faces:
        why = "every face is worn incorrectly, or none is annotated" if item.label is None else "no face is found in it"
        return Look(problem=f"{item.path}: {why}: left out")
    return Look(faces=tuple(faces), prints=copies.fingerprints(crops))


def _faces_in(item: Item, picture: Pixels) -> Iterator[tuple[Label, Box, bool]]:
    """Yield label, box and whether the picture is tight, for each face of a picture that can be used."""
    if item.label is None:
        yield from ((face.worn, face.box, False) for face in item.faces if face.worn != "incorrect")
    elif item.is_clip:
        yield from ((item.label, _as_box(box), False) for box in _detector(face_detector.INPUT_PX).find(picture).boxes)
    else:
        box = _main_face(picture)
        longer = max(picture.shape[:2])
        if box is None:
            yield item.label, _whole(picture), True
        else:
            yield item.label, box, max(box[2] - box[0], box[3] - box[1]) >= TIGHT_SHARE * longer


def _main_face(picture: Pixels) -> Box | None:
    """Find the largest face of a picture of one person."""
    edge = round(SEARCH_BORDER * max(picture.shape[:2]))
    framed: Pixels = cv2.copyMakeBorder(picture, edge, edge, edge, edge, cv2.BORDER_REPLICATE)
    boxes = _detector(SEARCH_PX).find(framed).boxes
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
    if len(boxes) == 0 or sides.max() < MIN_FACE_SHARE * max(picture.shape[:2]):
        return None
    return _as_box(boxes[sides.argmax()] - edge)


def _pictures(item: Item, raw: bytes) -> Iterator[tuple[int, Pixels]]:
    """Decode a file: (0, picture), or (frame number, picture) of frames of a clip; nothing if it cannot be."""
    if item.is_clip:
        yield from _frames(item.path)
        return
    picture = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
    if picture is not None:
        yield 0, np.asarray(picture, np.uint8)


def _frames(path: Path) -> Iterator[tuple[int, Pixels]]:
    video = cv2.VideoCapture(str(path))
    try:
        step = max(1, int(video.get(cv2.CAP_PROP_FRAME_COUNT)) // CLIP_FRAMES)
        number = 0
        while True:
            there, picture = video.read()
            if not there:
                return
            if number % step == 0:
                yield number, np.asarray(picture, np.uint8)
            number += 1
    finally:
        video.release()


def _with_pictures(faces: Iterable[FoundFace]) -> Iterator[tuple[FoundFace, Pixels]]:
    """Yield faces with their pictures; each file is decoded once as long as its faces follow each other."""
    for path, group in groupby(faces, key=lambda face: face.file):
        wanted = list(group)
        frames = dict(_pictures(Item(path=path, label=wanted[0].label), path.read_bytes()))
        yield from ((face, frames[face.frame]) for face in wanted)


def _detector(input_px: int) -> FaceDetector:
    """Return this thread's detector."""
    loaded: dict[int, FaceDetector] = _local.__dict__.setdefault("detectors", {})
    if input_px not in loaded:
        loaded[input_px] = face_detector.load(input_px=input_px)
    return loaded[input_px]


def _whole(picture: Pixels) -> Box:
    height, width = picture.shape[:2]
    return 0.0, 0.0, float(width), float(height)


def _square(box: Box, reach: float = 1.0) -> tuple[float, float, float]:
    """Return x, y and side of the square round a box's centre, `reach` times as long as its longer side."""
    side = max(box[2] - box[0], box[3] - box[1]) * reach
    return (box[0] + box[2] - side) / 2, (box[1] + box[3] - side) / 2, side


def _as_box(box: NDArray[np.float32]) -> Box:
    x1, y1, x2, y2 = box.tolist()
    return x1, y1, x2, y2
