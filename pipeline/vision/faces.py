"""Types of labelled faces: a box, a label, and the confidences of both."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Label = Literal["mask", "no_mask"]
LABELS: tuple[Label, ...] = ("mask", "no_mask")
TEXTS: dict[Label, str] = {"mask": "Mask", "no_mask": "No Mask"}
Share = Annotated[float, Meta(ge=0, le=1)]
Coordinate = Annotated[float, Meta(ge=-1e6, le=1e6)]  # pixels; a box may extend beyond its frame, never that far
Box = tuple[Coordinate, Coordinate, Coordinate, Coordinate]  # x1, y1, x2, y2 in pixels of the full frame
MAX_FACES = 128  # faces of a frame that are labelled; a frame with more reports how many were left out


class Face(Struct, frozen=True, kw_only=True):
    """One labelled face. score: the detector's. confidence: of that label, 0.5 to 1.

    fresh: whether it was labelled in this frame. Otherwise it looks as it did in an earlier one, and keeps that label.
    """

    box: Box
    score: Share
    label: Label
    confidence: Share
    fresh: bool = True


def label_text(label: Label, confidence: float) -> str:
    """Return the text beside a face, such as `No Mask (Confidence: 92%)`."""
    return f"{TEXTS[label]} (Confidence: {confidence:.0%})"
