"""What usual webcams offer, written as `v4l2-ctl --list-formats-ext` prints it."""

from __future__ import annotations

import re

from producer.sources.webcam_mode import WebcamMode


def listing(**formats: dict[str, tuple[int, ...]]) -> str:
    """Return a listing. formats: by pixel format the rates of each size."""
    lines = ["ioctl: VIDIOC_ENUM_FMT", "\tType: Video Capture", ""]
    for number, (pixel_format, sizes) in enumerate(formats.items()):
        lines.append(f"\t[{number}]: '{pixel_format}' ({pixel_format})")
        for size, rates in sizes.items():
            lines.append(f"\t\tSize: Discrete {size}")
            lines += [f"\t\t\tInterval: Discrete {1 / rate:.3f}s ({rate:.3f} fps)" for rate in rates]
    return "\n".join(lines)


USUAL = listing(
    YUYV={"640x480": (30, 15), "800x600": (20, 10), "1280x720": (10, 5), "1920x1080": (5,)},
    MJPG={"640x480": (30,), "1280x720": (60, 30, 25, 10), "1920x1080": (30,)},
)
RAW_ONLY = listing(YUYV={"320x240": (30,), "640x480": (30, 15), "1280x720": (10,)})
SLOW = listing(YUYV={"640x480": (10, 5), "1280x720": (7,)})
LARGE_ONLY = listing(H264={"1280x720": (30,)}, MJPG={"3840x2160": (30,), "1920x1080": (60, 30)})
INFRARED = listing(GREY={"640x360": (30, 15)})
UNREADABLE = listing(H264={"1920x1080": (30,)}, HEVC={"1280x720": (30,)})


def modes_of(text: str) -> list[WebcamMode]:
    """Return the modes of a listing."""
    modes, pixel_format, width, height = [], "", 0, 0
    for line in text.splitlines():
        if found := re.search(r"\[\d+\]: '(.{4})'", line):
            pixel_format = found[1]
        elif found := re.search(r"Size: Discrete (\d+)x(\d+)", line):
            width, height = int(found[1]), int(found[2])
        elif found := re.search(r"\(([\d.]+) fps\)", line):
            modes.append(WebcamMode(pixel_format=pixel_format, width=width, height=height, fps=float(found[1])))
    return modes
