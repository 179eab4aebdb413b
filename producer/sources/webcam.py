"""Read a webcam through Video4Linux: a device's path in, frames out.

It is asked for the best of the modes that it offers. A device that cannot be read, or that stops delivering, raises
SourceFailed. A read may block without a limit; `producer.feed` notices that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import cv2

from pipeline.vision.arrays import Image
from producer.sources.source import Kind, SourceFailed, SourceFrame
from producer.sources.v4l2 import webcam_modes
from producer.sources.webcam_mode import COMPRESSED, HEIGHT, WIDTH, WebcamMode, choose_mode

log = logging.getLogger(__name__)

# Asked for when a driver lists no modes; it uses the nearest it has.
USUAL = WebcamMode(pixel_format=COMPRESSED, width=WIDTH, height=HEIGHT, fps=0)


class WebcamSource:
    """An open webcam. It has no timestamps and no end.

    Args:
        path: of the device.
        fps: how many pictures a second are used.
    """

    kind: Kind = "webcam"
    is_live = True
    total: int | None = None

    def __init__(self, path: Path, *, fps: float) -> None:
        self._device = str(path)
        mode = _mode(path, fps)
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # each retry would write to stderr
        self._capture = cv2.VideoCapture(self._device, cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise SourceFailed(f"{self._device} cannot be read by OpenCV; is it a camera?")
        self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*mode.pixel_format))
        self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, mode.width)
        self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, mode.height)
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the driver's queue is delay
        if mode.fps:
            self._capture.set(cv2.CAP_PROP_FPS, mode.fps)  # last: drivers forget it when anything else is set

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


def _mode(path: Path, fps: float) -> WebcamMode:
    """Return the mode to ask a webcam for.

    Raises:
        SourceFailed: it cannot be read.
    """
    modes = webcam_modes(path)
    mode = choose_mode(modes, fps=fps) if modes else USUAL
    if mode is None:
        formats = ", ".join(sorted({one.pixel_format for one in modes}))
        raise SourceFailed(f"{path} offers only formats that cannot be read: {formats}; use another camera")
    log.info("%s: %s, %dx%d, %g pictures/s", path, mode.pixel_format, mode.width, mode.height, mode.fps)
    return mode
