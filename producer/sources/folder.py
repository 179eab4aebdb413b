"""Read a folder of pictures, or one picture: files in, JPEG bytes or BGR images out, in natural order of their names.

A JPEG is passed on as its own bytes unless its EXIF orientation says that it must be rotated. A file that is damaged or
too large yields a SourceFrame with an error; only a folder without any picture raises SourceFailed.
"""

from __future__ import annotations

import io
import logging
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError

from pipeline.vision import jpeg
from pipeline.vision.arrays import Image
from pipeline.vision.jpeg import PILLOW_ERRORS
from producer.sources.source import PICTURE_SUFFIXES, Kind, SourceFailed, SourceFrame

log = logging.getLogger(__name__)

JPEG_START = b"\xff\xd8\xff"
ORIENTATION_TAG = 0x0112  # EXIF; 1 is upright, 2 to 8 are rotated or mirrored
MAX_FILE_BYTES = 512 * 1024 * 1024  # more than 50 megapixels need in any format

warnings.filterwarnings("ignore", module=r"PIL\.")  # about damage that it can read past
PillowImage.MAX_IMAGE_PIXELS = None  # Pillow's own limit only warns; jpeg.check_size raises


class FolderSource:
    """The pictures of a folder. It has no timestamps."""

    kind: Kind = "folder"
    is_live = False

    def __init__(self, path: Path) -> None:
        self._paths = [path] if path.is_file() else _pictures_in(path)
        self.total: int | None = len(self._paths)

    def __iter__(self) -> Iterator[SourceFrame]:
        for index, path in enumerate(self._paths):
            yield read_picture(path, index)

    def close(self) -> None:
        """Do nothing: nothing is open."""


def read_picture(path: Path, index: int) -> SourceFrame:
    """Return the picture in a file, or a SourceFrame that says why it cannot be read."""
    name = printable_name(path.name)
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


def natural_order(name: str) -> tuple[list[str | int], str]:
    """Return a sort key by which picture2 comes before picture10."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def _pictures_in(folder: Path) -> list[Path]:
    try:
        entries = list(folder.iterdir())
        pictures = [entry for entry in entries if _is_picture(entry)]
    except OSError as error:
        raise SourceFailed(f"the folder {folder} cannot be read: {error.strerror}") from error
    if not pictures:
        raise SourceFailed(f"the folder {folder} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})")
    if len(pictures) < len(entries):
        log.info("%s: %d pictures; %d other entries are left out", folder, len(pictures), len(entries) - len(pictures))
    return sorted(pictures, key=lambda path: natural_order(path.name))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".") and path.is_file()


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
            bgr = _bgr(ImageOps.exif_transpose(image))
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
    if image.mode.startswith("I"):  # 16 bit grey: keep the upper 8
        image = PillowImage.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        image = PillowImage.fromarray(np.nan_to_num(np.asarray(image)).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = PillowImage.alpha_composite(PillowImage.new("RGBA", image.size, "white"), image)
    return np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
