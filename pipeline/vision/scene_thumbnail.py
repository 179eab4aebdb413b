"""Cut a small picture of some faces and what is around them; blur faces so that nothing brings them back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np

from pipeline.vision.arrays import Image
from pipeline.vision.faces import Box
from pipeline.vision.jpeg import encode_jpeg

MAX_SIDE_PX = 320
MAX_BYTES = 12_000
QUALITIES = (80, 65, 50, 35, 20)  # of JPEG: the first that makes it small enough
AROUND = 2.0  # how much of the picture is kept on each side of the faces, in sizes of the largest one
BLUR_CELLS = 4  # a blurred face keeps so many colours a side, whatever its size
BLUR_MARGIN = 0.25  # in sizes of the face: hair, ears and chin are outside of its box


def scene_thumbnail(image: Image, shown: Sequence[Box], blurred: Sequence[Box]) -> bytes:
    """Return a JPEG of at most MAX_SIDE_PX.

    Args:
        image: BGR uint8 H x W x 3.
        shown: the faces that it is about; empty for the whole picture.
        blurred: the faces that are blurred.
    """
    hidden = np.array(image, np.uint8, order="C")
    for box in blurred:
        _blur(hidden, box)
    x1, y1, x2, y2 = _around(shown, image.shape[1], image.shape[0])
    part = hidden[y1:y2, x1:x2]
    scale = min(1.0, MAX_SIDE_PX / max(part.shape[:2]))
    size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
    small = cast(Image, cv2.resize(part, size, interpolation=cv2.INTER_AREA))
    return _small_jpeg(small)


def _small_jpeg(image: Image) -> bytes:
    """Return a JPEG of at most MAX_BYTES, or of the lowest quality."""
    for quality in QUALITIES:
        jpeg = encode_jpeg(image, quality)
        if len(jpeg) <= MAX_BYTES:
            break
    return jpeg


def _blur(image: Image, box: Box) -> None:
    """Replace a face by the mean colours of BLUR_CELLS x BLUR_CELLS parts of it, smoothly joined."""
    margin = BLUR_MARGIN * max(box[2] - box[0], box[3] - box[1])
    x1, y1, x2, y2 = _clipped(box, margin, image.shape[1], image.shape[0])
    if x1 >= x2 or y1 >= y2:
        return
    cells = cv2.resize(image[y1:y2, x1:x2], (BLUR_CELLS, BLUR_CELLS), interpolation=cv2.INTER_AREA)
    image[y1:y2, x1:x2] = cv2.resize(cells, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR)


def _around(boxes: Sequence[Box], width: int, height: int) -> tuple[int, int, int, int]:
    """Return the part of a picture that shows some faces and what is around them, x1, y1, x2, y2."""
    if not boxes:
        return 0, 0, width, height
    sides = np.asarray(boxes, np.float64)
    x1, y1 = sides[:, :2].min(axis=0)
    x2, y2 = sides[:, 2:].max(axis=0)
    margin = AROUND * (sides[:, 2:] - sides[:, :2]).max()
    found = _clipped((x1, y1, x2, y2), margin, width, height)
    return found if found[0] < found[2] and found[1] < found[3] else (0, 0, width, height)


def _clipped(box: Box, margin: float, width: int, height: int) -> tuple[int, int, int, int]:
    """Return a box with a margin, in whole pixels of a picture."""
    x1, y1 = max(0, int(box[0] - margin)), max(0, int(box[1] - margin))
    return x1, y1, min(width, int(np.ceil(box[2] + margin))), min(height, int(np.ceil(box[3] + margin)))
