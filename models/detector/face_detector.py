"""Find the faces in a frame: BGR image in, boxes and scores out.

There are three detectors with one interface: `yunet` (YuNet on ONNX Runtime, the default), `dnn` (the same network on
OpenCV, where ONNX Runtime is not available) and `haar` (OpenCV's cascade of 2001, for comparison). A frame of any size
is scaled, up or down, and searched in two passes: with a long side of FIRST_PX for every face, then of input_px for the
distant ones. A model file that is missing or damaged raises ModelUnusable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import cv2
import numpy as np
import onnxruntime as ort

from models.detector import haar
from models.detector.merge import merge_candidates
from models.detector.yunet_decode import OUTPUT_NAMES, SIZE_MULTIPLE, decode_yunet
from models.files import read_checked
from pipeline.vision.arrays import Floats, Image
from pipeline.vision.faces import MAX_FACES

Kind = Literal["yunet", "dnn", "haar"]
# From a BGR image whose sides are multiples of SIZE_MULTIPLE to candidates: boxes float32 n x 4, scores float32 n.
FindCandidates = Callable[[Image], tuple[Floats, Floats]]
# From such an image to YuNet's outputs, in the order of OUTPUT_NAMES.
RunYunet = Callable[[Image], Sequence[Floats]]

YUNET_FILE = Path(__file__).parent.parent / "assets" / "face_detector.onnx"
# Of the file that scripts/yunet_onnx.py converts the published one to; scripts/fetch_assets.py checks it too.
YUNET_SHA256 = "bf45cf3917455c903409b0e621a3bf6c3b379a6427672482f7a3eed437dde185"

# Long sides of the image in the two passes; models/README.md has the accuracy and cost of other sizes.
FIRST_PX = 640
INPUT_PX = 960
# The second pass is for faces up to this share of the frame's long side. It splits larger faces into parts and takes
# hands for faces; the first pass finds all of them.
DISTANT_SHARE = 0.1
# OpenCV's demos of YuNet use 0.6 to 0.9, for bare faces at arm's length. Masked and distant faces score 0.3 to 0.6, but
# below 0.5 hands are found as faces, too (models/README.md).
SCORE_THRESHOLD = 0.5
# A candidate with a shorter side inside the frame is in the padding, or at the frame's edge.
MIN_SIDE_PX = 1.0
# YuNet's boxes reach from the forehead to the chin, as in WIDER FACE. The annotations of face-mask-detection are lower
# by about this share of the height, for faces of every size (models/README.md).
YUNET_LOWER = 0.125


@dataclass(frozen=True, slots=True, kw_only=True)
class Faces:
    """The faces of one frame, best first.

    boxes: float32 n x 4, x1, y1, x2, y2 in pixels of the frame, inside it; 0 x 4 without a face. For cutting crops.
    outlines: float32 n x 4, likewise, as a person would draw them round the faces. For showing and measuring.
    scores: float32 n, 0..1.
    left_out: how many faces were found beyond MAX_FACES.
    """

    boxes: Floats
    outlines: Floats
    scores: Floats
    left_out: int


class FaceDetector:
    """A loaded detector, see load_detector(). One thread at a time may use it.

    passes_px: the long side of the image in each pass.
    lower: how far an outline is below its box, as a share of the box's height.
    """

    def __init__(self, find_candidates: FindCandidates, passes_px: tuple[int, ...], lower: float) -> None:
        self._find_candidates = find_candidates
        self._passes_px = passes_px
        self._lower = lower

    def find(self, image: Image) -> Faces:
        """Find the faces in an image (uint8 H x W x 3, BGR), of at least 1 x 1 pixel."""
        boxes, scores = self._search(image, self._passes_px[0])
        for long_side in self._passes_px[1:]:
            more_boxes, more_scores = _distant(*self._search(image, long_side), max(image.shape[:2]))
            boxes, scores = np.concatenate([boxes, more_boxes]), np.concatenate([scores, more_scores])
        boxes, scores, left_out = merge_candidates(boxes, scores, MAX_FACES)
        boxes = _inside(boxes, image)
        outlines = boxes.copy()
        outlines[:, [1, 3]] += self._lower * (boxes[:, 3:] - boxes[:, 1:2])
        return Faces(boxes=boxes, outlines=_inside(outlines, image), scores=scores, left_out=left_out)

    def _search(self, image: Image, long_side: int) -> tuple[Floats, Floats]:
        """Return the candidates of one pass, their boxes in pixels of the image and inside it."""
        height, width = image.shape[:2]
        scaled = _scaled(image, long_side)
        boxes, scores = self._find_candidates(_padded(scaled))
        boxes = boxes * np.tile([width / scaled.shape[1], height / scaled.shape[0]], 2).astype(np.float32)
        boxes = _inside(boxes, image)
        visible = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) >= MIN_SIDE_PX
        return boxes[visible], scores[visible]


def load_detector(
    kind: Kind = "yunet",
    *,
    input_px: int = INPUT_PX,
    score_threshold: float = SCORE_THRESHOLD,
    threads: int = 1,
) -> FaceDetector:
    """Load a detector.

    Args:
        kind: yunet, dnn or haar.
        input_px: the long side a frame is scaled to; more finds smaller faces and takes longer. Up to FIRST_PX, and
            for haar, which searches all sizes by itself, there is one pass only.
        score_threshold: 0..1; faces below are left out.
        threads: for one frame. For dnn and haar it is OpenCV's setting, which applies to the whole process.

    Raises:
        ModelUnusable: the model file is missing or damaged.
        ValueError: an unknown kind, or a size that is too small.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"unknown detector {kind!r}: choose one of {', '.join(get_args(Kind))}")
    if input_px < SIZE_MULTIPLE:
        raise ValueError(f"a detector input of {input_px} px is too small: at least {SIZE_MULTIPLE}")
    passes_px = (FIRST_PX, input_px) if input_px > FIRST_PX else (input_px,)
    if kind == "haar":
        cv2.setNumThreads(threads)
        return FaceDetector(haar.load_haar(score_threshold), (input_px,), lower=0)
    weights = read_checked(YUNET_FILE, YUNET_SHA256, remedy="run `make setup` to fetch it")
    run = _yunet_on_onnxruntime(weights, threads) if kind == "yunet" else _yunet_on_opencv(weights, threads)
    return FaceDetector(_finder(run, score_threshold), passes_px, YUNET_LOWER)


