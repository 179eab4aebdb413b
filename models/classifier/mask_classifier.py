"""Classify faces as masked or not: crops in, probabilities of a mask out.

A model is a folder with card.json (see card.py) and the files it names. There are two runtimes with the same results:
`onnx`, the int8 network on ONNX Runtime's CPU provider, and `keras`, the float network on TensorFlow, for GPUs. An
incomplete or damaged folder raises ModelUnusable, and any failure of a runtime ClassifierFailed. Training and serving
both cut crops with crop_faces().
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import onnxruntime as ort

from models.classifier.card import DEFAULT_FOLDER, INT8_NAME, KERAS_NAME, RESTORE, Card, read_card
from models.files import ModelUnusable, read_checked
from pipeline.vision.arrays import Floats, Image
from pipeline.vision.faces import Label

Runtime = Literal["auto", "onnx", "keras"]
# From uint8 n x S x S x 3 RGB, 1 <= n <= MAX_BATCH, to the probabilities float32 n.
Classify = Callable[[Image], Floats]

# More crops are classified in several calls, which bounds the time and memory of a call.
MAX_BATCH = 64
# It exists when NVIDIA's driver is loaded.
GPU_DEVICE = Path("/dev/nvidiactl")


class ClassifierFailed(Exception):
    """A runtime could not load or run a network; the message is the runtime's, in one line."""


class MaskClassifier:
    """A loaded classifier. One thread at a time may use it."""

    def __init__(self, card: Card, classify: Classify) -> None:
        self.card = card
        self._classify = classify

    def mask_probability(self, crops: Image) -> Floats:
        """Return for each crop (uint8 n x S x S x 3, RGB) the probability of a mask: float32 n, 0..1.

        n may be 0. Crops of another size than the card's (made for the previous model) are resized.

        Raises:
            ClassifierFailed: the runtime failed on these crops.
        """
        if len(crops) == 0:
            return np.empty(0, np.float32)
        with _converted_failures():
            if crops.shape[1] != self.card.size_px:
                crops = _resized(crops, self.card.size_px)
            parts = [self._classify(crops[start : start + MAX_BATCH]) for start in range(0, len(crops), MAX_BATCH)]
            return np.concatenate(parts)


def load_classifier(folder: Path = DEFAULT_FOLDER, runtime: Runtime = "auto", threads: int = 1) -> MaskClassifier:
    """Load a classifier.

    Args:
        folder: the model folder.
        runtime: onnx, keras, or auto: keras if there are a GPU, TensorFlow and the model's .keras file, else onnx.
        threads: for one batch. For TensorFlow it applies to the whole process, if set before its first use.

    Raises:
        ModelUnusable: a file is missing or damaged, or the model has none for this runtime.
        ClassifierFailed: the runtime cannot load the network.
        ValueError: an unknown runtime.
    """
    if runtime not in get_args(Runtime):
        raise ValueError(f"unknown runtime {runtime!r}: choose one of {', '.join(get_args(Runtime))}")
    card = read_card(folder)
    if runtime == "auto":
        use_gpu = GPU_DEVICE.exists() and KERAS_NAME in card.files and find_spec("tensorflow") is not None
        runtime = "keras" if use_gpu else "onnx"
    name = KERAS_NAME if runtime == "keras" else INT8_NAME
    if name not in card.files:
        raise ModelUnusable(f"{folder} has no {name}, which runtime {runtime} needs: choose a run folder of training")
    content = read_checked(folder / name, card.files[name], remedy=RESTORE)
    with _converted_failures():
        if runtime == "onnx":
            return MaskClassifier(card, load_onnx(content, threads))
        from models.classifier.keras_runtime import load_compiled  # here: importing TensorFlow takes seconds

        return MaskClassifier(card, load_compiled(folder / name, threads))


def label_of(probability: Floats, threshold: float = 0.5) -> tuple[list[Label], Floats]:
    """Return the label of each face and its confidence.

    Args:
        probability: float32 n, of a mask, 0..1.
        threshold: above 0 and below 1; the lowest probability that is labelled mask.

    Returns:
        n labels, and the confidence of each, float32 n, 0.5..1: max(p, 1 - p) at the threshold 0.5, scaled linearly on
        each side of any other threshold.
    """
    has_mask = probability >= threshold
    margin = np.where(has_mask, (probability - threshold) / (1 - threshold), (threshold - probability) / threshold)
    labels: list[Label] = ["mask" if yes else "no_mask" for yes in has_mask]
    return labels, (0.5 + 0.5 * margin).astype(np.float32)


def crop_faces(image: Image, boxes: Floats, size_px: int, margin: float) -> Image:
    """Cut square crops of faces out of an image, as the classifier expects them.

    A crop is a square round the box's centre. Its side is the box's longer side, plus `margin` of it at each side; a
    square keeps the face's proportions. Outside the image, its edge is repeated.

    Args:
        image: uint8 H x W x 3, BGR.
        boxes: float32 n x 4, x1, y1, x2, y2 in pixels of the image; n may be 0.
        size_px: side S of the crops.
        margin: share of the box's longer side, 0 or more.

    Returns:
        uint8 n x S x S x 3, RGB.
    """
    crops = np.empty((len(boxes), size_px, size_px, 3), np.uint8)
    for crop, box in zip(crops, boxes.tolist(), strict=True):
        square = _square(image, box, margin)
        how = cv2.INTER_AREA if square.shape[0] > size_px else cv2.INTER_LINEAR
        cv2.cvtColor(cv2.resize(square, (size_px, size_px), interpolation=how), cv2.COLOR_BGR2RGB, dst=crop)
    return crops


def load_onnx(content: bytes, threads: int) -> Classify:
    """Open an ONNX classifier (a file's bytes) on the CPU and return its function."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin between two batches would take the cores from other workers on the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def classify(crops: Image) -> Floats:
        probability: Floats = session.run(None, {name: crops})[0]
        return probability.reshape(-1)

    return classify


@contextmanager
def _converted_failures() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the classes of ONNX Runtime, TensorFlow and OpenCV have no other base in common
        raise ClassifierFailed(" ".join(str(error).split()) or type(error).__name__) from error


def _square(image: Image, box: Sequence[float], margin: float) -> Image:
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box
    side = max(1, round(max(x2 - x1, y2 - y1) * (1 + 2 * margin)))
    # At least one pixel must be inside the image, so that there is an edge to repeat.
    left = min(max(round((x1 + x2 - side) / 2), 1 - side), width - 1)
    top = min(max(round((y1 + y2 - side) / 2), 1 - side), height - 1)
    right, bottom = left + side, top + side
    inside = image[max(0, top) : min(height, bottom), max(0, left) : min(width, right)]
    missing = max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width)
    if not any(missing):
        return inside
    padded: Image = cv2.copyMakeBorder(inside, *missing, cv2.BORDER_REPLICATE)
    return padded


def _resized(crops: Image, size_px: int) -> Image:
    how = cv2.INTER_AREA if crops.shape[1] > size_px else cv2.INTER_LINEAR
    return np.stack([cv2.resize(crop, (size_px, size_px), interpolation=how) for crop in crops])
