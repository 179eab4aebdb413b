"""Find the faces in a picture: BGR frame in, boxes and scores out.

Three detectors, one result: `yunet` (YuNet by ONNX Runtime, the default), `dnn` (the same network by OpenCV, where ONNX
Runtime is not to be had) and `haar` (OpenCV's cascade of 2001, for comparison). A frame of any size is scaled so that
its long side is input_px, small ones up as well: distant faces are found better so. A model file that is missing or
damaged raises ModelUnusable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import cv2
import cv2.data
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.files import ModelUnusable, read_checked
from models.yunet_decode import OUTPUT_NAMES, SIZE_MULTIPLE, Floats, decode

Frame = NDArray[np.uint8]
Kind = Literal["yunet", "dnn", "haar"]
# Finds faces in a BGR picture whose sides are multiples of SIZE_MULTIPLE: boxes float32 n x 4, scores float32 n.
FindIn = Callable[[Frame], tuple[Floats, Floats]]

YUNET_FILE = Path(__file__).parent / "assets" / "face_detector.onnx"
# What models/yunet_onnx.py makes of the published file.
YUNET_SHA256 = "bf45cf3917455c903409b0e621a3bf6c3b379a6427672482f7a3eed437dde185"

MAX_FACES = 128
INPUT_PX = 640
# OpenCV's demos of YuNet use 0.6 to 0.9, for bare faces at arm's length. A mask hides half a face, and distance does
# the rest: such faces score 0.3 to 0.6. A false face costs one crop, and its score goes along for whoever is stricter.
SCORE_THRESHOLD = 0.3

# Haar cascade: the step between the sizes searched, and the hits that must agree (OpenCV's own defaults).
HAAR_SCALE_STEP = 1.1
HAAR_MIN_NEIGHBOURS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Faces:
    """The faces of one frame, best first.

    boxes: float32 n x 4, x1, y1, x2, y2 in pixels of the frame, inside it; 0 x 4 without a face.
    scores: float32 n, 0..1.
    left_out: how many more were found than MAX_FACES.
    """

    boxes: Floats
    scores: Floats
    left_out: int


class FaceDetector:
    """A loaded detector. One thread at a time may use it."""

    def __init__(self, find_in: FindIn, input_px: int) -> None:
        """Wrap a function that finds faces in pictures of a bounded size; see load()."""
        self._find_in = find_in
        self._input_px = input_px

    def find(self, frame: Frame) -> Faces:
        """Find the faces in a frame (uint8 H x W x 3, BGR), of any size from 1 x 1 on."""
        height, width = frame.shape[:2]
        picture = _scaled(frame, self._input_px)
        boxes, scores = self._find_in(_padded(picture))
        boxes = boxes * np.tile([width / picture.shape[1], height / picture.shape[0]], 2).astype(np.float32)
        np.clip(boxes, 0, np.array([width, height, width, height], np.float32), out=boxes)
        real = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])  # else it lay in the padding
        boxes, scores = boxes[real], scores[real]
        best = np.argsort(-scores, kind="stable")[:MAX_FACES]
        return Faces(boxes=boxes[best], scores=scores[best], left_out=len(scores) - len(best))


def load(
    kind: Kind = "yunet",
    *,
    input_px: int = INPUT_PX,
    score_threshold: float = SCORE_THRESHOLD,
    threads: int = 1,
) -> FaceDetector:
    """Load a detector.

    Args:
        kind: yunet, dnn or haar.
        input_px: the long side a frame is scaled to; more finds smaller faces and takes longer.
        score_threshold: 0..1; faces below are left out.
        threads: for one frame. For dnn and haar it is OpenCV's setting, which holds for the whole process.

    Raises:
        ModelUnusable: the model file is missing or damaged.
        ValueError: an unknown kind, or a size no face fits in.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"unknown detector {kind!r}: choose one of {', '.join(get_args(Kind))}")
    if input_px < SIZE_MULTIPLE:
        raise ValueError(f"a detector input of {input_px} px is too small: at least {SIZE_MULTIPLE}")
    if kind == "yunet":
        return FaceDetector(_yunet(score_threshold, threads), input_px)
    cv2.setNumThreads(threads)
    return FaceDetector(_yunet_dnn(score_threshold) if kind == "dnn" else _haar(score_threshold), input_px)


def _yunet(score_threshold: float, threads: int) -> FindIn:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads take the cores away from the other workers of the machine between two frames.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = ort.InferenceSession(_yunet_bytes(), options, providers=["CPUExecutionProvider"])

    planes = np.empty((1, 3, 0, 0), np.float32)

    def find_in(picture: Frame) -> tuple[Floats, Floats]:
        nonlocal planes
        if planes.shape[2:] != picture.shape[:2]:  # kept for the next frame: fresh memory costs more than the copying
            planes = np.empty((1, 3, *picture.shape[:2]), np.float32)
        for plane, channel in zip(planes[0], cv2.split(picture), strict=True):
            plane[:] = channel
        outputs = session.run(OUTPUT_NAMES, {"input": planes})
        return decode(dict(zip(OUTPUT_NAMES, outputs, strict=True)), picture.shape[1], score_threshold)

    return find_in


def _yunet_dnn(score_threshold: float) -> FindIn:
    network = cv2.dnn.readNetFromONNX(np.frombuffer(_yunet_bytes(), np.uint8))

    def find_in(picture: Frame) -> tuple[Floats, Floats]:
        network.setInput(cv2.dnn.blobFromImage(picture))
        outputs = network.forward(OUTPUT_NAMES)
        return decode(dict(zip(OUTPUT_NAMES, outputs, strict=True)), picture.shape[1], score_threshold)

    return find_in


def _haar(score_threshold: float) -> FindIn:
    """Use the cascade; its score is the logistic function of the last stage's weight (its margin, about -1 to 8)."""
    path = Path(cv2.data.haarcascades) / "haarcascade_frontalface_default.xml"
    cascade = cv2.CascadeClassifier(str(path))
    if cascade.empty():
        raise ModelUnusable(f"{path} is missing or damaged: install opencv-python-headless again")

    def find_in(picture: Frame) -> tuple[Floats, Floats]:
        grey = cv2.equalizeHist(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY))
        found, _, weights = cascade.detectMultiScale3(
            grey, HAAR_SCALE_STEP, HAAR_MIN_NEIGHBOURS, outputRejectLevels=True
        )
        boxes = np.asarray(found, np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        margins = np.asarray(weights, np.float32).reshape(-1)
        scores = (1 / (1 + np.exp(-margins))).astype(np.float32)
        sure = scores >= score_threshold
        return boxes[sure], scores[sure]

    return find_in


def _yunet_bytes() -> bytes:
    return read_checked(YUNET_FILE, YUNET_SHA256, remedy="run `make setup` to fetch it")


def _scaled(frame: Frame, long_side: int) -> Frame:
    height, width = frame.shape[:2]
    factor = long_side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    scaled: Frame = cv2.resize(frame, size, interpolation=how)
    return scaled


def _padded(picture: Frame) -> Frame:
    """Add black at the right and at the bottom up to multiples of SIZE_MULTIPLE."""
    height, width = picture.shape[:2]
    down, right = -height % SIZE_MULTIPLE, -width % SIZE_MULTIPLE
    if not (down or right):
        return picture
    padded: Frame = cv2.copyMakeBorder(picture, 0, down, 0, right, cv2.BORDER_CONSTANT)
    return padded