def trained_detector(weights: bytes, *, input_px: int, score_threshold: float, threads: int = 1) -> FaceDetector:
    """Return a detector with one pass from an ONNX file of YuNet that was trained on; its boxes are its outlines."""
    return FaceDetector(_finder(_yunet_on_onnxruntime(weights, threads), score_threshold), (input_px,), lower=0)


def _finder(run: RunYunet, score_threshold: float) -> FindCandidates:
    def find_candidates(image: Image) -> tuple[Floats, Floats]:
        return decode_yunet(dict(zip(OUTPUT_NAMES, run(image), strict=True)), image.shape[1], score_threshold)

    return find_candidates


def _yunet_on_onnxruntime(weights: bytes, threads: int) -> RunYunet:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin between two frames would take the cores from other workers on the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = ort.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    buffer = np.empty(0, np.float32)

    def run(image: Image) -> Sequence[Floats]:
        nonlocal buffer
        if buffer.size < image.size:  # reused for the next frame: allocating costs more than copying
            buffer = np.empty(image.size, np.float32)
        planes = buffer[: image.size].reshape(1, 3, *image.shape[:2])
        for plane, channel in zip(planes[0], cv2.split(image), strict=True):
            plane[:] = channel
        outputs: Sequence[Floats] = session.run(OUTPUT_NAMES, {"input": planes})
        return outputs

    return run


def _yunet_on_opencv(weights: bytes, threads: int) -> RunYunet:
    cv2.setNumThreads(threads)
    network = cv2.dnn.readNetFromONNX(np.frombuffer(weights, np.uint8))

    def run(image: Image) -> Sequence[Floats]:
        network.setInput(cv2.dnn.blobFromImage(image))
        return cast(Sequence[Floats], network.forward(OUTPUT_NAMES))

    return run


def _distant(boxes: Floats, scores: Floats, long_side: int) -> tuple[Floats, Floats]:
    small = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) <= DISTANT_SHARE * long_side
    return boxes[small], scores[small]


def _inside(boxes: Floats, image: Image) -> Floats:
    height, width = image.shape[:2]
    clipped: Floats = boxes.clip(0, np.array([width, height, width, height], np.float32))
    return clipped


def _scaled(image: Image, long_side: int) -> Image:
    height, width = image.shape[:2]
    factor = long_side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    scaled: Image = cv2.resize(image, size, interpolation=how)
    return scaled


def _padded(image: Image) -> Image:
    """Pad an image with black at the right and at the bottom, to multiples of SIZE_MULTIPLE."""
    height, width = image.shape[:2]
    down, right = -height % SIZE_MULTIPLE, -width % SIZE_MULTIPLE
    if not (down or right):
        return image
    padded: Image = cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_CONSTANT)
    return padded
