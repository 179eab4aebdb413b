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

SMOOTHING_S = 0.4  # time constant: at 5 frames/s a change of label shows after 0.3 s, of an unsure face after 0.9 s
CAUGHT_UP = 0.25  # a smoothed probability that differs by less from that of the frame has followed it
TURNED_S = 0.5  # for so long after frames began to show another label it is said when they did
MAX_DOUBT_S = 1.0  # a change of label that takes longer is none: a frame with the old label ends it
MAX_GAP_S = 2.5  # a face that was not detected for longer gets a new track


class TrackedFace(Face, frozen=True, kw_only=True):
    """A face with a smoothed label. track: the number of its track.

    turned_at_s: when frames began to show its label, in the frame that changes it, and for TURNED_S after that time;
    None otherwise.
    """

    track: int
    turned_at_s: float | None = None


class Track(Struct, kw_only=True):
    """A face while it is followed. mask: the smoothed probability of a mask. seen_at_s: when it was last detected.

    motion: where it was then, and how it moves. doubted_at_s: since when frames show the other label, as long as the
    smoothed one has not followed them, nor they gone back to it; None while both agree. turned_at_s: since when they
    show the present label; None for the first one.
    """

    number: int
    motion: Motion
    mask: float
    seen_at_s: float
    doubted_at_s: float | None = None
    turned_at_s: float | None = None

    def smooth(self, mask: float, at_s: float) -> None:
        """Take the probability of a mask in the next frame.

        No frame changes the label alone: there must be one before it that shows the new one, too. When the label
        changes, the smoothed probability begins anew with that of this frame, so that one wrong label after it is not
        enough to go back.
        """
        was_mask, doubted_at_s = self.is_mask, self.doubted_at_s
        self.mask += (1 - math.exp((self.seen_at_s - at_s) / SMOOTHING_S)) * (mask - self.mask)
        if was_mask == (mask >= 0.5):
            is_over = doubted_at_s is not None and at_s - doubted_at_s > MAX_DOUBT_S
            if is_over or abs(mask - self.mask) < CAUGHT_UP:
                self.doubted_at_s = None
        elif doubted_at_s is None:
            self.doubted_at_s = at_s
            self.mask = max(self.mask, 0.5) if was_mask else min(self.mask, math.nextafter(0.5, 0))
        elif self.is_mask != was_mask:
            self.turned_at_s, self.doubted_at_s, self.mask = doubted_at_s, None, mask

    @property
    def is_mask(self) -> bool:
        """Whether a mask is more likely than none."""
        return self.mask >= 0.5


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
    was_mask, unseen_s = track.is_mask, at_s - track.seen_at_s
    if unseen_s > 0:
        track.smooth(_mask(face), at_s)
        track.motion.move(face.box, unseen_s)
        track.seen_at_s = at_s
    turned_at_s = track.turned_at_s
    if turned_at_s is not None and track.is_mask == was_mask and not 0 <= at_s - turned_at_s <= TURNED_S:
        turned_at_s = None
    return TrackedFace(
        box=face.box,
        score=face.score,
        label="mask" if track.is_mask else "no_mask",
        confidence=max(track.mask, 1 - track.mask),
        fresh=face.fresh,
        track=track.number,
        turned_at_s=turned_at_s,
    )


def _mask(face: Face) -> float:
    """Return the probability of a mask."""
    return face.confidence if face.label == "mask" else 1 - face.confidence
