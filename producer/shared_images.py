"""Share images with the workers of this machine: an image in, a reference for its record out.

The ring is made with the first image. Where there can be none, nothing is shared, which the log says once; an image
that does not fit is not shared either. It is then published as JPEG.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from pipeline.bus.frame_ring import FrameRing
from pipeline.bus.messages import SharedPixels
from pipeline.vision.arrays import Image

log = logging.getLogger(__name__)

MIN_SLOTS = 4


class SharedImages:
    """The images of one producer, in one thread.

    Args:
        slots: at most so many images are shared at a time.
        max_bytes: of all images, so that large ones get fewer slots, but at least MIN_SLOTS.
        enabled: False shares nothing.
    """

    def __init__(self, *, slots: int, max_bytes: int, enabled: bool = True) -> None:
        self._slots = slots
        self._max_bytes = max_bytes
        self._enabled = enabled
        self._ring: FrameRing | None = None
        self._largest = 0

    def put(self, image: Image, *, hold: bool = False) -> SharedPixels | None:
        """Share an image in the place of the oldest one; None when it is not shared.

        Args:
            image: uint8 H x W x 3.
            hold: it stays until release() is called for it. Images that are not held give way to a larger ring.
        """
        if not self._enabled:
            return None
        if self._ring is None or (image.nbytes > self._largest and not hold):
            self._make_ring(image.nbytes)
        return self._ring.put(image, hold=hold) if self._ring is not None else None

    def image(self, shared: SharedPixels, height: int, width: int) -> Image:
        """Return an image that is held."""
        if self._ring is None:
            raise ValueError("nothing is shared")
        return self._ring.image(shared, height, width)

    def release(self, shared: Iterable[SharedPixels]) -> None:
        """Let held images give way to others."""
        if self._ring is not None:
            self._ring.release(shared)

    def erase_older_than(self, seconds: float) -> None:
        """Erase images that are not held and were shared longer ago than this."""
        if self._ring is not None:
            self._ring.erase_older_than(seconds)

    def close(self) -> None:
        """Erase all images."""
        if self._ring is not None:
            self._ring.close()
            self._ring = None

    def _make_ring(self, image_bytes: int) -> None:
        self.close()
        self._largest = image_bytes
        try:
            self._ring = FrameRing(max(MIN_SLOTS, min(self._slots, self._max_bytes // image_bytes)), image_bytes)
        except OSError as error:
            self._enabled = False
            log.info("frames go through Redis as JPEG, because no memory can be shared: %s", error)
