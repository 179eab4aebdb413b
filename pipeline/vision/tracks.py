"""Follow faces from frame to frame and steady their labels. Pure: the clock is an argument.

Use one `Tracks` a camera, behind the join, with frames in order: workers see only their share of the frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.vision.boxes import iou
from pipeline.vision.faces import Box, Label, ScoredFace

SMOOTHING_S = 0.4  # time constant: a sure change of label shows after 0.3 s, an unsure one (70%) after 0.5 s
FORGET_S = 1.0  # a face unseen for longer gets a new track
MIN_OVERLAP = 0.2  # intersection over union at which two boxes may be the same face; low, for 5 frames a second


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedFace:
    """A face with a steady label. confidence belongs to that label: 0.5 to 1. track: the same number, the same face."""

    box: Box
    score: float
    label: Label
    confidence: float
    track: int


@dataclass(slots=True)
class _Track:
    number: int
    box: Box
    mask: float
    seen_at_s: float


class Tracks:
    """The faces of one camera."""

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._given = 0

    def update(self, faces: Sequence[ScoredFace], at_s: float) -> list[TrackedFace]:
        """Return the faces of the next frame, in the order given, each with its track and steady label.

        Args:
            at_s: when the frame was captured, seconds; frames come in order.
        """
        self._tracks = [track for track in self._tracks if at_s - track.seen_at_s <= FORGET_S]
        pairs = _pairs([track.box for track in self._tracks], [face.box for face in faces])
        matched = {face: self._tracks[track] for track, face in pairs}
        return [self._follow(matched.get(number), face, at_s) for number, face in enumerate(faces)]

    def _follow(self, track: _Track | None, face: ScoredFace, at_s: float) -> TrackedFace:
        mask = face.confidence if face.label == "mask" else 1 - face.confidence
        if track is None:
            self._given += 1
            track = _Track(self._given, face.box, mask, at_s)
            self._tracks.append(track)
        else:
            weight = 1 - math.exp(-max(0.0, at_s - track.seen_at_s) / SMOOTHING_S)
            track.mask += weight * (mask - track.mask)
            track.box, track.seen_at_s = face.box, max(at_s, track.seen_at_s)
        return TrackedFace(
            box=face.box,
            score=face.score,
            label="mask" if track.mask >= 0.5 else "no_mask",
            confidence=max(track.mask, 1 - track.mask),
            track=track.number,
        )


def _pairs(tracks: Sequence[Box], faces: Sequence[Box]) -> list[tuple[int, int]]:
    """Pair tracks with faces, the best overlap first, each at most once."""
    if not tracks or not faces:
        return []
    found = iou(tracks, faces)
    pairs = []
    while found.max() >= MIN_OVERLAP:
        track, face = (int(number) for number in np.unravel_index(found.argmax(), found.shape))
        pairs.append((track, face))
        found[track, :] = 0
        found[:, face] = 0
    return pairs
