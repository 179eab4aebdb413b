"""Track faces from frame to frame and smooth their labels. Pure: the clock is an argument.

Use one `FaceTracker` per camera, after the join, with frames in order: a worker sees only some of the frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from pipeline.vision.boxes import pairs_by_overlap
from pipeline.vision.faces import Box, Face

SMOOTHING_S = 0.4  # time constant: a change of label shows after 0.3 s at confidence 100 %, after 0.5 s at 70 %
MAX_GAP_S = 1.0  # a face that was not detected for longer gets a new track
MIN_IOU = 0.2  # intersection over union at which two boxes may be the same face; low, for 5 frames a second


class TrackedFace(Face, frozen=True, kw_only=True):
    """A face with a smoothed label. track: the number of its track."""

    track: int


class Track(Struct, kw_only=True):
    """A face while it is followed. mask: the smoothed probability of a mask. seen_at_s: when it was last detected."""

    number: int
    box: Box
    mask: float
    seen_at_s: float


class TrackerState(Struct, frozen=True, kw_only=True):
    """All that a tracker knows. count: how many tracks it has had."""

    tracks: list[Track] = []
    count: int = 0


class FaceTracker:
    """The tracks of one camera's faces.

    Args:
        state: of an earlier tracker, which this one continues; None to begin without tracks.
    """

    def __init__(self, state: TrackerState | None = None) -> None:
        self._tracks = list(state.tracks) if state else []
        self._count = state.count if state else 0

    @property
    def state(self) -> TrackerState:
        """What another tracker needs to continue; encode it before the next update."""
        return TrackerState(tracks=self._tracks, count=self._count)

    def update(self, faces: Sequence[Face], at_s: float) -> list[TrackedFace]:
        """Return the faces of the next frame, in the same order, each with its track and smoothed label.

        at_s: when the frame was captured, seconds; frames come in order.
        """
        self._tracks = [track for track in self._tracks if at_s - track.seen_at_s <= MAX_GAP_S]
        pairs = pairs_by_overlap([track.box for track in self._tracks], [face.box for face in faces], MIN_IOU)
        matched = {face: self._tracks[track] for track, face in pairs}
        return [self._update(matched.get(number), face, at_s) for number, face in enumerate(faces)]

    def _update(self, track: Track | None, face: Face, at_s: float) -> TrackedFace:
        mask = face.confidence if face.label == "mask" else 1 - face.confidence
        if track is None:
            self._count += 1
            track = Track(number=self._count, box=face.box, mask=mask, seen_at_s=at_s)
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
            fresh=face.fresh,
            track=track.number,
        )
