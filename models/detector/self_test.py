"""Load a detector and run it on a few images before it serves: a model folder in, a working detector out.

A file with the right hash may still be something else than YuNet, or take images of one size only: a network that does
not give finite numbers of the right shape for each image raises ModelUnusable.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort

from models.card import RESTORE
from models.detector import face_detector
from models.detector.card import DEFAULT_FOLDER, DETECTOR_NAME
from models.detector.face_detector import FaceDetector, Kind
from models.detector.yunet_decode import OUTPUT_NAMES
from models.files import ModelUnusable
from pipeline.vision.arrays import Floats, Image

# Height and width of the network's input, in pixels: it must accept any multiples of its largest stride.
INPUT_SIZES = ((32, 32), (64, 96), (96, 64))
# Height and width of frames, upright and wide.
FRAME_SIZES = ((480, 270), (270, 480))


def load_with_self_test(
    kind: Kind = "yunet",
    *,
    folder: Path = DEFAULT_FOLDER,
    input_px: int | None = None,
    score_threshold: float | None = None,
    threads: int = 1,
) -> FaceDetector:
    """Load a detector (see load_detector()) and check its answers; it is warmed up then."""
    try:
        detector = face_detector.load_detector(
            kind, folder=folder, input_px=input_px, score_threshold=score_threshold, threads=threads
        )
        network = None if kind == "haar" else (folder / DETECTOR_NAME).read_bytes()
        fault = next(_faults(detector, network), None)
    except ModelUnusable:
        raise
    except Exception as error:  # the classes of ONNX Runtime and OpenCV have no other base in common
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelUnusable(f"{folder} holds no detector that runs ({reason}): {RESTORE}") from error
    if fault:
        raise ModelUnusable(f"{folder} holds no detector of faces: {fault}; {RESTORE}")
    return detector


def _faults(detector: FaceDetector, network: bytes | None) -> Iterator[str]:
    """Yield what is wrong with a detector's answers. network: its ONNX file's content; None for a cascade."""
    rng = np.random.default_rng(0)
    if network is not None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = ort.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        for height, width in INPUT_SIZES:
            planes = rng.integers(0, 256, (1, 3, height, width)).astype(np.float32)
            for name, output in zip(OUTPUT_NAMES, session.run(OUTPUT_NAMES, {"input": planes}), strict=True):
                if fault := _fault(name, output, height * width):
                    yield fault
    for size in FRAME_SIZES:
        noise: Image = rng.integers(0, 256, (*size, 3), np.uint8)
        detector.find(noise)  # what fails, raises


def _fault(name: str, output: Floats, pixels: int) -> str | None:
    what, stride = name.split("_")
    shape = (1, pixels // int(stride) ** 2, 4 if what == "bbox" else 1)
    if output.shape != shape:
        return f"its output {name} is {_product(output.shape)} instead of {_product(shape)}"
    if not np.isfinite(output).all():
        return "it gives NaN or infinite numbers"
    if what != "bbox" and (output.min() < 0 or output.max() > 1):
        return f"its output {name} is {output.min():.3g} to {output.max():.3g}, which are not probabilities"
    return None


def _product(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
