"""Draw boxes and texts on a copy of an image. Pure.

The two labels differ in three ways, so that people with colour blindness can distinguish them: colours of different
lightness (Okabe and Ito 2008: sky blue and vermillion), one line around a mask and two around a face without, and text.
Sizes are relative to the image. A text without space is shortened, and then left out, smallest faces first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np

from pipeline.vision.arrays import Image
from pipeline.vision.faces import TEXTS, Box, Face, Label, label_text

COLOURS_BGR: dict[Label, tuple[int, int, int]] = {"mask": (233, 180, 86), "no_mask": (0, 94, 213)}
TEXT_BGR = (0, 0, 0)  # contrast of at least 5:1 on both colours
NOTE_BGR = (235, 235, 235)
PANEL_BGR = (48, 44, 40)

FONT = cv2.FONT_HERSHEY_SIMPLEX
FONT_PX = 22.0  # height of a capital letter at scale 1
TEXT_SHARE = 1 / 36  # height of a capital letter as a share of the image's shorter side
MIN_TEXT_PX = 9.0  # smaller letters are not legible
LINE_SHARE = 1 / 240  # width of a line as a share of the image's shorter side

_Area = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels


def draw_faces(image: Image, faces: Sequence[Face], *, note: str | None = None) -> Image:
    """Return a copy of the image with a box and a text for each face.

    Args:
        image: BGR uint8 H x W x 3.
        note: a text at the lower edge, such as `not labelled right now`.
    """
    drawn = np.array(image, np.uint8, order="C")
    for face in faces:
        _draw_box(drawn, face)
    taken: list[_Area] = []
    if note:
        height, width = drawn.shape[:2]
        _draw_tag(drawn, (0, height, width, height), (note,), NOTE_BGR, taken)
    for face in sorted(faces, key=_area, reverse=True):  # after all boxes, so that no line crosses a text
        short = f"{TEXTS[face.label]} {face.confidence:.0%}"
        texts = (label_text(face.label, face.confidence), short)
        _draw_tag(drawn, face.box, texts, COLOURS_BGR[face.label], taken)
    return drawn


def offline_image(image: Image | None, text: str) -> Image:
    """Return an image that is clearly not live: this one, BGR uint8, in dark grey, or a plain panel, with a text."""
    if image is None:
        dark = np.full((360, 640, 3), PANEL_BGR, np.uint8)
    else:
        grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2GRAY) // 3
        dark = cast(Image, cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
    height, width = dark.shape[:2]
    middle = (0, height / 2, width, height / 2)
    _draw_tag(dark, middle, (text,), NOTE_BGR, [], larger=1.5, centred=True)
    return dark


def _draw_box(image: Image, face: Face) -> None:
    height, width = image.shape[:2]
    line = max(1, round(min(height, width) * LINE_SHARE))
    x1, y1, x2, y2 = (
        int(np.clip(round(side), -1, limit)) for side, limit in zip(face.box, (width, height) * 2, strict=True)
    )
    cv2.rectangle(image, (x1, y1), (x2, y2), COLOURS_BGR[face.label], line)
    inset = 3 * line
    if face.label == "no_mask" and min(x2 - x1, y2 - y1) > 4 * inset:
        cv2.rectangle(image, (x1 + inset, y1 + inset), (x2 - inset, y2 - inset), COLOURS_BGR[face.label], line)


def _area(face: Face) -> float:
    x1, y1, x2, y2 = face.box
    return (x2 - x1) * (y2 - y1)


def _draw_tag(
    image: Image,
    box: Box,
    texts: Sequence[str],
    colour: tuple[int, int, int],
    taken: list[_Area],
    *,
    larger: float = 1.0,
    centred: bool = False,
) -> None:
    """Write the first text that fits in legible letters, and add its area to `taken`."""
    wanted_px = max(MIN_TEXT_PX, min(image.shape[:2]) * TEXT_SHARE) * larger
    for text in texts:
        for capital_px in (wanted_px, MIN_TEXT_PX):
            (text_px, _), _ = cv2.getTextSize(text, FONT, capital_px / FONT_PX, _thickness(capital_px))
            pad = round(capital_px * 0.4)
            size = (text_px + 2 * pad, round(capital_px) + 2 * pad)
            area = _free_area(image, box, size, taken, centred=centred)
            if area:
                x, y, right, bottom = area
                cv2.rectangle(image, (x, y), (right - 1, bottom - 1), colour, cv2.FILLED)
                at, scale = (x + pad, bottom - pad), capital_px / FONT_PX
                cv2.putText(image, text, at, FONT, scale, TEXT_BGR, _thickness(capital_px), cv2.LINE_AA)
                taken.append(area)
                return


def _thickness(capital_px: float) -> int:
    return max(1, round(capital_px / 10))


def _free_area(image: Image, box: Box, size: tuple[int, int], taken: Sequence[_Area], *, centred: bool) -> _Area | None:
    """Return a free area for a tag above, below or in the box; None without one."""
    (height, width), (tag_width, tag_height) = image.shape[:2], size
    if tag_width > width or tag_height > height:
        return None
    x = int(np.clip(round((width - tag_width) / 2 if centred else box[0]), 0, width - tag_width))
    for top in (box[1] - tag_height, box[3], box[1]):
        y = int(np.clip(round(top), 0, height - tag_height))
        right, bottom = x + tag_width, y + tag_height
        if all(right <= x1 or x2 <= x or bottom <= y1 or y2 <= y for x1, y1, x2, y2 in taken):
            return x, y, right, bottom
    return None
