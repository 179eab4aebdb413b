"""Write the report of a trained detector: measurements in, a folder with a page, its pictures and its numbers out.

`report/` in the run folder gets report.html, a self-contained page, report.json with every number of the page, and the
worst misses and false faces as PNG files. These come from the user's data and are written only into this folder.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from timeit import repeat

import cv2
import msgspec
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from models.detector.card import DetectorCard
from pipeline.vision.arrays import Floats, Image
from pipeline.vision.boxes import iou
from trainer.data.decoding import decode_picture
from trainer.data.file_listing import printable
from trainer.detection.fit import DetectorEpoch, trained_detector
from trainer.detection.pictures import MeasuredPicture
from trainer.detection.precision import MIN_IOU, SERVED_SCORE, SIZES, FoundBoxes
from trainer.reports.report import NUMBERS_NAME, PAGE_NAME, REPORT_FOLDER

WORST = 16  # misses, and false faces
CROP_PX = 128
CROP_REACH = 3.0  # the side of a crop, as a multiple of the box's longer side
MEASURED_PX = (640, 800)  # long sides at which a frame's time is measured
FRAME_SHAPE = (720, 1280, 3)
CALLS, WARM_UP_CALLS = 20, 3
WRONG_COLOUR = (60, 60, 230)  # BGR


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredSet:
    """A set of pictures, what was found in each, and its figures (precision.detection_figures())."""

    name: str
    pictures: tuple[MeasuredPicture, ...]
    found: tuple[FoundBoxes, ...]
    figures: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorReport:
    """The input of a report. command: the one that trained the network. epochs: all that were trained."""

    card: DetectorCard
    command: str
    epochs: tuple[DetectorEpoch, ...]
    sets: tuple[MeasuredSet, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A face that was missed, or a box without a face.

    score: of the best box that overlaps the missed face, or of the box; 0..1. side_px: the box's shorter side.
    picture: name of the PNG file.
    """

    set_name: str
    file: str
    score: float
    side_px: float
    picture: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """A mistake and where it is: the file of its picture, and its box."""

    set_name: str
    path: Path
    box: Floats
    score: float

    @property
    def side_px(self) -> float:
        """The shorter side of its box."""
        return float((self.box[2:] - self.box[:2]).min())


def write_detector_report(run: Path, report: DetectorReport, content: bytes) -> None:
    """Write the report of a run into REPORT_FOLDER of its folder; content: of the ONNX file, whose time is measured."""
    wrong = {"missed_faces": worst_misses(report.sets), "false_faces": worst_false_faces(report.sets)}
    pictures = {f"{kind}-{index}.png": _png(one) for kind, some in wrong.items() for index, one in enumerate(some)}
    numbers = {
        "card": report.card,
        "command": report.command,
        "epochs": report.epochs,
        "ms_a_frame": {str(px): measure_ms(content, px) for px in MEASURED_PX},
        **{
            kind: [_mistake(one, f"{kind}-{index}.png") for index, one in enumerate(some)]
            for kind, some in wrong.items()
        },
    }
    folder = run / REPORT_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, png in pictures.items():
        (folder / name).write_bytes(png)
    (folder / NUMBERS_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(numbers), indent=2) + b"\n")
    inline = {name: "data:image/png;base64," + b64encode(png).decode() for name, png in pictures.items()}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of files and data sets are untrusted text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(PAGE_NAME).render(**numbers, sizes=tuple(SIZES), pictures=inline)
    (folder / PAGE_NAME).write_text(page, encoding="utf-8")


def worst_misses(sets: tuple[MeasuredSet, ...]) -> list[Wrong]:
    """Return the largest faces that no box with a score of SERVED_SCORE or more overlaps by MIN_IOU."""
    missed = [wrong for one in sets for wrong in _misses(one)]
    return sorted(missed, key=lambda wrong: -wrong.side_px)[:WORST]


def worst_false_faces(sets: tuple[MeasuredSet, ...]) -> list[Wrong]:
    """Return the boxes with the highest scores that overlap no face by MIN_IOU."""
    false = [wrong for one in sets for wrong in _false_faces(one)]
    return sorted(false, key=lambda wrong: -wrong.score)[:WORST]


def measure_ms(content: bytes, input_px: int) -> float:
    """Return the median time of finding the faces of a frame of FRAME_SHAPE on one thread, in ms."""
    detector = trained_detector(content, input_px=input_px, score_threshold=SERVED_SCORE)
    frame = np.random.default_rng(0).integers(0, 256, FRAME_SHAPE, np.uint8)
    took_s = repeat(partial(detector.find, frame), number=1, repeat=WARM_UP_CALLS + CALLS)
    return round(1000 * median(took_s[WARM_UP_CALLS:]), 2)


def _misses(measured: MeasuredSet) -> Iterator[Wrong]:
    for picture, found in zip(measured.pictures, measured.found, strict=True):
        hits = iou(picture.boxes, found.boxes) >= MIN_IOU
        scores = np.where(hits, found.scores, 0).max(axis=1, initial=0)
        for box, score in zip(picture.boxes, scores.tolist(), strict=True):
            if score < SERVED_SCORE:
                yield Wrong(set_name=measured.name, path=picture.path, box=box, score=score)


def _false_faces(measured: MeasuredSet) -> Iterator[Wrong]:
    for picture, found in zip(measured.pictures, measured.found, strict=True):
        faces = np.concatenate([picture.boxes, picture.neither])
        is_false = ~np.any(iou(found.boxes, faces) >= MIN_IOU, axis=1)
        for box, score in zip(found.boxes[is_false], found.scores[is_false].tolist(), strict=True):
            yield Wrong(set_name=measured.name, path=picture.path, box=box, score=score)


def _mistake(wrong: Wrong, picture: str) -> Mistake:
    return Mistake(
        set_name=wrong.set_name,
        file=printable(Path(wrong.path.name)),
        score=round(wrong.score, 3),
        side_px=round(wrong.side_px, 1),
        picture=picture,
    )


def _png(wrong: Wrong) -> bytes:
    """Cut a box with its surroundings out of its picture, and draw it."""
    image: Image = decode_picture(wrong.path.read_bytes())
    centre = (wrong.box[:2] + wrong.box[2:]) / 2
    scale = CROP_PX / (CROP_REACH * float((wrong.box[2:] - wrong.box[:2]).max()))
    offset = CROP_PX / 2 - scale * centre
    crop = cv2.warpAffine(image, np.array([[scale, 0, offset[0]], [0, scale, offset[1]]]), (CROP_PX, CROP_PX))
    corners = np.round(wrong.box * scale + np.tile(offset, 2)).astype(int).tolist()
    cv2.rectangle(crop, corners[:2], corners[2:], WRONG_COLOUR, 1)
    _, content = cv2.imencode(".png", crop)
    return bytes(content)
