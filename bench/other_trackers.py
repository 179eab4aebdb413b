"""Other libraries' trackers behind one call, for `python -m bench.tracks`: those that are installed.

Each is set as its documentation says, with tracks that survive 2 s unseen, as ours do.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from pipeline.vision.faces import Face
from pipeline.vision.tracks import FaceTracker

UNSEEN_S = 2.0
Update = Callable[[Sequence[Face], float], list[int | None]]  # faces, seconds: the track of each, None without one


def trackers() -> Iterator[tuple[str, Callable[[float], Update]]]:
    """Yield the name of each tracker, and what makes one for a frame rate."""
    yield "ours", tracker_of_ours
    if find_spec("norfair"):
        yield "norfair", _norfair
    if find_spec("trackers"):
        for name in ("SORTTracker", "ByteTrackTracker"):
            yield name, lambda fps, name=name: _roboflow(name, fps)  # type: ignore[misc]


def tracker_of_ours(_fps: float) -> Update:
    """Return the tracker of this program."""
    tracker = FaceTracker()
    return lambda faces, at_s: [face.track for face in tracker.update(faces, at_s)]


def _norfair(fps: float) -> Update:
    norfair: Any = importlib.import_module("norfair")
    tracker = norfair.Tracker(
        distance_function="iou", distance_threshold=0.8, initialization_delay=0, hit_counter_max=round(UNSEEN_S * fps)
    )

    def update(faces: Sequence[Face], _at_s: float) -> list[int | None]:
        found = [
            norfair.Detection(np.array([face.box[:2], face.box[2:]]), data=number) for number, face in enumerate(faces)
        ]
        numbers: list[int | None] = [None] * len(faces)
        for one in tracker.update(detections=found):
            if one.last_detection in found:
                numbers[one.last_detection.data] = one.id
        return numbers

    return update


def _roboflow(name: str, fps: float) -> Update:
    supervision: Any = importlib.import_module("supervision")
    made: Any = getattr(importlib.import_module("trackers"), name)
    tracker = made(
        lost_track_buffer=round(UNSEEN_S * 30), frame_rate=fps, minimum_consecutive_frames=1, minimum_iou_threshold=0.2
    )

    def update(faces: Sequence[Face], _at_s: float) -> list[int | None]:
        found = supervision.Detections(
            xyxy=np.array([face.box for face in faces], np.float64).reshape(-1, 4),
            confidence=np.array([face.score for face in faces]),
            class_id=np.zeros(len(faces), int),
            data={"number": np.arange(len(faces))},
        )
        numbers: list[int | None] = [None] * len(faces)
        tracked = tracker.update(found)
        for number, track in zip(tracked.data.get("number", []), tracked.tracker_id, strict=True):
            numbers[int(number)] = None if track < 0 else int(track)
        return numbers

    return update
