"""Read a webcam through Video4Linux: a device's path in, frames out.

A missing device, one that may not be opened, and one that stops delivering raise SourceFailed. A read may block without
a limit; `producer.feed` notices that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import cv2

from pipeline.vision.arrays import Image
from producer.sources.source import Kind, SourceFailed, SourceFrame

# The format asked for; the driver uses the nearest it has. MJPEG, because raw frames of this size exceed USB 2.
WIDTH, HEIGHT = 1280, 720
FOURCC = "MJPG"


class WebcamSource:
    """An open webcam. It has no timestamps and no end."""

    kind: Kind = "webcam"
    is_live = True
    total: int | None = None

    def __init__(self, path: Path) -> None:
        self._device = str(path)
        _check_device(path)
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # each retry would write to stderr
        self._capture = cv2.VideoCapture(self._device, cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise SourceFailed(f"{self._device} is not a camera that can be read, or another program uses it")
        self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*FOURCC))
        self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, WIDTH)
        self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, HEIGHT)
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the driver's queue is delay

    def __iter__(self) -> Iterator[SourceFrame]:
        index = 0
        while True:
            delivered, image = self._capture.read()
            if not delivered:
                raise SourceFailed(f"{self._device} delivers no pictures any more; is it still plugged in?")
            height, width = image.shape[:2]
            image = cast(Image, image)
            yield SourceFrame(name=self._device, index=index, width=width, height=height, image=image)
            index += 1

    def close(self) -> None:
        """Release the device."""
        self._capture.release()


def _check_device(path: Path) -> None:
    if not path.exists():
        present = ", ".join(sorted(str(found) for found in Path("/dev").glob("video*"))) or "none"
        raise SourceFailed(f"there is no camera {path} (present: {present}); plug it in, or name another")
    if not path.is_char_device():
        raise SourceFailed(f"{path} is not a camera")
    if not os.access(path, os.R_OK | os.W_OK):
        raise SourceFailed(f"{path} may not be opened by this user; add it to the group 'video'")
