"""Read video through FFmpeg: a file, an RTSP camera, an HTTP stream in; BGR frames with exact timestamps out.

Every frame that a file decodes is given. A damaged packet is skipped, with one log line for the first. What cannot be
opened, holds no video, or breaks raises SourceFailed; a network that falls silent does so within 5 seconds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from pipeline.bus.connection import hide_password
from pipeline.vision import jpeg
from pipeline.vision.jpeg import Image
from producer.sources.packet_skipper import CatchUp
from producer.sources.source import Kind, SourceFailed, SourceFrame

log = logging.getLogger(__name__)

OPEN_S = 4.0  # a connection that is not up by then is not coming
READ_S = 4.0  # a camera that sends nothing for so long is gone
MAX_DAMAGED = 100  # damaged packets in a row after which there is nothing more to hope for

_LIVE_OPTIONS = {"fflags": "nobuffer+discardcorrupt", "max_delay": "500000"}  # microseconds to wait for lost packets
_OPTIONS: dict[Kind, dict[str, str]] = {
    "video": {},
    "rtsp": {"rtsp_transport": "tcp", **_LIVE_OPTIONS},  # UDP loses packets, which shows as smeared pictures
    "http": _LIVE_OPTIONS,
}
_ADVICE: dict[Kind, str] = {
    "video": "is it a video?",
    "rtsp": "check the address, user and password, and that the camera is on",
    "http": "check the address, and that it serves video",
}


class VideoSource:
    """An open video. An HTTP stream that says how long it is counts as a file: it can be read again."""

    def __init__(self, text: str, kind: Kind) -> None:
        """Open it.

        Raises:
            SourceFailed: it is not there, does not answer, or is not video.
        """
        self.kind = kind
        self.path = Path(text) if kind == "video" else None
        self._name = Path(text).name if kind == "video" else hide_password(text)
        self._place = text if kind == "video" else self._name
        self._damaged = 0
        self._skipped = 0
        self._catch_up = CatchUp() if kind == "rtsp" else None  # over HTTP, FFmpeg makes up the times of a live stream
        self._container = _open(text, kind, self._place)
        streams = self._container.streams.video
        if not streams or streams[0].codec_context is None:
            self._container.close()
            raise SourceFailed(f"{self._place} holds no video that can be decoded")
        self._stream = streams[0]
        self.is_live = kind != "video" and not self._container.duration
        self.total = None if self.is_live else _estimate(self._stream)

    def __iter__(self) -> Iterator[SourceFrame]:
        index = 0
        try:
            for packet in self._packets():
                for decoded in self._decode(packet):
                    yield self._picture(index, decoded)
                    index += 1
        except (av.error.FFmpegError, jpeg.BadImage) as error:
            reason = f"nothing came for {READ_S:g} s" if _timed_out(error) else _reason(error)
            raise SourceFailed(f"{self._place} broke off: {reason}") from error
        if self._damaged:
            log.warning("%s: %d damaged packets were left out, %d frames decoded", self._place, self._damaged, index)
        if self.is_live:
            raise SourceFailed(f"{self._place} ended the stream")
        if index == 0:
            raise SourceFailed(f"{self._place} holds no frame that can be decoded")

    def close(self) -> None:
        """Let go of the file or connection."""
        self._container.close()

    def _packets(self) -> Iterator[Any]:
        """Give the packets, going on behind places where a file is damaged, and at last the one that flushes."""
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
            if self._in_time(packet, asked):
                yield packet

    def _in_time(self, packet: Any, asked: float) -> bool:
        """Return whether to decode a packet, that was asked for at `asked`, or to let it go and catch up."""
        if self._catch_up is None or packet.dts is None:
            return True
        came = time.monotonic()
        at_s = float(packet.dts * packet.time_base)
        wanted = self._catch_up.wants(at_s=at_s, is_key=packet.is_keyframe, came=came, waited_s=came - asked)
        if not wanted and not self._skipped:
            log.warning("%s comes faster than it is decoded here; pictures are left out to stay in time", self._place)
        self._skipped += not wanted
        return wanted

    def _decode(self, packet: Any) -> list[Any]:
        try:
            return list(packet.decode())
        except av.error.InvalidDataError as error:
            self._note_damage(error)
            return []

    def _note_damage(self, error: Exception) -> None:
        if self._damaged == 0:
            log.warning("%s: a damaged packet is left out: %s", self._place, _reason(error))
        self._damaged += 1

    def _picture(self, index: int, decoded: Any) -> SourceFrame:
        jpeg.check_size(decoded.width, decoded.height)
        frame = _upright(decoded.to_ndarray(format="bgr24"), decoded.rotation)
        height, width = frame.shape[:2]
        return SourceFrame(name=self._name, index=index, width=width, height=height, frame=frame, at_s=decoded.time)


def _open(text: str, kind: Kind, place: str) -> Any:
    file = f"file:{text}" if kind == "video" else text  # a file's name may look like a URL
    began = time.monotonic()
    try:
        return av.open(file, options=dict(_OPTIONS[kind]), timeout=None if kind == "video" else (OPEN_S, READ_S))
    except av.error.FFmpegError as error:
        # FFmpeg has no one error for it: protocols turn the interrupted wait into what they make of missing data
        late = kind != "video" and time.monotonic() - began >= OPEN_S
        reason = f"no answer within {OPEN_S:g} s" if late else _reason(error)
        raise SourceFailed(f"{place} cannot be opened: {reason}; {_ADVICE[kind]}") from error


def _estimate(stream: Any) -> int | None:
    """Return about how many frames a file holds."""
    if stream.frames:
        return int(stream.frames)
    duration_s = stream.duration * stream.time_base if stream.duration else (stream.container.duration or 0) / 1_000_000
    return round(duration_s * stream.average_rate) or None if stream.average_rate else None


def _upright(frame: Image, rotation: int) -> Image:
    """Rotate a frame by a multiple of 90 degrees, counter-clockwise, as the file says that it must be shown."""
    turns = round(rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(frame, turns)) if turns else frame


def _timed_out(error: Exception) -> bool:
    return isinstance(error, (av.error.ExitError, av.error.TimeoutError))


def _reason(error: Exception) -> str:
    """Return FFmpeg's reason without its number and without the URL, which may hold a password."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())
