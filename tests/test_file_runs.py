"""Runs: which frames of a file a detector takes together, and from where it knows their faces."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from pipeline.bus import messages
from pipeline.bus.messages import Frame, KnownFace, KnownFaces, Relabel
from workers.detect import QUIET_S, RUN_FRAMES, RUN_S, FileRuns
from workers.known_faces import unpack_known

FACE = KnownFace(box=(1, 2, 30, 40), seq=3, number=0, labelled_at_s=0.1, thumbnail=bytes(64))


class Clock:
    """A clock that stands still."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def entry(camera: str = "file-1", *, live: bool = False) -> Any:
    record = Frame(
        frame_id=messages.frame_id(camera, 7, 4),
        camera=camera,
        start=7,
        seq=4,
        width=64,
        height=48,
        pixels_key=f"{{s0}}:pixels:{camera}:7:4",
        captured_at=1.0,
        deadline_at=2.0 if live else None,
        relabel=Relabel(every_s=0.25, at_s=0.2),
    )
    return SimpleNamespace(record=record)


class RedisHolds:
    """What a detector asks a reader for."""

    def __init__(self, *faces: KnownFace) -> None:
        self._packed = messages.encode(KnownFaces(faces=list(faces)))

    def known_faces(self, _: Any) -> bytes:
        return self._packed


def lengths_after(runs: FileRuns, clock: Clock, *took_s: float) -> list[int]:
    """Return the lengths of runs of which each frame took this long, and of the one after them."""
    lengths = [runs.length()]
    for seconds in took_s:
        runs.begin([entry()] * lengths[-1])
        clock.now_s += seconds * lengths[-1]
        lengths.append(runs.length())
    return lengths


def test_frames_of_files_come_in_runs_that_double_while_they_are_quick() -> None:
    clock = Clock()
    runs = FileRuns(clock)

    quick = lengths_after(runs, clock, 0.01, 0.01, 0.01, 0.01)
    slow = lengths_after(runs, clock, 0.03, 0.2, 0.0)
    runs.begin([])

    assert quick == [1, 2, 4, RUN_FRAMES, RUN_FRAMES]
    assert slow == [RUN_FRAMES, 3, 1, 2]
    assert runs.length() == 2


def test_a_run_is_late_once_it_takes_longer_than_runs_should() -> None:
    clock = Clock()
    runs = FileRuns(clock)

    late = [runs.is_late()]
    runs.begin([entry()] * 4)
    for seconds in (0.9 * RUN_S, 0.2 * RUN_S):
        clock.now_s += seconds
        late.append(runs.is_late())

    assert late == [False, False, True]


def test_a_worker_that_gets_live_frames_takes_no_runs() -> None:
    clock = Clock()
    runs = FileRuns(clock)
    lengths_after(runs, clock, 0.01, 0.01, 0.01)

    runs.begin([entry("door", live=True)])
    runs.begin([entry()] * 8)
    beside = runs.length()
    clock.now_s += 1.01 * QUIET_S

    assert (beside, runs.length()) == (1, RUN_FRAMES)


@pytest.mark.parametrize("camera", ["file-1", "file-2"])
def test_faces_are_known_from_the_frame_before_in_a_run_else_from_redis(camera: str) -> None:
    runs, reader = FileRuns(), cast(Any, RedisHolds(FACE))
    newer = msgspec.structs.replace(FACE, seq=4)
    runs.begin([entry("file-1"), entry(camera)])
    runs.note(entry("file-1").record, KnownFaces(faces=[newer]))
    runs.note(entry("file-1").record, None)

    known = runs.known_faces(reader, entry(camera))
    runs.begin([entry(camera)])

    assert known == ([newer] if camera == "file-1" else [FACE])
    assert runs.known_faces(reader, entry(camera)) == unpack_known(reader.known_faces(None)) == [FACE]
