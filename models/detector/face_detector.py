"""Find the faces in a frame: BGR image in, boxes, outlines and scores out.

There are three detectors with one interface: `yunet` (YuNet on ONNX Runtime, the default), `dnn` (the same network on
OpenCV, where ONNX Runtime is not available) and `haar` (OpenCV's cascade of 2001, for comparison). A frame of any size
is scaled, up or down, to the long side that the network was trained for, and searched once; only the published
detector, with which training prepares its data, needs two passes. The network is a model folder's
(models/detector/card.py), by default the one in models/yunet. A file that is missing or damaged raises ModelUnusable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.card import RESTORE
from models.detector import haar
from models.detector.card import DEFAULT_FOLDER, DETECTOR_NAME, MIN_INPUT_PX, OutlineGeometry, read_detector_card
from models.detector.merge import merge_candidates
from models.detector.yunet_decode import OUTPUT_NAMES, SIZE_MULTIPLE, decode_yunet
from models.files import ModelUnusable, read_checked
from pipeline.vision.arrays import Floats, Image
from pipeline.vision.faces import MAX_FACES

Kind = Literal["yunet", "dnn", "haar"]
# From a BGR image whose sides are multiples of SIZE_MULTIPLE to candidates: boxes float32 n x 4, scores float32 n.
FindCandidates = Callable[[Image], tuple[Floats, Floats]]
# From such an image to YuNet's outputs, in the order of OUTPUT_NAMES.
RunYunet = Callable[[Image], Sequence[Floats]]

# A second pass is for faces up to this share of the frame's long side: it splits larger ones into parts.
DISTANT_SHARE = 0.1
# A candidate with a shorter side inside the frame is in the padding, or at the frame's edge.
MIN_SIDE_PX = 1.0
# Up to this factor an image is scaled down by averaging. Above it, interpolating gives the same boxes within 0.2 px in
# a fifth of the time.
AVERAGED_FACTOR = 0.5


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
    """A detector that is ready to use. One thread at a time may use it.

    passes_px: the long side to which a frame is scaled, in each pass; later passes are for distant faces.
    geometry: from boxes, by which crops are cut, to outlines. finds_outlines: whether its candidates are outlines.
    """

    def __init__(
        self,
        find_candidates: FindCandidates,
        passes_px: tuple[int, ...],
        *,
        geometry: OutlineGeometry = OutlineGeometry(),  # noqa: B008 -- it is frozen
        finds_outlines: bool = False,
    ) -> None:
        self._find_candidates = find_candidates
        self._passes_px = passes_px
        self._geometry = geometry
        self._finds_outlines = finds_outlines

    @property
    def input_px(self) -> int:
        """The long side of the largest image that it looks at."""
        return self._passes_px[-1]

    def find(self, image: Image) -> Faces:
        """Find the faces in an image (uint8 H x W x 3, BGR), of at least 1 x 1 pixel."""
        found, scores = self._search(image, self._passes_px[0])
        for long_side in self._passes_px[1:]:
            more, more_scores = _distant(*self._search(image, long_side), max(image.shape[:2]))
            found, scores = np.concatenate([found, more]), np.concatenate([scores, more_scores])
        found, scores, left_out = merge_candidates(found, scores, MAX_FACES)
        boxes = _inside(self._geometry.boxes_of(found) if self._finds_outlines else found, image)
        outlines = _inside(found if self._finds_outlines else self._geometry.outlines_of(found), image)
        seen = _is_visible(boxes) & _is_visible(outlines)  # at an edge, the other one may be outside
        return Faces(boxes=boxes[seen], outlines=outlines[seen], scores=scores[seen], left_out=left_out)

    def _search(self, image: Image, long_side: int) -> tuple[Floats, Floats]:
        """Return the candidates of one pass that the image shows; boxes in its pixels, partly outside at its edges."""
        height, width = image.shape[:2]
        scaled = _scaled(image, long_side)
        boxes, scores = self._find_candidates(_padded(scaled))
        boxes = boxes * np.tile([width / scaled.shape[1], height / scaled.shape[0]], 2).astype(np.float32)
        seen = _is_visible(_inside(boxes, image))
        return boxes[seen], scores[seen]


def load_detector(
    kind: Kind = "yunet",
    *,
    folder: Path = DEFAULT_FOLDER,
    input_px: int | None = None,
    score_threshold: float | None = None,
    threads: int = 1,
) -> FaceDetector:
    """Load a detector.

    Args:
        kind: yunet, dnn or haar.
        folder: the model folder of yunet or dnn. haar takes only the default of the next two from it.
        input_px: the long side a frame is scaled to; more finds smaller faces and takes longer. None: the card's.
        score_threshold: 0..1; faces below are left out. None: the card's.
        threads: for one frame. For dnn and haar it is OpenCV's setting, which applies to the whole process.

    Raises:
        ModelUnusable: the card or the model file is missing or damaged.
        ValueError: an unknown kind, or a size that is too small.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"unknown detector {kind!r}: choose one of {', '.join(get_args(Kind))}")
    if input_px is not None and input_px < MIN_INPUT_PX:
        raise ValueError(f"a detector input of {input_px} px is too small: at least {MIN_INPUT_PX}")
    card = read_detector_card(folder)
    input_px = card.input_px if input_px is None else input_px
    score_threshold = card.score_threshold if score_threshold is None else score_threshold
    if kind == "haar":
        cv2.setNumThreads(threads)
        return FaceDetector(haar.load_haar(score_threshold), (input_px,))
    if DETECTOR_NAME not in card.files:
        raise ModelUnusable(f"the card of {folder} names no {DETECTOR_NAME}: {RESTORE}")
    weights = read_checked(folder / DETECTOR_NAME, card.files[DETECTOR_NAME], remedy=RESTORE)
    find_candidates = yunet_candidates(weights, score_threshold, threads, on_opencv=kind == "dnn")
    return FaceDetector(find_candidates, (input_px,), geometry=card.outlines, finds_outlines=True)


def yunet_candidates(
    weights: bytes, score_threshold: float, threads: int = 1, *, on_opencv: bool = False
) -> FindCandidates:
    """Return how a YuNet finds candidates. weights: an ONNX file's content; the others as for load_detector()."""
    run = _yunet_on_opencv(weights, threads) if on_opencv else _yunet_on_onnxruntime(weights, threads)

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


def _is_visible(boxes: Floats) -> NDArray[np.bool_]:
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) >= MIN_SIDE_PX)


def _inside(boxes: Floats, image: Image) -> Floats:
    height, width = image.shape[:2]
    clipped: Floats = boxes.clip(0, np.array([width, height, width, height], np.float32))
    return clipped


def _scaled(image: Image, long_side: int) -> Image:
    height, width = image.shape[:2]
    factor = long_side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    how = cv2.INTER_AREA if factor <= AVERAGED_FACTOR else cv2.INTER_LINEAR
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
