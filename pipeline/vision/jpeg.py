"""Encode and decode JPEG images, and unpack crops. Sizes are checked before decoding; errors raise `BadImage`."""

from __future__ import annotations

import re
import struct
import zlib
from typing import cast

import numpy as np
import simplejpeg

from pipeline.vision.arrays import Image

MAX_PIXELS = 50_000_000  # 150 MB of memory when decoded
MAX_SIDE_PX = 65_500  # libjpeg's own limit
MAX_SCANS = 50  # encoders write up to 12; each scan of a progressive JPEG, however few its bytes, takes a full pass
END = b"\xff\xd9"
# What libjpeg-turbo says of pictures that browsers show: some cameras forget the end marker, or write bytes in front of
# a marker.
END_IS_MISSING = "Premature end of JPEG file"
STRAY_BYTES = re.compile("([0-9]+) extraneous bytes before marker 0x([0-9a-f]{2})")
MAX_STRAY_BYTES = 64  # between the last pixel and the end marker
START_OF_SCAN = b"\xff\xda"  # also in an embedded thumbnail, and by chance in metadata, but in no scan

# What Pillow raises on damaged files, found by tests with random damage: its plugins have no common error.
PILLOW_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, MemoryError, RuntimeError,
    struct.error, zlib.error,
)  # fmt: skip


class BadImage(ValueError):
    """An image that cannot be decoded, or is too large to be."""


def check_size(width: int, height: int) -> None:
    """Check that an image is not too large.

    Raises:
        BadImage: it is; names its size and the limit.
    """
    if width < 1 or height < 1 or max(width, height) > MAX_SIDE_PX or width * height > MAX_PIXELS:
        millions = width * height / 1e6
        raise BadImage(f"{width}x{height} is {millions:.0f} megapixels, the limit is {MAX_PIXELS // 1_000_000}")


def jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """Return width and height in the header of a JPEG.

    Raises:
        BadImage: it has no valid header, or is too large.
    """
    try:
        height, width, _, _ = _header(jpeg)
    except ValueError as error:
        raise BadImage(f"not a JPEG: {error}") from error
    check_size(width, height)
    return width, height


def decode_jpeg(jpeg: bytes, *, at_least_px: int | None = None) -> Image:
    """Return the image, BGR uint8 H x W x 3, also of a grey or CMYK JPEG.

    Args:
        at_least_px: decode at a half, quarter or eighth of the size if the longer side keeps this many pixels; None
            decodes at full size.

    Raises:
        BadImage: it is damaged, truncated or too large, or would take too long.
    """
    width, height = jpeg_size(jpeg)
    if (scans := jpeg.count(START_OF_SCAN)) > MAX_SCANS:
        raise BadImage(f"a JPEG of {scans} scans, the limit is {MAX_SCANS}")
    factor = max(1, min(8, max(width, height) // at_least_px)) if at_least_px else 1
    least = (width // factor, height // factor) if factor > 1 else (0, 0)
    try:
        return _decoded(jpeg, least)
    except ValueError as error:
        if END_IS_MISSING in str(error) or STRAY_BYTES.search(str(error)):
            return _decode_untidy(jpeg, least)
        if "colorspace" not in str(error).lower():
            raise BadImage(f"a damaged JPEG: {error}") from error
    return _decode_cmyk(jpeg)


def encode_jpeg(image: Image, quality: int) -> bytes:
    """Return a BGR uint8 H x W x 3 image as JPEG. quality: 1 to 100."""
    return cast(
        bytes,
        simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality, colorspace="BGR", colorsubsampling="420"),
    )


def unpack_crops(packed: bytes, count: int, crop_px: int) -> Image:
    """Return crops as uint8 count x crop_px x crop_px x 3, RGB.

    Raises:
        BadImage: the number of bytes does not match.
    """
    if len(packed) != count * crop_px * crop_px * 3:
        raise BadImage(f"{len(packed)} bytes are not {count} crops of {crop_px} px")
    return np.frombuffer(packed, np.uint8).reshape(count, crop_px, crop_px, 3)


def _header(jpeg: bytes) -> tuple[int, int, str, str]:
    try:
        return cast(tuple[int, int, str, str], simplejpeg.decode_jpeg_header(jpeg))
    except ValueError as error:
        if not STRAY_BYTES.search(str(error)):
            raise
    return cast(tuple[int, int, str, str], simplejpeg.decode_jpeg_header(jpeg, strict=False))


def _decoded(jpeg: bytes, least: tuple[int, int], *, strict: bool = True) -> Image:
    """Decode a JPEG. least: width and height that must be kept, 0 for the full size. Errors are ValueErrors."""
    width, height = least
    found = simplejpeg.decode_jpeg(
        jpeg, colorspace="BGR", fastdct=False, min_width=width, min_height=height, strict=strict
    )
    return cast(Image, found)


def _decode_untidy(jpeg: bytes, least: tuple[int, int]) -> Image:
    """Decode a JPEG with stray bytes or without its end marker, unless pixels are missing."""
    tidied = _without_stray_bytes(jpeg) + (b"" if jpeg.endswith(END) else END)
    try:
        return _decoded(tidied, least)
    except ValueError as error:
        stray = STRAY_BYTES.search(str(error))
        if not stray or stray[2] != "d9" or int(stray[1]) > MAX_STRAY_BYTES:  # more of them are pixels
            raise BadImage(f"a damaged JPEG: {error}") from error
    try:
        return _decoded(tidied, least, strict=False)
    except ValueError as error:
        raise BadImage(f"a damaged JPEG: {error}") from error


def _without_stray_bytes(jpeg: bytes) -> bytes:
    """Return a JPEG without what is between its segments, up to the first scan."""
    kept, at = [jpeg[:2]], 2
    while True:
        at = jpeg.find(b"\xff", at)
        if at < 0 or at + 4 > len(jpeg):
            return b"".join(kept)
        if jpeg[at + 1] in (0x00, 0xFF):  # no marker
            at += 1
            continue
        if jpeg.startswith(START_OF_SCAN, at):
            return b"".join((*kept, jpeg[at:]))
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        kept.append(jpeg[at:end])
        at = end


def _decode_cmyk(jpeg: bytes) -> Image:
    import cv2  # here, because it takes 17 MB, and a viewer or camera hardly ever sees such a picture

    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise BadImage("a damaged JPEG: no decoder can read it")
    return cast(Image, image)
