"""Choose how a webcam is to deliver pictures: the modes that it offers in, one of them out. Pure.

Of the modes that are fast enough, the largest one of at most 1280x720 is chosen, or else the smallest one. A mode is
fast enough with 15 pictures a second, or with fewer if fewer are asked for. If none is, the fastest ones count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 1280, 720
FAST_ENOUGH_FPS = 15.0
RATE_TOLERANCE = 0.98  # a webcam of 29.97 pictures a second has 30
COMPRESSED = "MJPG"  # preferred at equal size: raw pictures of several webcams exceed a USB 2 bus
# What OpenCV converts to BGR; a webcam may offer others, such as H264.
READABLE = frozenset(
    {"MJPG", "JPEG", "YUYV", "UYVY", "YVYU", "NV12", "NV21", "YU12", "YV12", "RGB3", "BGR3", "GREY", "Y16 "}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebcamMode:
    """A way in which a webcam delivers pictures.

    pixel_format: four characters, as V4L2 names it. width, height: in pixels. fps: the highest rate; 0 if unknown.
    """

    pixel_format: str
    width: int
    height: int
    fps: float


def choose_mode(modes: Sequence[WebcamMode], *, fps: float) -> WebcamMode | None:
    """Return the mode to ask for; None if none can be read.

    Args:
        modes: one for each format, size and rate.
        fps: how many pictures a second are used.
    """
    readable = [mode for mode in modes if mode.pixel_format in READABLE]
    fastest = max((mode.fps for mode in readable), default=0.0)
    enough = min(fps, FAST_ENOUGH_FPS, fastest) * RATE_TOLERANCE
    return min((mode for mode in readable if mode.fps >= enough), key=lambda mode: _rank(mode, fps), default=None)


def _rank(mode: WebcamMode, fps: float) -> tuple[bool, int, bool, bool, float]:
    """Return what sorts the better mode first: size, then rates of at least fps, then format, then the lower rate."""
    is_large = mode.width > WIDTH or mode.height > HEIGHT
    pixels = mode.width * mode.height
    is_slow = mode.fps < fps * RATE_TOLERANCE
    return (
        is_large,
        pixels if is_large else -pixels,
        is_slow,
        mode.pixel_format != COMPRESSED,
        -mode.fps if is_slow else mode.fps,
    )
