"""Read a network camera through FFmpeg: RTSP, or a stream over HTTP in; the newest BGR frames out.

Pictures that cannot be decoded in time are left out and counted. A camera that cannot be opened, holds no video, ends
its stream, is silent, or sends nothing that can be decoded raises SourceFailed, which says why.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import av
import av.error
from av.codec.hwaccel import HWAccel

from pipeline.vision import jpeg
from pipeline.vision.arrays import Image
from producer.sources import timeouts
from producer.sources.frame_converter import FrameConverter
from producer.sources.hardware_decoding import hardware
from producer.sources.network_errors import is_timeout, open_reason, reason
from producer.sources.packet_reader import PacketReader
from producer.sources.packet_skipper import PacketSkipper
from producer.sources.source import Kind, RtspTransport, SourceFailed, SourceFrame
from producer.sources.timeouts import SilenceLimit

NO_VIDEO = "offers no video; choose another stream of the camera"
UNKNOWN_VIDEO = "sends a kind of video that FFmpeg cannot decode; set the camera to H.264"
KEY_FRAME_TIMEOUT_S = 20.0  # packets come, and none can be decoded: the next key frame, which others need, is far away

# All that FFmpeg reads to know a stream is kept, its first key frame too: with `nobuffer` it would be thrown away, and
# the first picture would come with the second key frame. So it reads little: one packet, without measuring the rate.
_LIVE_OPTIONS = {"fflags": "discardcorrupt", "fpsprobesize": "0", "max_delay": "500000"}  # µs to wait for lost packets
_RTSP_OPTIONS = {"allowed_media_types": "video", "probesize": "32", "analyzeduration": "1"}
_TRANSPORTS: dict[RtspTransport, dict[str, str]] = {
    "auto": {"rtsp_transport": "tcp+udp", "rtsp_flags": "prefer_tcp"},  # UDP loses packets, which smears the picture
    "tcp": {"rtsp_transport": "tcp"},
    "udp": {"rtsp_transport": "udp"},
}


class NetworkSource:
    """An open stream of a network camera.

    Args:
        url: with its password.
        name: the URL for people.
        transport: of RTSP; auto is TCP, or UDP where the camera rejects TCP.
        hwaccel: what decodes: none for the CPU, auto, or FFmpeg's name of a kind of device.
    """

    total: int | None = None

    def __init__(self, url: str, name: str, kind: Kind, *, transport: RtspTransport, hwaccel: str) -> None:
        self.kind = kind
        self._name = name
        self._skipper = PacketSkipper() if kind == "rtsp" else None  # over HTTP, FFmpeg invents the timestamps
        self._skipped = 0
        device = hardware(hwaccel)
        if kind == "rtsp":
            self._container = _open_rtsp(url, name, transport, device)
        else:
            self._container = _open(url, name, kind, _LIVE_OPTIONS, device)
        self.is_live = not self._container.duration  # a recording counts as a file: it can be read again
        streams = self._container.streams.video
        self._stream: Any = next((stream for stream in streams if stream.codec_context is not None), None)
        if self._stream is None:
            self._container.close()
            raise SourceFailed(f"{name} {UNKNOWN_VIDEO if streams else NO_VIDEO}")
        self._reader = PacketReader(self._container, self._stream, name=name, content="video")
        self._converter = FrameConverter(self._stream)

    def __iter__(self) -> Iterator[SourceFrame]:
        index, undecoded_since = 0, None
        try:
            for packet in self._packets():
                undecoded_since = undecoded_since or time.monotonic()
                for decoded in self._reader.decode(packet):
                    undecoded_since = None
                    for image, at_s in self._converter.convert(decoded, decoded.time):
                        yield self._source_frame(index, image, at_s)
                        index += 1
                if undecoded_since and time.monotonic() - undecoded_since > KEY_FRAME_TIMEOUT_S:
                    raise SourceFailed(f"{self._name} {self._why_undecoded()}")
        except (av.error.FFmpegError, jpeg.BadImage, MemoryError) as error:
            raise SourceFailed(f"{self._name} broke off: {reason(error)}") from error
        raise SourceFailed(f"{self._name} ended the stream")

    def close(self) -> None:
        """Close the connection."""
        self._container.close()

    def _packets(self) -> Iterator[Any]:
        """Yield the packets that are to be decoded, resuming after pauses."""
        silence = SilenceLimit(time.monotonic())
        while True:
            try:
                for packet in self._reader.packets():
                    asked = self._reader.asked
                    silence.note_packet(asked, time.monotonic())
                    if self._should_decode(packet, asked):
                        yield packet
                return
            except av.error.FFmpegError as error:
                if not is_timeout(error):
                    raise
                if self.kind == "http" or not silence.remaining_s(time.monotonic()):
                    raise SourceFailed(f"{self._name} broke off: {silence.reason()}") from error

    def _should_decode(self, packet: Any, asked: float) -> bool:
        """Return whether to decode a packet, which was asked for at `asked`, or to skip it to catch up."""
        if self._skipper is None or packet.dts is None:
            return True
        came = time.monotonic()
        at_s = float(packet.dts * packet.time_base)
        decode = self._skipper.should_decode(at_s=at_s, is_key=packet.is_keyframe, came=came, waited_s=came - asked)
        self._skipped += not decode
        return decode

    def _why_undecoded(self) -> str:
        kind = self._stream.codec_context.name
        if self._reader.damaged:
            return f"sends {kind} that cannot be decoded: {self._reader.last_damage}; check the stream's settings"
        return (
            f"has sent {kind} without a key frame for {KEY_FRAME_TIMEOUT_S:g} s; set a shorter interval of key frames "
            "(I-frames) in the camera"
        )

    def _source_frame(self, index: int, image: Image, at_s: float | None) -> SourceFrame:
        height, width = image.shape[:2]
        skipped, self._skipped = self._skipped, 0
        return SourceFrame(
            name=self._name, index=index, width=width, height=height, image=image, at_s=at_s, skipped=skipped
        )


def _open_rtsp(url: str, name: str, transport: RtspTransport, device: HWAccel | None) -> Any:
    options = _LIVE_OPTIONS | _RTSP_OPTIONS
    try:
        return _open(url, name, "rtsp", options | _TRANSPORTS[transport], device)
    except SourceFailed as error:  # FFmpeg gives up when a camera answers with UDP when it was asked for TCP
        if transport != "auto" or not isinstance(error.__cause__, av.error.InvalidDataError):
            raise
    return _open(url, name, "rtsp", options | _TRANSPORTS["udp"], device)


def _open(url: str, name: str, kind: Kind, options: dict[str, str], device: HWAccel | None) -> Any:
    silence_s = timeouts.READ_TIMEOUT_S if kind == "rtsp" else timeouts.FIRST_PICTURE_TIMEOUT_S
    began = time.monotonic()
    try:
        return av.open(
            url,
            options=options,
            timeout=(timeouts.OPEN_TIMEOUT_S, silence_s),
            metadata_errors="replace",
            hwaccel=device,
        )
    except av.error.FFmpegError as error:
        why = open_reason(error, urlsplit(url), took_s=time.monotonic() - began)
        raise SourceFailed(f"{name} cannot be opened: {why}") from error
