"""Find the faces of a data set and cut them out: items (sources.py) in; faces with boxes, then crops, out.

find_faces() decodes each file once and returns its faces with their hashes. cut_as_served() cuts the crops that a
classify worker would get, for measuring; cut_patches() cuts larger patches, from which training draws augmented crops.
A file or a face that cannot be used becomes one line. A file that has changed in between raises DatasetUnusable.
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

from models.classifier.mask_classifier import crop_faces
from models.detector.face_detector import FaceDetector
from models.files import sha256_of
from pipeline.vision.arrays import Image
from pipeline.vision.faces import Box, Label
from trainer.data.annotations import DatasetUnusable, LeftOutBox
from trainer.data.copies.perceptual_hash import PerceptualHash, perceptual_hash
from trainer.data.decoding import PictureUnusable, clip_frames, decode_picture
from trainer.data.file_listing import printable
from trainer.data.published_detector import SECOND_PX, published_detector
from trainer.data.sources import DatasetFile, is_clip

# Pictures of class folders are often cut so tightly that the detector needs a border around them; a share of the side.
SEARCH_BORDER = 0.25
# The long side of the detector's input for class folders, whose faces are large.
SEARCH_PX = 320
# A "face" smaller than this share of the picture is an eye or a pattern, not the face that is labelled.
MIN_FACE_SHARE = 0.25
# A picture whose face fills at least this share of its longer side is a crop of a face by itself.
TIGHT_SHARE = 0.5
MIN_FACE_PX = 3  # the side of the part of a face's box that is inside the picture
# The side of a patch of a photograph, as a multiple of the face's box. A tight crop is its own patch.
PATCH_REACH = 1.6
DECODING_THREADS = 2
NO_LABELLED_FACE = "every face is worn incorrectly or ignored, or none is annotated"

_local = threading.local()


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFace:
    """One face that can be trained on or measured with.

    file, sha256: of the picture or clip. frame: its number in a clip, else 0. number: of the face in its picture.
    box: x1, y1, x2, y2 in pixels of the picture; before the margin is added.
    tight: whether the picture is itself a crop of a face, which may be used whole.
    """

    source: str
    collection: str
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
        frame = f" frame {self.frame}" if self.frame else ""
        return printable(Path(self.file.name)) + frame + (f" #{self.number}" if self.number else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFaces:
    """The faces of one file, the hash of each, a line for each problem, and the faces left out for their boxes."""

    faces: tuple[FoundFace, ...] = ()
    hashes: tuple[PerceptualHash, ...] = ()
    problems: tuple[str, ...] = ()
    boxes: tuple[LeftOutBox, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FacePatches:
    """Faces to train on.

    pixels: uint8 n x P x P x 3 RGB, a face with its surroundings. squares: float32 n x 3, x, y and side of the square
    round the face's box, in pixels of the patch. tight: bool n, as FoundFace. has_mask: bool n. side_px: float32 n,
    the shorter side of the face's box in its picture. sources: n short names of data sets.
    """

    pixels: Image
    squares: NDArray[np.float32]
    tight: NDArray[np.bool_]
    has_mask: NDArray[np.bool_]
    side_px: NDArray[np.float32]
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)


def find_faces(
    items: Sequence[DatasetFile], source: str, collection: str, incorrect: Label | None = None
) -> Iterator[FileFaces]:
    """Yield the faces of each file of a data set, in order.

    incorrect: the label of faces whose mask is worn incorrectly; None leaves them out.
    """
    find = partial(_faces_of_file, source=source, collection=collection, incorrect=incorrect)
    with ThreadPoolExecutor(DECODING_THREADS) as threads:
        yield from threads.map(find, items)


def cut_as_served(faces: Sequence[FoundFace], size_px: int, margin: float) -> Image:
    """Cut each face as a classify worker gets it: uint8 n x S x S x 3 RGB. Tight pictures are used whole."""
    crops = np.empty((len(faces), size_px, size_px, 3), np.uint8)
    for index, (face, picture) in enumerate(_with_pictures(faces)):
        box, around = (_whole(picture), 0.0) if face.tight else (face.box, margin)
        crops[index] = crop_faces(picture, np.array([box], np.float32), size_px, around)[0]
    return crops


def cut_patches(faces: Sequence[FoundFace], patch_px: int) -> FacePatches:
    """Cut each face with its surroundings."""
    pixels = np.empty((len(faces), patch_px, patch_px, 3), np.uint8)
    squares = np.empty((len(faces), 3), np.float32)
    for index, (face, picture) in enumerate(_with_pictures(faces)):
        reach = _square(_whole(picture)) if face.tight else _square(face.box, PATCH_REACH)
        box = np.array([[reach[0], reach[1], reach[0] + reach[2], reach[1] + reach[2]]], np.float32)
        pixels[index] = crop_faces(picture, box, patch_px, 0.0)[0]
        x, y, side = _square(face.box)
        scale = patch_px / reach[2]
        squares[index] = (x - reach[0]) * scale, (y - reach[1]) * scale, side * scale
    return FacePatches(
        pixels=pixels,
        squares=squares,
        tight=np.array([face.tight for face in faces], bool),
        has_mask=np.array([face.label == "mask" for face in faces], bool),
        side_px=np.array([face.side_px for face in faces], np.float32),
        sources=tuple(face.source for face in faces),
    )


def _faces_of_file(item: DatasetFile, *, source: str, collection: str, incorrect: Label | None) -> FileFaces:
    where = printable(item.path)
    is_alone = item.label is not None and not is_clip(item.path)
    faces: list[FoundFace] = []
    hashes: list[PerceptualHash] = []
    problems: list[str] = []
    boxes: list[LeftOutBox] = []
    try:
        for face, picture in _found(item, source, collection, incorrect):
            if face.side_px < MIN_FACE_PX:
                px = f"less than {MIN_FACE_PX} px of its face {face.number + 1}"
                boxes.append(_left_out(face, f"{px} are inside it", where))
                problems.append(f"{boxes[-1].line}: left out")
                continue
            faces.append(face)
            hashes.append(perceptual_hash(picture, face.box, is_alone=is_alone))
    except OSError as error:
        return FileFaces(problems=(f"{where} cannot be read ({error.strerror}): left out",))
    except PictureUnusable as error:
        return FileFaces(problems=(f"{where} {error}: left out",))
    if not faces and not problems:
        why = NO_LABELLED_FACE if item.label is None else "no face is found in it"
        problems.append(f"{where}: {why}: left out")
    return FileFaces(faces=tuple(faces), hashes=tuple(hashes), problems=tuple(problems), boxes=tuple(boxes))


def _left_out(face: FoundFace, problem: str, where: str) -> LeftOutBox:
    return LeftOutBox(
        picture=face.file,
        frame=face.frame,
        number=face.number,
        label=face.label,
        box=face.box,
        problem=problem,
        line=f"{where}: {problem}",
    )


def _found(
    item: DatasetFile, source: str, collection: str, incorrect: Label | None
) -> Iterator[tuple[FoundFace, Image]]:
    """Yield each face of a file with its picture; one frame of a clip is in memory at a time."""
    raw = item.path.read_bytes()
    sha256 = sha256_of(raw)
    for frame, picture in _pictures(item, raw):
        for number, (label, box, tight) in enumerate(_faces_in(item, picture, incorrect)):
            face = FoundFace(
                source=source, collection=collection, file=item.path, sha256=sha256, frame=frame, number=number,
                label=label, box=box, tight=tight,
            )  # fmt: skip
            yield face, picture


def _faces_in(item: DatasetFile, picture: Image, incorrect: Label | None) -> Iterator[tuple[Label, Box, bool]]:
    """Yield label, box and whether the picture is tight, for each usable face of a picture."""
    if item.label is None:
        for face in item.faces:
            label = incorrect if face.worn == "incorrect" else face.worn
            if label is not None:
                yield label, _inside(face.box, picture), False
    elif is_clip(item.path):
        yield from ((item.label, _as_box(box), False) for box in _detector(SECOND_PX).find(picture).boxes)
    else:
        box = _main_face(picture)
        longer = max(picture.shape[:2])
        if box is None:
            yield item.label, _whole(picture), True
        else:
            yield item.label, box, max(box[2] - box[0], box[3] - box[1]) >= TIGHT_SHARE * longer


def _main_face(picture: Image) -> Box | None:
    """Find the largest face of a picture of one person."""
    edge = round(SEARCH_BORDER * max(picture.shape[:2]))
    framed: Image = cv2.copyMakeBorder(picture, edge, edge, edge, edge, cv2.BORDER_REPLICATE)
    boxes = _detector(SEARCH_PX).find(framed).boxes
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
    if len(boxes) == 0 or sides.max() < MIN_FACE_SHARE * max(picture.shape[:2]):
        return None
    return _as_box(boxes[sides.argmax()] - edge)


def _pictures(item: DatasetFile, raw: bytes) -> Iterator[tuple[int, Image]]:
    """Decode a file: (0, picture), or (frame number, picture) of frames of a clip."""
    if not is_clip(item.path):
        yield 0, decode_picture(raw)
        return
    number = None
    for number, picture in clip_frames(item.path):
        yield number, picture
    if number is None:
        raise PictureUnusable("is not a video that can be read")


def _with_pictures(faces: Iterable[FoundFace]) -> Iterator[tuple[FoundFace, Image]]:
    """Yield faces with their pictures; each file is decoded once if its faces follow each other as they were found."""
    for path, of_file in groupby(faces, key=lambda face: face.file):
        try:
            yield from _with_frames(path, list(of_file))
        except (OSError, PictureUnusable) as error:
            raise DatasetUnusable(f"{printable(path)} has changed while it was read: start again") from error


def _with_frames(path: Path, faces: Sequence[FoundFace]) -> Iterator[tuple[FoundFace, Image]]:
    """Yield the faces of one file with their pictures, one of which is in memory at a time."""
    pictures = _pictures(DatasetFile(path=path, label=faces[0].label), path.read_bytes())
    for wanted, in_frame in groupby(faces, key=lambda face: face.frame):
        picture = next((picture for frame, picture in pictures if frame == wanted), None)
        if picture is None:
            raise PictureUnusable(f"has no frame {wanted}")
        yield from ((face, picture) for face in in_frame)


def _detector(input_px: int) -> FaceDetector:
    """Return this thread's detector."""
    loaded: dict[int, FaceDetector] = _local.__dict__.setdefault("detectors", {})
    if input_px not in loaded:
        loaded[input_px] = published_detector(input_px)
    return loaded[input_px]


def _whole(picture: Image) -> Box:
    height, width = picture.shape[:2]
    return 0.0, 0.0, float(width), float(height)


def _inside(box: Box, picture: Image) -> Box:
    """Clip a box to the picture; a box outside becomes empty."""
    height, width = picture.shape[:2]
    x1, x2 = (min(max(x, 0.0), float(width)) for x in box[0::2])
    y1, y2 = (min(max(y, 0.0), float(height)) for y in box[1::2])
    return x1, y1, x2, y2


def _square(box: Box, reach: float = 1.0) -> tuple[float, float, float]:
    """Return x, y and side of the square round a box's centre, `reach` times as long as its longer side."""
    side = max(box[2] - box[0], box[3] - box[1]) * reach
    return (box[0] + box[2] - side) / 2, (box[1] + box[3] - side) / 2, side


def _as_box(box: NDArray[np.float32]) -> Box:
    x1, y1, x2, y2 = box.tolist()
    return x1, y1, x2, y2
