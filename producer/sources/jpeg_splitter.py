"""Cut JPEGs out of a stream of bytes by their own markers. Pure: bytes in, whole pictures out.

What is between the pictures is left out unread, because many cameras write boundaries and lengths that are wrong: a
boundary that differs from the announced one, that comes after the picture, or that is missing.
"""

from __future__ import annotations

import re

MAX_PICTURE_BYTES = 32_000_000
MAX_HEADER_BYTES = 1024  # of a part of a multipart stream
START = b"\xff\xd8\xff"
END = b"\xff\xd9"
_SOI, _EOI = 0xD8, 0xD9
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # but those inside scans: 0xff itself, restarts, fill bytes


class JpegTooLarge(Exception):
    """A picture has no end within MAX_PICTURE_BYTES."""


class JpegSplitter:
    """Collect bytes and return the pictures in them."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0  # where the next marker is looked for; 0: the picture's start has not been found

    def add(self, chunk: bytes) -> list[bytes]:
        """Add bytes, and return the pictures that end in them.

        Raises:
            JpegTooLarge: the picture that has begun is longer than any that can be decoded.
        """
        self._buffer += chunk
        pictures = []
        while self._find_start() and (end := self._find_end()) is not None:
            pictures.append(self._cut(end))
        if len(self._buffer) > MAX_PICTURE_BYTES:
            raise JpegTooLarge
        return pictures

    def rest(self) -> bytes | None:
        """Return the picture that has begun, ended with what has come of it; None when none has."""
        return self._cut(len(self._buffer)) if self._at else None

    def _cut(self, end: int) -> bytes:
        picture = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._at = 0
        if picture.endswith(END):
            return picture
        boundary = picture.rfind(b"\r\n--", max(0, end - MAX_HEADER_BYTES))
        return (picture if boundary < 0 else picture[:boundary]) + END

    def _find_start(self) -> bool:
        if self._at == 0:
            start = self._buffer.find(START)
            del self._buffer[: start if start >= 0 else max(0, len(self._buffer) - len(START) + 1)]
            self._at = 2 if start >= 0 else 0
        return self._at > 0

    def _find_end(self) -> int | None:
        """Return where the picture ends; None when more bytes are needed."""
        while (found := _MARKER.search(self._buffer, self._at)) is not None:
            marker, code = found.start(), self._buffer[found.start() + 1]
            self._at = marker
            if code == _EOI:
                return marker + 2
            if code == _SOI:  # of the next picture: this one has no end
                return marker
            if len(self._buffer) < marker + 4:
                return None
            self._at += 2 + int.from_bytes(self._buffer[marker + 2 : marker + 4], "big")
        self._at = max(self._at, len(self._buffer) - 1)
        return None
