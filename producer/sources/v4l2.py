"""Ask a Video4Linux device what it is and what it offers: a path in, the modes of a webcam out.

Everything that keeps a webcam from being read raises SourceFailed, with what to do. The requests and the layout of
their structures are those of Linux' `videodev2.h` on 64-bit machines.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from producer.sources.source import SourceFailed
from producer.sources.webcam_mode import HEIGHT, WIDTH, WebcamMode

CAPTURE = 1  # V4L2_BUF_TYPE_VIDEO_CAPTURE, and the capability of the same number
HAS_DEVICE_CAPABILITIES = 0x8000_0000
DISCRETE = 1  # sizes or intervals one by one; else a range
MAX_ENTRIES = 256  # of each list, should a driver never end one

_CAPABILITY = struct.Struct("16s 32s 32s I I I 12x")
_FORMAT_DESCRIPTION = struct.Struct("I I I 32s 4s I 12x")
_FRAME_SIZE = struct.Struct("I 4s I 6I 8x")
_FRAME_INTERVAL = struct.Struct("I 4s I I I 6I 8x")
_FORMAT = struct.Struct("I 4x 200x")


def webcam_modes(path: Path) -> list[WebcamMode]:
    """Return the modes of a webcam that nobody else uses; none if its driver lists none.

    Raises:
        SourceFailed: the device is missing, not a webcam, in use, or may not be opened.
    """
    try:
        device = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        raise SourceFailed(_reason(path, error)) from error
    try:
        _check_capture(device, path)
        _check_free(device, path)
        return list(_modes(device))
    finally:
        os.close(device)


def _check_capture(device: int, path: Path) -> None:
    buffer = bytearray(_CAPABILITY.size)
    try:
        fcntl.ioctl(device, _request(2, 0, buffer), buffer)
    except OSError as error:
        raise SourceFailed(_reason(path, error)) from error
    *_, whole, own = _CAPABILITY.unpack(buffer)
    if not (own if whole & HAS_DEVICE_CAPABILITIES else whole) & CAPTURE:
        raise SourceFailed(
            f"{path} delivers no pictures: most webcams have a second device for other data; name their first one"
            f"{_present()}"
        )


def _check_free(device: int, path: Path) -> None:
    """Set the format that is set already: only the program that may read the device can."""
    buffer = bytearray(_FORMAT.pack(CAPTURE))
    try:
        fcntl.ioctl(device, _request(3, 4, buffer), buffer)
        fcntl.ioctl(device, _request(3, 5, buffer), buffer)
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENODEV):
            raise SourceFailed(_reason(path, error)) from error


def _modes(device: int) -> Iterator[WebcamMode]:
    for description in _entries(device, 2, _FORMAT_DESCRIPTION, CAPTURE, 0, b"", b"\0" * 4, 0):
        pixel_format = description[4]
        for _, _, kind, *size in _entries(device, 74, _FRAME_SIZE, pixel_format, *[0] * 7):
            width, height = size[:2] if kind == DISCRETE else _within(size)
            for fps in list(_rates(device, pixel_format, width, height)) or [0.0]:
                yield WebcamMode(pixel_format=pixel_format.decode("latin-1"), width=width, height=height, fps=fps)


def _rates(device: int, pixel_format: bytes, width: int, height: int) -> Iterator[float]:
    """Yield the rates of a format and size, of a range the highest one, in pictures a second."""
    for entry in _entries(device, 75, _FRAME_INTERVAL, pixel_format, width, height, *[0] * 7):
        numerator, denominator = entry[5:7]
        if numerator:
            yield denominator / numerator


def _entries(device: int, number: int, layout: struct.Struct, *fields: object) -> Iterator[tuple[Any, ...]]:
    """Yield the entries of one of the device's lists, in its order."""
    with suppress(OSError):  # EINVAL behind the last one, ENOTTY from a driver without this list
        for index in range(MAX_ENTRIES):
            buffer = bytearray(layout.pack(index, *fields))
            fcntl.ioctl(device, _request(3, number, buffer), buffer)
            yield layout.unpack(buffer)


def _within(size: list[int]) -> tuple[int, int]:
    """Return the size of a range that is nearest to the one wanted. size: least, most and step of width and height."""
    min_width, max_width, step_x, min_height, max_height, step_y = size
    width = _nearest(WIDTH, min_width, max_width, step_x)
    return width, _nearest(HEIGHT, min_height, max_height, step_y)


def _nearest(wanted: int, least: int, most: int, step: int) -> int:
    return least + (max(least, min(wanted, most)) - least) // max(step, 1) * max(step, 1)


def _request(direction: int, number: int, buffer: bytearray) -> int:
    """Return the number of a V4L2 request. direction: 2 reads, 3 writes and reads."""
    return direction << 30 | len(buffer) << 16 | ord("V") << 8 | number


def _reason(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return f"there is no camera {path}{_present()}; plug it in, or name another"
    if error.errno == errno.EBUSY:
        return f"{path} is used by another program; close it"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{path} may not be opened by this user; add it to the group 'video'"
    if error.errno in (errno.ENOTTY, errno.EINVAL):
        return f"{path} is not a camera{_present()}"
    return f"{path} cannot be opened: {error.strerror}"


def _present() -> str:
    return f" (present: {', '.join(sorted(map(str, Path('/dev').glob('video*')))) or 'none'})"
