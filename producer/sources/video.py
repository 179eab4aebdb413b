"""Read video through FFmpeg: a file, an RTSP camera, an HTTP stream in; BGR frames with their times out.

Every frame of a file that can be decoded is yielded, and the times of a file begin at 0 and only grow. A damaged packet
is skipped, with one log line for the first. A source that cannot be opened, holds no video, or breaks raises
SourceFailed; so does a stream that is silent for 4 s.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import av
import av.error

from pipeline.vision import jpeg
from pipeline.vision.arrays import Image
from producer.sources.frame_converter import FrameConverter
from producer.sources.packet_skipper import PacketSkipper
from producer.sources.source import Kind, SourceFailed, SourceFrame
from producer.sources.source_spec import SourceSpec
from producer.sources.streams import film_of, interval_s, start_s
from producer.sources.timestamps import SteadyTimes

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 4.0
READ_TIMEOUT_S = 4.0
MAX_DAMAGED = 100  # damaged packets in a row, after which reading fails
DEFAULT_INTERVAL_S = 0.04

_LIVE_OPTIONS = {"fflags": "nobuffer+discardcorrupt", "max_delay": "500000"}  # microseconds to wait for lost packets
_OPTIONS: dict[Kind, dict[str, str]] = {
    "video": {},
    "rtsp": {"rtsp_transport": "tcp", **_LIVE_OPTIONS},  # UDP loses packets, which smears the picture
    "http": _LIVE_OPTIONS,
}
_ADVICE: dict[Kind, str] = {
    "video": "is it a video?",
    "rtsp": "check the address, user and password, and that the camera is on",
    "http": "check the address, and that it serves video",
}


class VideoSource:
    """An open video. An HTTP stream of known duration counts as a file: it can be read again."""

    def __init__(self, spec: SourceSpec) -> None:
        self.kind = spec.kind
        self._name = spec.path.name if spec.path else spec.name
        self._location = str(spec.path) if spec.path else spec.name
        self._damaged = 0
        self._skipped = 0
        # over HTTP, FFmpeg invents the timestamps of a live stream
        self._skipper = PacketSkipper() if spec.kind == "rtsp" else None
        self._container = _open(spec, self._location)
        self._stream = film_of(self._container)
        if self._stream is None:
            self._container.close()
            raise SourceFailed(f"{self._location} holds no video that can be decoded")
        self._converter = FrameConverter(self._stream)
        self.is_live = spec.kind != "video" and not self._container.duration
        self.total = None if self.is_live else _estimate(self._stream)
        interval = interval_s(self._stream, DEFAULT_INTERVAL_S)
        self._times = None if self.is_live else SteadyTimes(zero_s=start_s(self._stream), interval_s=interval)

    def __iter__(self) -> Iterator[SourceFrame]:
        index = 0
        try:
            for image, at_s in self._images():
                height, width = image.shape[:2]
                yield SourceFrame(name=self._name, index=index, width=width, height=height, image=image, at_s=at_s)
                index += 1
        except (av.error.FFmpegError, jpeg.BadImage, MemoryError) as error:
            reason = f"no data came for {READ_TIMEOUT_S:g} s" if _timed_out(error) else _reason(error)
            raise SourceFailed(f"{self._location} broke off: {reason}") from error
        if self._damaged:
            log.warning("%s: %d damaged packets were skipped, %d frames decoded", self._location, self._damaged, index)
        if self.is_live:
            raise SourceFailed(f"{self._location} ended the stream")
        if index == 0:
            raise SourceFailed(f"{self._location} holds no frame that can be decoded")

    def close(self) -> None:
        """Close the file or connection."""
        self._container.close()

    def _images(self) -> Iterator[tuple[Image, float | None]]:
        for packet in self._packets():
            for decoded in self._decode(packet):
                at_s = self._times.at_s(decoded.time) if self._times else decoded.time
                yield from self._converter.convert(decoded, at_s)
        yield from self._converter.flush()

    def _packets(self) -> Iterator[Any]:
        """Yield the packets, resuming after damaged parts of a file, and at last the empty packet that flushes."""
        in_a_row = 0
        packets = self._container.demux(self._stream)
        while True:
            asked = time.monotonic()
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.InvalidDataError as error:
                self._note_damage(error)
                in_a_row += 1
                if in_a_row >= MAX_DAMAGED:
                    raise
                packets = self._container.demux(self._stream)
                continue
            in_a_row = 0
            if self._should_decode(packet, asked):
                yield packet

    def _should_decode(self, packet: Any, asked: float) -> bool:
        """Return whether to decode a packet, which was asked for at `asked`, or to skip it to catch up."""
        if self._skipper is None or packet.dts is None:
            return True
        came = time.monotonic()
        at_s = float(packet.dts * packet.time_base)
        decode = self._skipper.should_decode(at_s=at_s, is_key=packet.is_keyframe, came=came, waited_s=came - asked)
        if not decode and not self._skipped:
            log.warning("%s is faster than decoding; skipping frames", self._location)
        self._skipped += not decode
        return decode

    def _decode(self, packet: Any) -> list[Any]:
        try:
            return list(packet.decode())
        except av.error.InvalidDataError as error:
            self._note_damage(error)
            return []

    def _note_damage(self, error: Exception) -> None:
        if self._damaged == 0:
            log.warning("%s: a damaged packet is skipped: %s", self._location, _reason(error))
        self._damaged += 1


def _open(spec: SourceSpec, location: str) -> Any:
    url = f"file:{spec.path}" if spec.path else spec.text  # a file's name may look like a URL
    timeout = None if spec.path else (OPEN_TIMEOUT_S, READ_TIMEOUT_S)
    began = time.monotonic()
    try:
        return av.open(url, options=dict(_OPTIONS[spec.kind]), timeout=timeout, metadata_errors="replace")
    except av.error.FFmpegError as error:
        # FFmpeg has no error of its own for a time-out: each protocol reports missing data in its own way
        late = timeout is not None and time.monotonic() - began >= OPEN_TIMEOUT_S
        reason = f"no answer within {OPEN_TIMEOUT_S:g} s" if late else _reason(error)
        raise SourceFailed(f"{location} cannot be opened: {reason}; {_ADVICE[spec.kind]}") from error


def _estimate(stream: Any) -> int | None:
    """Return about how many frames a file holds."""
    if stream.frames:
        return int(stream.frames)
    duration_s = stream.duration * stream.time_base if stream.duration else (stream.container.duration or 0) / 1_000_000
    return round(duration_s * stream.average_rate) or None if stream.average_rate else None


def _timed_out(error: Exception) -> bool:
    return isinstance(error, (av.error.ExitError, av.error.TimeoutError))


def _reason(error: Exception) -> str:
    """Return FFmpeg's reason without its number, and without the URL, which may hold a password."""
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
