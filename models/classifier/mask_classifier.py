"""Classify faces as masked or not: crops in, probabilities of a mask out.

A model is a folder with card.json (see card.py) and the files it names. There are three runtimes with nearly the same
results: `onnx`, the int8 network on the CPU; `cuda`, the same network in float16 on an NVIDIA GPU; and `keras`, the
float network on TensorFlow. An incomplete or damaged folder raises ModelUnusable, and any failure of a runtime
ClassifierFailed. Training and serving both cut crops with crop_faces().
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from models.card import RESTORE
from models.classifier.card import DEFAULT_FOLDER, INT8_NAME, KERAS_NAME, Card, read_card
from models.classifier.onnx_runtime import CUDA_BATCHES, Classify, load_cuda, load_onnx
from models.classifier.runtime_choice import Runtime, choose_runtime, this_machine
from models.files import ModelUnusable, read_checked
from pipeline.vision.arrays import Floats, Image
from pipeline.vision.faces import Label

log = logging.getLogger(__name__)

# More crops are classified in several calls, which bounds the time and memory of a call. On a CPU a face takes as long
# in a batch of 64, which needs 44 MB more.
MAX_BATCH = 16


class ClassifierFailed(Exception):
    """A runtime could not load or run a network; the message is the runtime's, in one line."""


class MaskClassifier:
    """A loaded classifier. One thread at a time may use it.

    Args:
        max_batch: maximum number of crops in one call of `classify`.
    """

    def __init__(self, card: Card, classify: Classify, max_batch: int = MAX_BATCH) -> None:
        self.card = card
        self.max_batch = max_batch
        self._classify = classify

    def mask_probability(self, crops: Image) -> Floats:
        """Return for each crop (uint8 n x S x S x 3, RGB) the probability of a mask: float32 n, 0..1.

        n may be 0. Crops of another size than the card's (made for the previous model) are resized.

        Raises:
            ClassifierFailed: the runtime failed on these crops.
        """
        if len(crops) == 0:
            return np.empty(0, np.float32)
        with converted_failures():
            if crops.shape[1] != self.card.size_px:
                crops = _resized(crops, self.card.size_px)
            starts = range(0, len(crops), self.max_batch)
            return np.concatenate([self._classify(crops[start : start + self.max_batch]) for start in starts])


@contextmanager
def converted_failures() -> Iterator[None]:
    """Convert every error of a runtime in a block into ClassifierFailed; ModelUnusable stays."""
    try:
        yield
    except ModelUnusable:
        raise
    except Exception as error:  # the classes of ONNX Runtime, TensorFlow and OpenCV have no other base in common
        raise ClassifierFailed(" ".join(str(error).split()) or type(error).__name__) from error


def load_classifier(folder: Path = DEFAULT_FOLDER, runtime: Runtime = "auto", threads: int = 1) -> MaskClassifier:
    """Load a classifier.

    Args:
        folder: the model folder.
        runtime: onnx, cuda, keras, or auto: cuda if this machine can run the model on a GPU, else onnx, with a line in
            the log when there is a GPU.
        threads: for one batch. For TensorFlow it applies to the whole process, if set before its first use.

    Raises:
        ModelUnusable: a file is missing or damaged, or the model or this machine lacks what this runtime needs.
        ClassifierFailed: the runtime cannot load the network.
        ValueError: an unknown runtime.
    """
    choice = choose_runtime(runtime, this_machine())
    card = read_card(folder)
    name = KERAS_NAME if choice.runtime == "keras" else INT8_NAME
    if name not in card.files:
        raise ModelUnusable(
            f"{folder} has no {name}, which runtime {choice.runtime} needs: choose a run folder of training"
        )
    content = read_checked(folder / name, card.files[name], remedy=RESTORE)
    if choice.runtime == "keras":
        from models.classifier.keras_runtime import load_compiled  # here: importing TensorFlow takes seconds

        with converted_failures():
            return MaskClassifier(card, load_compiled(folder / name, threads))
    warning = choice.warning
    if choice.runtime == "cuda":
        try:
            return _on_gpu(card, content, str(folder / name), threads)
        except ModelUnusable as error:
            if runtime == "cuda":
                raise
            warning = str(error)
    if warning:
        log.warning("%s runs on the CPU: %s", card.version, warning)
    with converted_failures():
        return MaskClassifier(card, load_onnx(content, threads))


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


def _on_gpu(card: Card, content: bytes, where: str, threads: int) -> MaskClassifier:
    try:
        with converted_failures():
            classify = load_cuda(content, where, card.size_px, threads)
    except (ModelUnusable, ClassifierFailed) as error:
        raise ModelUnusable(f"the GPU cannot be used: {str(error)[:200]}") from error
    return MaskClassifier(card, classify, max_batch=CUDA_BATCHES[-1])


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
