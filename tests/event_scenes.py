"""Results of scenes whose events are known: who is before a camera when, with and without a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.bus import messages
from pipeline.bus.messages import FrameResult
from pipeline.vision.faces import Box, Face

START = 1_700_000_000_000  # of the producer
BEGIN = 1_700_000_000.0  # of a scene, Unix seconds
FPS = 10
WIDTH, HEIGHT = 1_000, 500


@dataclass(frozen=True)
class Person:
    """Somebody in one place. begin, end: when they are there, seconds of the scene. bare: when they wear no mask."""

    place: int
    begin: float
    end: float
    bare: Sequence[tuple[float, float]] = ()

    def face(self, at: float) -> Face | None:
        """Return the face at a time of the scene; None when nobody is there."""
        if not self.begin <= at < self.end:
            return None
        bare = any(begin <= at < end for begin, end in self.bare)
        return Face(box=self.box, score=0.9, label="no_mask" if bare else "mask", confidence=0.99)

    @property
    def box(self) -> Box:
        """The face's box."""
        return (100.0 * self.place, 100.0, 100.0 * self.place + 80, 200.0)


def result(seq: int, faces: Sequence[Face], *, camera: str = "door", at: float | None = None) -> FrameResult:
    """Return the result of a labelled frame. at: when it was captured; None for its place in the scene."""
    return FrameResult(
        frame_id=messages.frame_id(camera, START, seq),
        camera=camera,
        start=START,
        seq=seq,
        width=WIDTH,
        height=HEIGHT,
        pixels_key=f"{{s0}}:pixels:{camera}:{START}:{seq}",
        captured_at=BEGIN + seq / FPS if at is None else at,
        deadline_at=None,
        outcome="labelled",
        faces=list(faces),
        model="test",
    )


def scene(people: Sequence[Person], seconds: float, camera: str = "door") -> list[FrameResult]:
    """Return the results of a scene, in order."""
    return [
        result(seq, [face for person in people if (face := person.face(seq / FPS))], camera=camera)
        for seq in range(round(seconds * FPS))
    ]
