"""Ten minutes before two cameras: twelve people, when each is there and wears no mask, and the events that follow.

Results are drawn from a seed as detectors and classifiers would find them: boxes of swaying figures that jitter, faces
that are missed, and labels that are wrong now and then. The short scene is the first part of it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.bus import messages
from pipeline.bus.messages import FrameResult
from pipeline.vision.faces import Box, Face, Label

FULL_S, SHORT_S = 600.0, 150.0
TAIL_S = 4.0  # without anybody, at the end: what lasted ends
FPS = 10
WIDTH, HEIGHT = 1280, 720
LANE_PX, FACE_PX, SWAY_PX = 200.0, 80.0, 40.0
JITTER_PX, MISSED = 2.0, 0.05
WRONG = 0.01  # share of labels; twice what was measured of the built-in model (README.md)
RULES = """
[[zones]]
name = "left"
camera = "door"
polygon = [[0.0, 0.0], [0.34, 0.0], [0.34, 1.0], [0.0, 1.0]]
[[rules]]
kind = "no_mask"
name = "bare"
seconds = 5
[[rules]]
kind = "no_mask"
name = "entrance"
zone = "left"
seconds = 2
[[rules]]
kind = "people_without_mask"
name = "two"
people = 2
seconds = 3
cameras = ["door", "yard"]
[[rules]]
kind = "camera_offline"
name = "away"
cameras = ["gate"]
seconds = 3
[[rules]]
kind = "camera_back"
name = "back"
cameras = ["gate"]
seconds = 3
"""

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody in one lane of a camera's picture. begin, end: when they are there. bare: when without a mask."""

    camera: str
    lane: int
    begin: float
    end: float
    bare: Sequence[Span]


@dataclass(frozen=True, slots=True, order=True)
class Expected:
    """An event. begin, end: seconds of the scene."""

    rule: str
    camera: str
    begin: float
    end: float


PEOPLE = (
    Person("door", 0, 5, 130, [(10, 30), (60, 63)]),
    Person("door", 2, 20, 140, [(25, 50), (70, 74)]),
    Person("door", 4, 100, 300, [(105, 112), (150, 152), (200, 260)]),
    Person("door", 1, 250, 420, [(255, 262), (300, 301), (350, 400)]),
    Person("door", 3, 400, 590, [(400, 590)]),
    Person("door", 5, 430, 470, []),
    Person("door", 0, 500, 560, [(520, 540)]),
    Person("yard", 0, 1, 590, [(40, 48), (300, 330), (450, 454)]),
    Person("yard", 1, 10, 100, [(42, 60)]),
    Person("yard", 2, 130, 140, [(130, 140)]),
    Person("yard", 3, 280, 400, [(310, 320)]),
    Person("yard", 5, 440, 580, [(452, 453), (560, 575)]),
)
# Every time without a mask of 5 s or more ("bare"), on the left of the door of 2 s or more ("entrance"), and of two
# such people at one camera of 3 s or more ("two").
TABLE = (
    Expected("bare", "door", 10, 30),
    Expected("bare", "door", 25, 50),
    Expected("bare", "door", 105, 112),
    Expected("bare", "door", 200, 260),
    Expected("bare", "door", 255, 262),
    Expected("bare", "door", 350, 400),
    Expected("bare", "door", 400, 590),
    Expected("bare", "door", 520, 540),
    Expected("bare", "yard", 40, 48),
    Expected("bare", "yard", 42, 60),
    Expected("bare", "yard", 130, 140),
    Expected("bare", "yard", 300, 330),
    Expected("bare", "yard", 310, 320),
    Expected("bare", "yard", 560, 575),
    Expected("entrance", "door", 10, 30),
    Expected("entrance", "door", 60, 63),
    Expected("entrance", "door", 255, 262),
    Expected("entrance", "door", 350, 400),
    Expected("entrance", "door", 520, 540),
    Expected("two", "door", 25, 30),
    Expected("two", "door", 255, 260),
    Expected("two", "door", 520, 540),
    Expected("two", "yard", 42, 48),
    Expected("two", "yard", 310, 320),
)


def table(seconds: float) -> list[Expected]:
    """Return the events of the first part of the scene."""
    return [one for one in TABLE if one.end < seconds - TAIL_S]


def results(seconds: float, begin: float, seed: int) -> list[FrameResult]:
    """Return the results of the first part of the scene, of all cameras, in order. begin: Unix seconds."""
    rng, found = random.Random(seed), []
    for seq in range(round(seconds * FPS)):
        at = seq / FPS
        for camera in ("door", "yard"):
            people = [one for one in PEOPLE if one.camera == camera] if at < seconds - TAIL_S else []
            faces = [_face(one, at, seconds, rng) for one in people if one.begin <= at < one.end]
            seen = [face for face in faces if rng.random() >= MISSED]
            rng.shuffle(seen)
            found.append(_result(camera, seq, seen, begin))
    return found


def _face(person: Person, at: float, seconds: float, rng: random.Random) -> Face:
    """Return a face as it is found; a time without a mask that the part cuts off is left out."""
    bare = any(begin <= at < end < seconds - TAIL_S for begin, end in person.bare)
    label: Label = "no_mask" if bare != (rng.random() < WRONG) else "mask"
    return Face(box=_box(person, at, rng), score=rng.uniform(0.8, 0.95), label=label, confidence=rng.uniform(0.9, 0.99))


def _box(person: Person, at: float, rng: random.Random) -> Box:
    x = 60 + LANE_PX * person.lane + SWAY_PX * (1 + math.sin(at / (1.2 + 0.1 * person.lane)))
    y = 300 + 15 * math.sin(at / 0.8)
    x1, y1, x2, y2 = (side + rng.gauss(0, JITTER_PX) for side in (x, y, x + FACE_PX, y + 1.2 * FACE_PX))
    return x1, y1, x2, y2


def _result(camera: str, seq: int, faces: list[Face], begin: float) -> FrameResult:
    start = round(begin * 1000)
    return FrameResult(
        frame_id=messages.frame_id(camera, start, seq),
        camera=camera,
        start=start,
        seq=seq,
        width=WIDTH,
        height=HEIGHT,
        pixels_key=f"{{s0}}:pixels:{camera}:{start}:{seq}",
        captured_at=begin + seq / FPS,
        deadline_at=None,
        outcome="labelled",
        faces=faces,
        model="test",
    )
