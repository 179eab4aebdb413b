"""What an annotation file says of one picture, as its reader found it: not yet checked, names not yet understood."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.vision.faces import Box

MAX_QUOTED_CHARS = 60  # of a file's content in an error message
MAX_MESSAGE_CHARS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedObject:
    """One object of a picture: the name of its class, and its box, or why it has none that can be used.

    box: x1, y1, x2, y2 in pixels.
    """

    name: str
    box: Box | None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """What a file says of one picture.

    file: the file that says it. size: width and height in pixels of the picture that the boxes were drawn on; None when
    the file does not say. is_upright: whether the boxes are known to be drawn on the picture as it is seen, turned as
    its EXIF data ask; otherwise `size` must tell.
    """

    file: Path
    picture: Path
    size: tuple[float, float] | None
    objects: tuple[AnnotatedObject, ...]
    is_upright: bool = False


def read_object(name: str, read_box: Callable[[], Box]) -> AnnotatedObject:
    """Return an object whose box is read by a function, which raises ValueError with the reason if there is none."""
    try:
        box = read_box()
        _check_box(box)
    except ValueError as error:
        return AnnotatedObject(name=name, box=None, problem=shortened(str(error), MAX_MESSAGE_CHARS))
    return AnnotatedObject(name=name, box=box)


def box_round(numbers: Sequence[float]) -> Box:
    """Return the box round points, given as x, y, x, y...; raise ValueError if they are no polygon."""
    if len(numbers) < 6 or len(numbers) % 2:
        raise ValueError(f"{len(numbers)} numbers are no polygon")
    return min(numbers[0::2]), min(numbers[1::2]), max(numbers[0::2]), max(numbers[1::2])


def shortened(text: str, limit: int = MAX_QUOTED_CHARS) -> str:
    """Shorten a text that is too long for one line."""
    return text if len(text) <= limit else text[:limit] + "..."


def _check_box(box: Box) -> None:
    if not all(map(math.isfinite, box)):
        raise ValueError(f"the box {box} is unusable: its numbers are not finite")
    if not (box[0] < box[2] and box[1] < box[3]):
        raise ValueError(f"the box {box} has no area")
