"""Convert decoded frames of a video to images as people see them: BGR, upright, in true shape and colours.

Interlaced frames are deinterlaced, and those with a transfer function for brighter screens (PQ, HLG) are mapped to the
colours of ordinary ones. Both need a graph of FFmpeg's filters, which is built only for a video that needs it. Frames
that are too large raise BadImage; other errors are FFmpeg's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import av.error
import numpy as np
from av.filter import Graph
from av.video.reformatter import ColorTrc, VideoReformatter

from pipeline.vision import jpeg
from pipeline.vision.arrays import Image

# "send_frame": one frame out for each one in. "interlaced": others pass as they are.
DEINTERLACE = ("bwdif", "mode=send_frame:deint=interlaced")
# The tone mapping of swscale; PyAV's FFmpeg has neither zscale nor libplacebo.
TONE_MAP = ("scale", "out_transfer=bt709:out_primaries=bt709:out_color_matrix=bt709:intent=perceptual")
BRIGHT = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)  # PQ and HLG
MAX_PIXEL_ASPECT = 10  # a file that says more, or less than a tenth, is wrong


class _Kind(NamedTuple):
    """What of a frame decides how it is converted."""

    format: str
    width: int
    height: int
    is_interlaced: bool
    is_bright: bool

    @property
    def needs_filters(self) -> bool:
        return self.is_interlaced or self.is_bright


class FrameConverter:
    """Convert the frames of one video. stream: of PyAV."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._pixel_aspect = Fraction(1)
        self._time_base = stream.time_base
        self._reformatter = VideoReformatter()  # one for all frames: setting it up takes as long as a conversion
        self._kind: _Kind | None = None
        self._graph: Graph | None = None
        self._inside: deque[tuple[float | None, int]] = deque()  # times and rotations of the frames in the graph

    def convert(self, decoded: Any, at_s: float | None) -> Iterator[tuple[Image, float | None]]:
        """Yield images (uint8 H x W x 3) with their times; deinterlacing holds a frame back until the next one comes.

        at_s: when the frame is due.

        After an error of FFmpeg, convert() begins anew; a frame that was held back is lost.
        """
        try:
            yield from self._convert(decoded, at_s)
        except av.error.FFmpegError:
            self._forget()
            raise

    def _convert(self, decoded: Any, at_s: float | None) -> Iterator[tuple[Image, float | None]]:
        jpeg.check_size(decoded.width, decoded.height)
        was_interlaced = self._kind is not None and self._kind.is_interlaced
        is_interlaced = was_interlaced or decoded.interlaced_frame
        is_bright = decoded.color_trc in BRIGHT
        kind = _Kind(decoded.format.name, decoded.width, decoded.height, is_interlaced, is_bright)
        if kind != self._kind:
            yield from self.flush()
            self._kind = kind
            self._pixel_aspect = _pixel_aspect(self._stream)  # a network stream says it in its first frame
            self._graph = _graph(kind, decoded, self._time_base) if kind.needs_filters else None
        self._inside.append((at_s, decoded.rotation))
        if self._graph is None:
            yield self._image(decoded)
        else:
            self._graph.vpush(decoded)
            yield from self._pull(self._graph)

    def flush(self) -> Iterator[tuple[Image, float | None]]:
        """Yield the image that was held back, if any. After it, convert() begins anew."""
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._pull(self._graph)
        self._forget()

    def _forget(self) -> None:
        self._graph, self._kind = None, None
        self._inside.clear()

    def _pull(self, graph: Graph) -> Iterator[tuple[Image, float | None]]:
        while True:
            try:
                filtered = graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            yield self._image(filtered)

    def _image(self, frame: Any) -> tuple[Image, float | None]:
        at_s, rotation = self._inside.popleft()
        width, height = _true_size(frame.width, frame.height, self._pixel_aspect)
        jpeg.check_size(width, height)
        # One thread: with more, each frame costs more than it gains, and workers use the other cores.
        converted = self._reformatter.reformat(frame, width=width, height=height, format="bgr24", threads=1)
        return _upright(converted.to_ndarray().astype(np.uint8, copy=False), rotation), at_s


def _graph(kind: _Kind, frame: Any, time_base: Fraction) -> Graph:
    graph = Graph()
    graph.threads = 1
    steps = [graph.add_buffer(width=kind.width, height=kind.height, format=frame.format, time_base=time_base)]
    steps += [graph.add(*DEINTERLACE)] if kind.is_interlaced else []
    steps += [graph.add(*TONE_MAP), graph.add("format", "yuv444p")] if kind.is_bright else []
    graph.link_nodes(*steps, graph.add("buffersink")).configure()
    return graph


def _pixel_aspect(stream: Any) -> Fraction:
    """Return how many times as wide as high a pixel is."""
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
    return aspect if Fraction(1, MAX_PIXEL_ASPECT) <= aspect <= MAX_PIXEL_ASPECT else Fraction(1)


def _true_size(width: int, height: int, pixel_aspect: Fraction) -> tuple[int, int]:
    """Return the size at which pixels are square; neither side gets shorter."""
    if pixel_aspect >= 1:
        return round(width * pixel_aspect), height
    return width, round(height / pixel_aspect)


def _upright(image: Image, rotation: int) -> Image:
    """Rotate an image counter-clockwise by the multiple of 90 degrees that the file asks for."""
    quarters = round(rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image
