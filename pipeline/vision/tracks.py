"""Track faces from frame to frame and smooth their labels. Pure: the clock is an argument.

Use one `FaceTracker` per camera, after the join, with frames in order: a worker sees only some of the frames. A face
belongs to the track whose predicted place and size it fits best, and that it can belong to (pipeline/vision/motion.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from pipeline.vision.faces import MAX_FACES, Face
from pipeline.vision.motion import LABEL_WEIGHT, Motion, cheapest_pairs, costs, place_of

SMOOTHING_S = 0.4  # time constant: a change of label shows after 0.3 s at confidence 100 %, after 0.5 s at 70 %
MAX_GAP_S = 2.5  # a face that was not detected for longer gets a new track


class TrackedFace(Face, frozen=True, kw_only=True):
    """A face with a smoothed label. track: the number of its track."""

    track: int


class Track(Struct, kw_only=True):
    """A face while it is followed. mask: the smoothed probability of a mask. seen_at_s: when it was last detected.

    motion: where it was then, and how it moves.
    """

    number: int
    motion: Motion
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

    def update(self, faces: Sequence[Face], at_s: float, *, seq: int | None = None) -> list[TrackedFace]:
        """Return the faces of the next frame, in the same order, each with its track and smoothed label.

        Args:
            faces: at most MAX_FACES.
            at_s: when the frame was captured, seconds; frames come in order.
            seq: of the frame, from which the tracks that begin in it get their numbers: all processes that follow a
                camera while a track begins then give it the same number. None to count tracks from 1.
        """
        self._tracks = [track for track in self._tracks if at_s - track.seen_at_s <= MAX_GAP_S]
        matched = {face: self._tracks[track] for track, face in self._pairs(faces, at_s)}
        tracked = []
        for index, face in enumerate(faces):
            track = matched.get(index) or self._begin(face, at_s, None if seq is None else seq * MAX_FACES + index)
            tracked.append(_follow(track, face, at_s))
        return tracked

    def _pairs(self, faces: Sequence[Face], at_s: float) -> list[tuple[int, int]]:
        """Pair tracks and faces that belong together, by their indices."""
        if not self._tracks or not faces:
            return []
        unseen_s = [max(0.0, at_s - track.seen_at_s) for track in self._tracks]
        cost = costs([track.motion for track in self._tracks], unseen_s, [face.box for face in faces])
        masks = np.array([track.mask for track in self._tracks])
        cost += LABEL_WEIGHT * np.abs(masks[:, None] - np.array([_mask(face) for face in faces]))
        return cheapest_pairs(cost)

    def _begin(self, face: Face, at_s: float, number: int | None) -> Track:
        """Return a new track. number: None for the next one."""
        self._count += 1
        x, y, size = place_of(face.box)
        motion = Motion(x=x, y=y, size=size)
        track = Track(number=self._count if number is None else number, motion=motion, mask=_mask(face), seen_at_s=at_s)
        self._tracks.append(track)
        return track


def _follow(track: Track, face: Face, at_s: float) -> TrackedFace:
    """Continue a track with a face, and return the face with the smoothed label."""
    unseen_s = at_s - track.seen_at_s
    if unseen_s > 0:
        track.mask += (1 - math.exp(-unseen_s / SMOOTHING_S)) * (_mask(face) - track.mask)
        track.motion.move(face.box, unseen_s)
        track.seen_at_s = at_s
    return TrackedFace(
        box=face.box,
        score=face.score,
        label="mask" if track.mask >= 0.5 else "no_mask",
        confidence=max(track.mask, 1 - track.mask),
        fresh=face.fresh,
        track=track.number,
    )


def _mask(face: Face) -> float:
    """Return the probability of a mask."""
    return face.confidence if face.label == "mask" else 1 - face.confidence
