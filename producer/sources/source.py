"""What every source gives: frames, one after the other, and one error for a source that cannot be opened or read.

A source is a plain iterator without threads. It may block while it waits for a camera: `producer.feed` reads a live
source in a thread of its own, the complete-mode sender reads one directly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import Struct

if TYPE_CHECKING:  # it loads NumPy, and the command line parses sources without opening them
    from pipeline.vision.arrays import Image

Kind = Literal["webcam", "video", "folder", "rtsp", "http", "demo"]
RtspTransport = Literal["auto", "tcp", "udp"]
# Files of these names are pictures, and those that begin like one; any other file is a video.
PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".heif", ".avif"}
)


class SourceFailed(Exception):
    """A source cannot be opened or read on; the message is one line: what, which source, what to do."""


class SourceFrame(Struct, frozen=True, kw_only=True):
    """One frame of a source. Exactly one of image, jpeg and error is set.

    name: the file's name in a folder, else the source's; for people.
    index: 0, 1, 2 .. within the source.
    image: BGR uint8 H x W x 3.
    jpeg: the picture file's own bytes, upright; not decoded yet, so they may still be damaged.
    width, height: in pixels; 0 when there is an error.
    at_s: when the frame is due by the source's own timestamps, seconds; None in a source without timestamps.
    error: why this frame cannot be read, one line; the source continues with the next.
    skipped: pictures left out just before this one, because decoding is slower than the camera.
    """

    name: str
    index: int
    width: int = 0
    height: int = 0
    image: Image | None = None
    jpeg: bytes | None = None
    at_s: float | None = None
    error: str | None = None
    skipped: int = 0


class Source(Protocol):
    """An open source.

    kind: what it is.
    is_live: frames arrive in real time; only the newest is used. False for what can be read again from its start.
    total: about how many frames it holds; None when it does not end, or the number is unknown.
    """

    kind: Kind
    is_live: bool
    total: int | None

    def __iter__(self) -> Iterator[SourceFrame]:
        """Yield the frames; raise SourceFailed when the source breaks."""

    def close(self) -> None:
        """Release the device, file or connection."""
