"""Read one picture: a file in, JPEG bytes or a BGR image out (pipeline/vision/pictures.py).

A file that is damaged or too large yields a SourceFrame with an error.
"""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.vision.jpeg import BadImage
from pipeline.vision.pictures import one_line, read_picture_bytes
from producer.sources.source import SourceFrame

MAX_FILE_BYTES = 512 * 1024 * 1024  # more than 50 megapixels need in any format


def read_picture(path: Path, index: int, name: str | None = None) -> SourceFrame:
    """Return the picture in a file, or a SourceFrame that says why it cannot be read.

    name: for people; None for the file's own.
    """
    name = printable_name(path.name if name is None else name)
    try:
        found = read_picture_bytes(_content(path))
    except BadImage as error:
        return SourceFrame(name=name, index=index, error=one_line(error))
    except OSError as error:
        return SourceFrame(name=name, index=index, error=f"cannot be read: {error.strerror or one_line(error)}")
    return SourceFrame(
        name=name, index=index, width=found.width, height=found.height, image=found.image, jpeg=found.jpeg
    )


def printable_name(name: str) -> str:
    """Return a file's name as text that can be encoded; bytes that are no UTF-8 become U+FFFD."""
    return os.fsencode(name).decode(errors="replace")


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    if size == 0:
        raise BadImage("the file is empty")
    if size > MAX_FILE_BYTES:
        raise BadImage(f"the file has {size} bytes, at most {MAX_FILE_BYTES} are allowed")
    return path.read_bytes()
