"""Read a video through FFmpeg: a file, or the URL of a recording in; BGR frames with their times out.

Every frame that can be decoded is yielded, at times that begin at 0 and only grow. A damaged packet is skipped, with
one log line for the first. A video that cannot be opened, holds no pictures, or breaks raises SourceFailed; so does a
URL that is silent for 4 s.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import av
import av.error

from pipeline.vision import jpeg
from pipeline.vision.arrays import Image
from producer.sources import timeouts
from producer.sources.frame_converter import FrameConverter
from producer.sources.network_errors import is_timeout, open_reason, reason
from producer.sources.packet_reader import PacketReader
from producer.sources.source import SourceFailed, SourceFrame
from producer.sources.source_spec import SourceSpec
from producer.sources.streams import film_of, interval_s, start_s
from producer.sources.timestamps import SteadyTimes

log = logging.getLogger(__name__)

DEFAULT_INTERVAL_S = 0.04


class VideoSource:
    """An open video."""

    is_live = False

    def __init__(self, spec: SourceSpec) -> None:
        self.kind = spec.kind
        self._name = spec.path.name if spec.path else spec.name
        self._location = str(spec.path) if spec.path else spec.name
        self._container = _open(spec, self._location)
        self._stream = film_of(self._container)
        if self._stream is None:
            self._container.close()
            raise SourceFailed(f"{self._location} holds no video that can be decoded")
        self._reader = PacketReader(self._container, self._stream, name=self._location, content="video")
        self._converter = FrameConverter(self._stream)
        self._times = SteadyTimes(zero_s=start_s(self._stream), interval_s=interval_s(self._stream, DEFAULT_INTERVAL_S))
        self.total = _estimate(self._stream)

    def __iter__(self) -> Iterator[SourceFrame]:
        index = 0
        try:
            for image, at_s in self._images():
                height, width = image.shape[:2]
                yield SourceFrame(name=self._name, index=index, width=width, height=height, image=image, at_s=at_s)
                index += 1
        except (av.error.FFmpegError, jpeg.BadImage, MemoryError) as error:
            why = f"no data came for {timeouts.READ_TIMEOUT_S:g} s" if is_timeout(error) else reason(error)
            raise SourceFailed(f"{self._location} broke off: {why}") from error
        if damaged := self._reader.damaged:
            log.warning("%s: %d damaged packets were skipped, %d frames decoded", self._location, damaged, index)
        if index == 0:
            raise SourceFailed(f"{self._location} holds no frame that can be decoded")

    def close(self) -> None:
        """Close the file or connection."""
        self._container.close()

    def _images(self) -> Iterator[tuple[Image, float | None]]:
        for packet in self._reader.packets():
            for decoded in self._reader.decode(packet):
                yield from self._converted(decoded)
        yield from self._converter.flush()

    def _converted(self, decoded: Any) -> Iterator[tuple[Image, float | None]]:
        try:
            yield from self._converter.convert(decoded, self._times.at_s(decoded.time))
        except av.error.FFmpegError as error:  # it says, for example, that its colours are of a kind that there is not
            self._reader.note_damage(error)


def _open(spec: SourceSpec, location: str) -> Any:
    url = f"file:{spec.path}" if spec.path else spec.text  # a file's name may look like a URL
    timeout = None if spec.path else (timeouts.OPEN_TIMEOUT_S, timeouts.READ_TIMEOUT_S)
    began = time.monotonic()
    try:
        return av.open(url, timeout=timeout, metadata_errors="replace")
    except av.error.FFmpegError as error:
        took_s = time.monotonic() - began
        why = f"{reason(error)}; is it a video?" if spec.path else open_reason(error, urlsplit(url), took_s=took_s)
        raise SourceFailed(f"{location} cannot be opened: {why}") from error


def _estimate(stream: Any) -> int | None:
    """Return about how many frames a file holds."""
    if stream.frames:
        return int(stream.frames)
    duration_s = stream.duration * stream.time_base if stream.duration else (stream.container.duration or 0) / 1_000_000
    return round(duration_s * stream.average_rate) or None if stream.average_rate else None
