"""Prepare photographs for training a detector: listed data sets in; pictures with what to find and what to ignore out.

The split is that of classifiers (trainer/data/prepare.py): copies stay on one side. A face whose mask is worn
incorrectly is a face like any other. No data set has a box for every face, and a network learns a face without a box as
background. So the published detector searches each picture at a large size: what it is sure of and nobody has annotated
becomes a label, so that nothing is forgotten that it knew, and what it only suspects is ignored. All boxes are
converted to the geometry of the first data set (geometry.py). Data sets without boxes are refused before
(trainer/checks.py).
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.detector.face_detector import FaceDetector, load_detector
from pipeline.vision.arrays import Floats, Image
from pipeline.vision.faces import Box
from trainer.data.annotations import AnnotatedFace, DatasetUnusable
from trainer.data.dataset import Dataset
from trainer.data.decoding import decode_picture
from trainer.data.prepare import ManifestRow, digest_of, split_faces
from trainer.data.sources import DatasetFile, DatasetSource
from trainer.data.split import Split
from trainer.detection.geometry import BoxGeometry, measure_geometry, pair_boxes
from trainer.detection.unannotated import SUSPECTED_SCORE, label_picture

# The long side at which the published detector searches for what is not annotated.
SEARCH_PX = 1280

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPicture:
    """A picture to draw canvases from.

    content: the file's bytes. boxes, ignored: float32 n x 4, x1, y1, x2, y2 in pixels: faces, and regions that may hold
    a face. has_bare: whether an annotated face is without a mask. source: short name of its data set.
    """

    content: bytes
    boxes: Floats
    ignored: Floats
    has_bare: bool
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredPicture:
    """A picture to measure with, as it is annotated.

    path: of its file. boxes: float32 n x 4. is_bare: bool n, faces without a mask. neither: float32 m x 4, faces whose
    mask is worn incorrectly, which are neither hit nor miss, as for labels.
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
    geometry: of the outlines that the network learns. counts: pictures by data set and split, and boxes by their use.
    """

    training: tuple[TrainingPicture, ...]
    validation: tuple[MeasuredPicture, ...]
    tests: tuple[MeasuredPicture, ...]
    geometry: BoxGeometry
    counts: dict[str, int]
    manifest: tuple[ManifestRow, ...]

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
        leave_out=leave_out,
    )  # fmt: skip
    by_file = {face.file: split for face, split in zip(dataset.faces, splits, strict=True)}
    chosen: dict[Split, list[tuple[str, DatasetFile]]] = defaultdict(list)
    for source in (*training, *((validation,) if validation else ()), *tests):
        for item in source.items:
            chosen[by_file.get(item.path, "out")].append((source.name, item))
    counts = Counter(f"{name}: {split}" for split, items in chosen.items() for name, _ in items)
    # The few that calibrate a classifier are trained on: a detector has no temperature.
    detector = load_detector(input_px=SEARCH_PX, score_threshold=SUSPECTED_SCORE)
    searched = [_searched(detector, *one) for one in chosen["training"] + chosen["calibration"]]
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
        validation=tuple(measured_picture(name, item.path, item.faces) for name, item in chosen["validation"]),
        tests=tuple(measured_picture(name, item.path, item.faces) for name, item in chosen["test"]),
        geometry=reference,
        counts=dict(sorted((counts + dataset.counts).items())),
        manifest=rows,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Searched:
    """A picture with its annotated boxes, and the published detector's boxes and scores."""

    source: str
    content: bytes
    annotated: Floats
    has_bare: bool
    found: Floats
    scores: Floats


def _searched(detector: FaceDetector, source: str, item: DatasetFile) -> _Searched:
    content = item.path.read_bytes()
    picture = decode_picture(content)
    faces = detector.find(picture)
    return _Searched(
        source=source,
        content=content,
        annotated=_inside([face.box for face in item.faces], picture),
        has_bare=any(face.worn == "no_mask" for face in item.faces),
        found=faces.boxes,
        scores=faces.scores,
    )


def _geometries(searched: Sequence[_Searched]) -> dict[str, BoxGeometry]:
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


def _labelled(one: _Searched, own: BoxGeometry, reference: BoxGeometry) -> TrainingPicture:
    boxes, ignored = label_picture(own.to_published(one.annotated), one.found, one.scores)
    return TrainingPicture(
        content=one.content,
        boxes=reference.from_published(boxes),
        ignored=reference.from_published(ignored),
        has_bare=one.has_bare,
        source=one.source,
    )


def measured_picture(source: str, path: Path, faces: Sequence[AnnotatedFace]) -> MeasuredPicture:
    """Return a picture of a data set to measure with."""
    worn = np.array([face.worn for face in faces], str)
    boxes = np.array([face.box for face in faces], np.float32).reshape(-1, 4)
    is_face = worn != "incorrect"
    return MeasuredPicture(
        path=path, boxes=boxes[is_face], is_bare=worn[is_face] == "no_mask", neither=boxes[~is_face], source=source
    )


def _inside(boxes: Sequence[Box], picture: Image) -> Floats:
    """Clip boxes to the picture; leave out those that become empty."""
    height, width = picture.shape[:2]
    clipped = np.array(boxes, np.float32).reshape(-1, 4).clip(0, np.array([width, height, width, height]))
    kept: Floats = clipped[(clipped[:, :2] < clipped[:, 2:]).all(axis=1)]
    return kept
