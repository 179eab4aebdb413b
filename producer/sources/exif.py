"""Turn the image of a JPEG as its EXIF orientation asks for."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image as PillowImage

from pipeline.vision.arrays import Image
from pipeline.vision.jpeg import PILLOW_ERRORS

ORIENTATION_TAG = 0x0112
EXIF = b"Exif\x00\x00"
MAX_EXIF_AT = 4096  # other segments in front of it are short
_TURNS: dict[int, Callable[[Image], Image]] = {  # by orientation; 1 is upright
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image),
}


def upright(image: Image, jpeg: bytes) -> Image:
    """Return the image as it is to be seen. image: of the JPEG, as it is stored."""
    if EXIF not in jpeg[:MAX_EXIF_AT]:
        return image
    try:
        with PillowImage.open(io.BytesIO(jpeg)) as opened:
            orientation = opened.getexif().get(ORIENTATION_TAG, 1)
    except PILLOW_ERRORS:  # damaged metadata turns nothing
        return image
    turn = _TURNS.get(orientation)
    return np.ascontiguousarray(turn(image)) if turn else image
