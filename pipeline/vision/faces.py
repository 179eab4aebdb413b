"""Types of labelled faces: a box, a label, and the confidences of both."""

from __future__ import annotations

from typing import Literal, Protocol

Label = Literal["mask", "no_mask"]
LABELS: tuple[Label, ...] = ("mask", "no_mask")
Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the full frame
MAX_FACES = 128  # faces of a frame that are labelled; a frame with more reports how many were left out


class LabelledFace(Protocol):
    """What can be drawn and tracked: a Face or a TrackedFace."""

    @property
    def box(self) -> Box:
        """x1, y1, x2, y2 in pixels."""

    @property
    def score(self) -> float:
        """The detector's score, 0 to 1."""

    @property
    def label(self) -> Label:
        """The label."""

    @property
    def confidence(self) -> float:
        """The confidence of that label, 0.5 to 1."""
