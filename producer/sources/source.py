"""What every source gives: pictures, one after the other, and one error for a source that cannot be opened or read.

A source is a plain iterator without threads. It may block while it waits for a camera; `producer.feed` puts a live one
in a thread of its own, the complete-mode sender reads one directly.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol

from msgspec import Struct

from pipeline.vision.jpeg import Image

Kind = Literal["webcam", "video", "folder", "rtsp", "http", "demo"]


class SourceFailed(Exception):
    """A source cannot be opened or read on; one line for people: what, which source, what to do."""


class SourceFrame(Struct, frozen=True, kw_only=True):
    """One picture of a source.

    Exactly one of frame, jpeg and error is set.

    name: the file's name in a folder, else the source's; for people.
    index: 0, 1, 2 .. within the source.
    frame: BGR uint8 H x W x 3.
    jpeg: the picture's own JPEG bytes, upright as they are; decoding them may still show that they are damaged.
    width, height: in pixels; 0 when there is an error.
    at_s: when the picture is due by the source's own timestamps, seconds; None in a source without them.
    error: why there is no picture here, one line; the source goes on with the next.
    """

    name: str
    index: int
    width: int = 0
    height: int = 0
    frame: Image | None = None
    jpeg: bytes | None = None
    at_s: float | None = None
    error: str | None = None


class Source(Protocol):
    """An open source.

    kind: what it is.
    is_live: pictures come when they come, and only the newest matters; False for what can be read again from its start.
    total: about how many pictures it holds; None when it does not end or does not say.
    path: the video file, whose sound a labelled copy takes along; None of any other kind.
    """

    kind: Kind
    is_live: bool
    total: int | None
    path: Path | None

    def __iter__(self) -> Iterator[SourceFrame]:
        """Give the pictures; raise SourceFailed when the source breaks."""
        ...

    def close(self) -> None:
        """Let go of the device, file or connection."""
        ...
