"""Get the pixels of a frame: its record in; the image to search, and the full one to cut crops from, out.

They are where the record says, in the memory of this machine, and used there, or in Redis as JPEG. A record that names
memory which this process cannot map comes from another machine, container or user: its producers are asked for JPEGs,
and frames that have none yet are gone.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import redis

from pipeline.bus.frame_ring import MappedFrame, RingReader
from pipeline.bus.messages import Frame
from pipeline.bus.pixel_reader import PixelsGone
from pipeline.bus.reader import Entry, Reader
from pipeline.bus.shards import Shard
from pipeline.vision.arrays import Image
from pipeline.vision.jpeg import BadImage, decode_jpeg, jpeg_size

REDUCE_FROM = 4  # an image this many times larger than the detector's input is decoded at a reduced size
ASK_INTERVAL_S = 1.0  # between two requests
REQUEST_MS = 5_000  # how long a request holds


class RemoteRequests:
    """Ask producers or detectors of a shard to send pixels through Redis. key: where they look, without the tag."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._asked_at: dict[int, float] = {}

    def ask(self, shard: Shard) -> None:
        """Ask, or do nothing if that was done a moment ago."""
        now = time.monotonic()
        if now - self._asked_at.get(shard.number, float("-inf")) >= ASK_INTERVAL_S:
            with contextlib.suppress(redis.OutOfMemoryError):  # asked again in a second, and settling needs no memory
                shard.client.set(shard.key(self._key), 1, px=REQUEST_MS)
            self._asked_at[shard.number] = now


@dataclass(frozen=True, slots=True)
class FramePixels:
    """The pixels of one frame.

    image: to search, BGR. scale: the factor from its coordinates to those of the frame.
    """

    image: Image
    scale: float
    _jpeg: bytes = b""
    _mapped: MappedFrame | None = None

    @property
    def are_shared(self) -> bool:
        """Whether they are in memory that others may map, too."""
        return self._mapped is not None

    def full(self) -> Image:
        """Return the image at its full size; what is read of it counts only after check()."""
        return self.image if self.scale == 1 else decode_jpeg(self._jpeg)

    def check(self) -> None:
        """Check that all that was read until now was of this frame.

        Raises:
            PixelsGone: its producer has overwritten it.
        """
        if self._mapped is not None and not self._mapped.is_intact():
            raise PixelsGone("overwritten by a newer frame")


class PixelSource:
    """Get the pixels of frames, in one thread."""

    def __init__(self) -> None:
        self._rings = RingReader()
        self._requests = RemoteRequests("remote")

    def pixels(self, reader: Reader[Frame], entry: Entry[Frame], input_px: int) -> FramePixels:
        """Return the pixels of an entry's frame. input_px: the long side that the detector looks at.

        Raises:
            BadImage: its JPEG cannot be decoded, or differs in size from its record.
            PixelsGone: they have expired, or nobody has sent them to this machine.
        """
        frame = entry.record
        if frame.shared is not None:
            mapped = self._rings.open(frame.shared, frame.height, frame.width)
            if mapped is not None:
                pixels = FramePixels(mapped.image, 1, _mapped=mapped)
                pixels.check()
                return pixels
            self._requests.ask(entry.at.shard)
        jpeg = reader.fetch(entry, frame.pixels_key)
        size = jpeg_size(jpeg)
        if size != (frame.width, frame.height):
            raise BadImage(f"the JPEG is {size[0]}x{size[1]}, its record says {frame.width}x{frame.height}")
        if max(size) < REDUCE_FROM * input_px:
            return FramePixels(decode_jpeg(jpeg), 1)
        image = decode_jpeg(jpeg, at_least_px=input_px)
        return FramePixels(image, max(size) / max(image.shape[:2]), _jpeg=jpeg)

    def let_go(self) -> None:
        """Let go of the memory of producers that send nothing any more. Call it in every iteration of the loop."""
        self._rings.let_go()
