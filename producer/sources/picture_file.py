"""Read one picture: a file in, JPEG bytes or a BGR image out, upright, of any depth that cameras and scanners write.

A JPEG is passed on as its own bytes unless its EXIF orientation says that it must be rotated. Of an animated picture
the first frame is read. A file that is damaged or too large yields a SourceFrame with an error.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError

from pipeline.vision import jpeg
from pipeline.vision.arrays import Image
from pipeline.vision.jpeg import PILLOW_ERRORS
from producer.sources.source import SourceFrame

JPEG_START = b"\xff\xd8\xff"
ORIENTATION_TAG = 0x0112  # EXIF; 1 is upright, 2 to 8 are rotated or mirrored
DEPTHS = (8, 10, 12, 14, 16)  # of cameras and scanners, in bits
MAX_FILE_BYTES = 512 * 1024 * 1024  # more than 50 megapixels need in any format

warnings.filterwarnings("ignore", module=r"PIL\.")  # about damage that it can read past
PillowImage.MAX_IMAGE_PIXELS = None  # Pillow's own limit only warns; jpeg.check_size raises
pillow_heif.register_heif_opener()


def read_picture(path: Path, index: int, name: str | None = None) -> SourceFrame:
    """Return the picture in a file, or a SourceFrame that says why it cannot be read.

    name: for people; None for the file's own.
    """
    name = printable_name(path.name if name is None else name)
    try:
        content = _content(path)
        return _jpeg(name, index, content) if content.startswith(JPEG_START) else _decoded(name, index, content)
    except jpeg.BadImage as error:
        return SourceFrame(name=name, index=index, error=_one_line(error))
    except OSError as error:
        return SourceFrame(name=name, index=index, error=f"cannot be read: {error.strerror or _one_line(error)}")


def printable_name(name: str) -> str:
    """Return a file's name as text that can be encoded; bytes that are no UTF-8 become U+FFFD."""
    return os.fsencode(name).decode(errors="replace")


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    if size == 0:
        raise jpeg.BadImage("the file is empty")
    if size > MAX_FILE_BYTES:
        raise jpeg.BadImage(f"the file has {size} bytes, at most {MAX_FILE_BYTES} are allowed")
    return path.read_bytes()


def _jpeg(name: str, index: int, content: bytes) -> SourceFrame:
    width, height = jpeg.jpeg_size(content)
    if _orientation(content) == 1:
        return SourceFrame(name=name, index=index, width=width, height=height, jpeg=content)
    return _decoded(name, index, content)


def _orientation(jpeg: bytes) -> int:
    try:
        with PillowImage.open(io.BytesIO(jpeg)) as image:
            found = image.getexif().get(ORIENTATION_TAG, 1)
    except PILLOW_ERRORS:
        return 1  # the pixels may be intact; decoding reports damage
    return found if found in range(2, 9) else 1


def _decoded(name: str, index: int, content: bytes) -> SourceFrame:
    try:
        with PillowImage.open(io.BytesIO(content)) as image:
            jpeg.check_size(*image.size)
            bgr = _deep_colours(content) if _has_deep_colours(image) else None
            bgr = _bgr(ImageOps.exif_transpose(image)) if bgr is None else bgr
    except jpeg.BadImage:
        raise
    except UnidentifiedImageError as error:  # its own text holds a memory address
        raise jpeg.BadImage("not a picture that can be decoded: no picture format that is known") from error
    except PILLOW_ERRORS as error:
        raise jpeg.BadImage(f"not a picture that can be decoded: {_one_line(error)}") from error
    height, width = bgr.shape[:2]
    return SourceFrame(name=name, index=index, width=width, height=height, image=bgr)


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


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
