"""Prepare photographs for training a detector: listed data sets in; pictures with what to find and what to ignore out.

The split is that of classifiers (trainer/data/prepare.py): copies stay on one side. A face whose mask is worn
incorrectly is a face like any other. No data set has a box for every face, and a network learns a face without a box as
background. So the published detector searches each picture at a large size: what it is sure of and nobody has annotated
becomes a label, so that nothing is forgotten that it knew, and what it only suspects is ignored. Clips have no boxes:
all that is learned from their frames is what it is sure of. All boxes are converted to the geometry of the first data
set with boxes (geometry.py). Pictures without boxes are refused before (trainer/checks.py).
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.detector.card import OutlineGeometry
from models.detector.face_detector import FaceDetector
from pipeline.vision.arrays import Floats, Image
from pipeline.vision.faces import Label
from pipeline.vision.jpeg import encode_jpeg
from trainer.data.annotations import AnnotatedFace, DatasetUnusable
from trainer.data.dataset import Dataset
from trainer.data.decoding import clip_frames, decode_picture
from trainer.data.manifest import ManifestRow, digest_of, left_out_rows
from trainer.data.prepare import split_faces
from trainer.data.published_detector import published_detector
from trainer.data.sources import DatasetFile, DatasetSource, is_clip
from trainer.data.split import Split
from trainer.detection.geometry import measure_geometry, pair_boxes
from trainer.detection.unannotated import SURE_SCORE, SUSPECTED_SCORE, label_picture

# The long side at which the published detector searches for what is not annotated.
SEARCH_PX = 1280
FRAME_QUALITY = 95  # of the JPEG that a clip's frame is kept as

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPicture:
    """A picture to draw canvases from.

    content: the file's bytes. boxes, ignored: float32 n x 4, x1, y1, x2, y2 in pixels: faces, and regions that may hold
    a face. is_bare: bool n, false for faces with a mask. source: short name of its data set.
    """

    content: bytes
    boxes: Floats
    is_bare: NDArray[np.bool_]
    ignored: Floats
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredPicture:
    """A picture to measure with, as it is annotated.

    path: of its file. boxes: float32 n x 4, inside it. is_bare: bool n, faces without a mask. neither: float32 m x 4,
    faces whose mask is worn incorrectly, which are neither hit nor miss, as for labels.
    """

    path: Path
    boxes: Floats
    is_bare: NDArray[np.bool_]
    neither: Floats
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionData:
    """All that training a detector needs.

    validation: what was kept of the data sets trained on, or the validation data set. tests: of each test set.
    clips: those kept for either, which have no boxes, by data set. geometry: of the outlines that the network learns.
    counts: pictures by data set and split, and boxes by their use. manifest: a row for each face. left_out: a row for
    each face that is left out because of its box.
    """

    training: tuple[TrainingPicture, ...]
    validation: tuple[MeasuredPicture, ...]
    tests: tuple[MeasuredPicture, ...]
    clips: dict[str, tuple[Path, ...]]
    geometry: OutlineGeometry
    counts: dict[str, int]
    manifest: tuple[ManifestRow, ...]
    left_out: tuple[ManifestRow, ...]

    @property
    def digest(self) -> str:
        """The hash of the manifest."""
        return digest_of(self.manifest)


def prepare_pictures(
    training: Sequence[DatasetSource],
    *,
    tests: Sequence[DatasetSource] = (),
    validation: DatasetSource | None = None,
    seed: int = 0,
    leave_out_copies: bool = False,
    leave_out: Collection[str] = (),
    hold_back: Collection[str] = (),
    warn: Callable[[str], None] = log.warning,
) -> DetectionData:
    """Split pictures as trainer.data.prepare.prepare_data(), which has the same arguments, and find what to ignore.

    Raises:
        DatasetUnusable: a data set cannot be used, copies are in two splits, or too few faces are found.
        ModelUnusable: the published detector's file is missing or damaged.
    """
    dataset = Dataset(warn, incorrect="mask")
    splits, rows = split_faces(
        dataset, training, tests=tests, validation=validation, seed=seed, leave_out_copies=leave_out_copies,
        leave_out=leave_out, hold_back=hold_back,
    )  # fmt: skip
    by_file = {(face.source, face.file): split for face, split in zip(dataset.faces, splits, strict=True)}
    chosen: dict[Split, list[tuple[str, DatasetFile]]] = defaultdict(list)
    for source in (*training, *((validation,) if validation else ()), *tests):
        for item in source.items:
            chosen[by_file.get((source.name, item.path), "out")].append((source.name, item))
    counts = Counter(f"{name}: {split}" for split, items in chosen.items() for name, _ in items)
    # The few that calibrate a classifier are trained on: a detector has no temperature.
    detector = published_detector(SEARCH_PX, score_threshold=SUSPECTED_SCORE)
    searched = [one for item in chosen["training"] + chosen["calibration"] for one in _searched(detector, *item)]
    geometries = _geometries(searched)
    if not geometries:
        raise DatasetUnusable("too few of the annotated faces are found by the published detector to train on")
    reference = next(iter(geometries.values()))
    pictures = tuple(_labelled(one, geometries.get(one.source, reference), reference) for one in searched)
    counts["boxes: annotated"] = sum(len(one.annotated) for one in searched)
    counts["boxes: of the published detector"] = sum(len(one.boxes) for one in pictures) - counts["boxes: annotated"]
    counts["boxes: ignored"] = sum(len(picture.ignored) for picture in pictures)
    return DetectionData(
        training=pictures,
        validation=tuple(_measured(chosen["validation"])),
        tests=tuple(_measured(chosen["test"])),
        clips=_clips(chosen["validation"] + chosen["test"]),
        geometry=reference,
        counts=dict(sorted((counts + dataset.counts).items())),
        manifest=rows,
        left_out=left_out_rows(dataset.boxes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Searched:
    """A picture with its annotated boxes, which of them are bare, and the published detector's boxes and scores.

    label: of all faces of a clip; None for an annotated picture.
    """

    source: str
    content: bytes
    label: Label | None
    annotated: Floats
    is_bare: NDArray[np.bool_]
    found: Floats
    scores: Floats


def _searched(detector: FaceDetector, source: str, item: DatasetFile) -> Iterator[_Searched]:
    """Yield a picture, or the frames of a clip in which the published detector is sure of a face."""
    for content, picture in _pictures(item):
        faces = detector.find(picture)
        if is_clip(item.path) and faces.scores.max(initial=0) < SURE_SCORE:
            continue
        annotated = np.array([face.box for face in item.faces], np.float32).reshape(-1, 4)
        annotated = annotated.clip(0, np.tile(picture.shape[1::-1], 2))
        is_inside = (annotated[:, :2] < annotated[:, 2:]).all(axis=1)
        yield _Searched(
            source=source,
            content=content,
            label=item.label,
            annotated=annotated[is_inside],
            is_bare=np.array([face.worn == "no_mask" for face in item.faces], bool)[is_inside],
            found=faces.boxes,
            scores=faces.scores,
        )


def _pictures(item: DatasetFile) -> Iterator[tuple[bytes, Image]]:
    if not is_clip(item.path):
        content = item.path.read_bytes()
        yield content, decode_picture(content)
        return
    for _, frame in clip_frames(item.path):
        yield encode_jpeg(frame, FRAME_QUALITY), frame


def _geometries(searched: Sequence[_Searched]) -> dict[str, OutlineGeometry]:
    """Return the geometry of each data set in which enough faces are found, in the order of the data sets."""
    pairs: dict[str, list[tuple[Floats, Floats]]] = defaultdict(list)
    for one in searched:
        indices = pair_boxes(one.found, one.annotated)
        pairs[one.source].append((one.found[indices[:, 0]], one.annotated[indices[:, 1]]))
    measured = {
        source: measure_geometry(*(np.concatenate(part) for part in zip(*found, strict=True)))
        for source, found in pairs.items()
    }
    return {source: geometry for source, geometry in measured.items() if geometry}


def _labelled(one: _Searched, own: OutlineGeometry, reference: OutlineGeometry) -> TrainingPicture:
    boxes, ignored = label_picture(own.boxes_of(one.annotated), one.found, one.scores)
    # Of what nobody has annotated it is not known; the published detector is rarely sure of a masked face.
    unknown = np.full(len(boxes) - len(one.annotated), one.label != "mask")
    return TrainingPicture(
        content=one.content,
        boxes=reference.outlines_of(boxes),
        is_bare=np.concatenate([one.is_bare, unknown]),
        ignored=reference.outlines_of(ignored),
        source=one.source,
    )


def _measured(items: Sequence[tuple[str, DatasetFile]]) -> Iterator[MeasuredPicture]:
    """Yield the pictures that have boxes."""
    for name, item in items:
        if not is_clip(item.path):
            yield measured_picture(name, item.path, item.faces)


def _clips(items: Sequence[tuple[str, DatasetFile]]) -> dict[str, tuple[Path, ...]]:
    clips: dict[str, tuple[Path, ...]] = {}
    for name, item in items:
        if is_clip(item.path):
            clips[name] = (*clips.get(name, ()), item.path)
    return clips


def measured_picture(source: str, path: Path, faces: Sequence[AnnotatedFace]) -> MeasuredPicture:
    """Return a picture of a data set to measure with; of a box only what is inside the picture counts.

    Raises:
        PictureUnusable: it cannot be decoded.
    """
    height, width = decode_picture(path.read_bytes()).shape[:2]
    worn = np.array([face.worn for face in faces], str)
    boxes = np.array([face.box for face in faces], np.float32).reshape(-1, 4)
    boxes = boxes.clip(0, np.array([width, height, width, height], np.float32))
    is_inside = (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    is_face, is_neither = is_inside & (worn != "incorrect"), is_inside & (worn == "incorrect")
    return MeasuredPicture(
        path=path, boxes=boxes[is_face], is_bare=worn[is_face] == "no_mask", neither=boxes[is_neither], source=source
    )
