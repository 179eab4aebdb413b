"""Decode one picture: the bytes of a file in, a JPEG or a BGR image out, upright, of any depth that cameras write.

A JPEG is passed on as its own bytes unless its EXIF orientation says that it must be rotated. Of an animated picture
the first frame is decoded. Bytes that are damaged, or a picture that is too large, raise `BadImage`.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pillow_heif
from msgspec import Struct
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError

from pipeline.vision.arrays import Image
from pipeline.vision.jpeg import PILLOW_ERRORS, BadImage, check_size, jpeg_size

JPEG_START = b"\xff\xd8\xff"
ORIENTATION_TAG = 0x0112  # EXIF; 1 is upright, 2 to 8 are rotated or mirrored
DEPTHS = (8, 10, 12, 14, 16)  # of cameras and scanners, in bits

warnings.filterwarnings("ignore", module=r"PIL\.")  # about damage that it can read past
PillowImage.MAX_IMAGE_PIXELS = None  # Pillow's own limit only warns; check_size raises
pillow_heif.register_heif_opener()


class Picture(Struct, frozen=True, kw_only=True):
    """A picture that is upright. Either jpeg or image is set. image: BGR uint8 height x width x 3."""

    width: int
    height: int
    jpeg: bytes | None = None
    image: Image | None = None


def read_picture_bytes(content: bytes) -> Picture:
    """Return the picture in the bytes of a file.

    Raises:
        BadImage: they are no picture that can be decoded, or it is too large.
    """
    return _jpeg(content) if content.startswith(JPEG_START) else _decoded(content)


def one_line(error: BaseException) -> str:
    """Return the text of an error on one line; its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def _jpeg(content: bytes) -> Picture:
    width, height = jpeg_size(content)
    if _orientation(content) == 1:
        return Picture(width=width, height=height, jpeg=content)
    return _decoded(content)


def _orientation(jpeg: bytes) -> int:
    try:
        with PillowImage.open(io.BytesIO(jpeg)) as image:
            found = image.getexif().get(ORIENTATION_TAG, 1)
    except PILLOW_ERRORS:
        return 1  # the pixels may be intact; decoding reports damage
    return found if found in range(2, 9) else 1


def _decoded(content: bytes) -> Picture:
    try:
        with PillowImage.open(io.BytesIO(content)) as image:
            check_size(*image.size)
            bgr = _deep_colours(content) if _has_deep_colours(image) else None
            bgr = _bgr(ImageOps.exif_transpose(image)) if bgr is None else bgr
    except BadImage:
        raise
    except UnidentifiedImageError as error:  # its own text holds a memory address
        raise BadImage("not a picture that can be decoded: no picture format that is known") from error
    except PILLOW_ERRORS as error:
        raise BadImage(f"not a picture that can be decoded: {one_line(error)}") from error
    height, width = bgr.shape[:2]
    return Picture(width=width, height=height, image=bgr)


def _bgr(image: PillowImage.Image) -> Image:
    """Return the first frame of a picture of any mode as BGR uint8; transparent pixels become white."""
    if image.mode.startswith("I") or image.mode == "F":
        image = PillowImage.fromarray(to_8_bit(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = PillowImage.alpha_composite(PillowImage.new("RGBA", image.size, "white"), image)
    return np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])


def _has_deep_colours(image: PillowImage.Image) -> bool:
    """Return whether colours have 16 bit, of which Pillow keeps the upper 8."""
    return image.mode in ("RGB", "RGBA") and any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))


def _deep_colours(content: bytes) -> Image | None:
    """Return an upright picture of 16 bit a colour as BGR uint8; None if OpenCV cannot read it."""
    import cv2  # as in pipeline/vision/jpeg.py

    deep = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    return None if deep is None else to_8_bit(deep)


def to_8_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return values of any depth as uint8.

    Whole numbers are taken to have 8, 10, 12, 14 or 16 bits, as few as the largest one needs: cameras of 12 bit write
    files of 16. Fractions are taken to be 0..1 or 0..255 or, if one is above that, 0 to the largest. What is no
    number, or below 0, becomes 0.
    """
    is_whole = np.issubdtype(values.dtype, np.integer)
    fractions = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0)
    brightest = float(fractions.max())
    if is_whole:
        bits = int(brightest).bit_length()
        largest = 2.0 ** next((depth for depth in DEPTHS if depth >= bits), bits) - 1
    else:
        largest = next((limit for limit in (1.0, 255.0) if brightest <= limit), brightest)
    return np.asarray(fractions * (255 / largest), np.uint8)
