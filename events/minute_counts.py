"""Counts of a camera by minute: time of people and of masks in its picture, and the most people at once. Pure."""

from __future__ import annotations

from msgspec import Struct

from events.rules import Seen


class MinuteCount(Struct, kw_only=True):
    """One minute. people_s, masks_s: seconds times faces, and faces with a mask. most: faces at once."""

    people_s: float = 0.0
    masks_s: float = 0.0
    most: int = 0
    frames: int = 0


class MinuteCounts:
    """What was counted since `take()`."""

    def __init__(self) -> None:
        self._minutes: dict[int, MinuteCount] = {}

    def add(self, seen: Seen) -> None:
        """Count the faces of a frame, for as long as since the frame before."""
        count = self._minutes.setdefault(int(seen.at // 60), MinuteCount())
        count.people_s += seen.step_s * len(seen.faces)
        count.masks_s += seen.step_s * sum(face.label == "mask" for face in seen.faces)
        count.most = max(count.most, len(seen.faces))
        count.frames += 1

    def take(self) -> dict[int, MinuteCount]:
        """Return the counts by minute, in Unix minutes, and begin anew."""
        taken, self._minutes = self._minutes, {}
        return taken
