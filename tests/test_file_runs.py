"""Runs: which frames of a file a detector takes together, and from where it knows their faces."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from pipeline.bus import messages
from pipeline.bus.messages import Frame, KnownFace, KnownFaces, Relabel
from workers.detect import QUIET_S, RUN_FRAMES, FileRuns
from workers.known_faces import unpack_known

FACE = KnownFace(box=(1, 2, 30, 40), seq=3, number=0, labelled_at_s=0.1, thumbnail=bytes(64))


class Clock:
    """A clock that stands still."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def entry(camera: str = "file-1", *, live: bool = False, relabel: bool = True) -> Any:
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
        relabel=Relabel(every_s=0.25, at_s=0.2) if relabel else None,
    )
    return SimpleNamespace(record=record)


class RedisHolds:
    """What a detector asks a reader for."""

    def __init__(self, *faces: KnownFace) -> None:
        self._packed = messages.encode(KnownFaces(faces=list(faces)))

    def known_faces(self, _: Any) -> bytes:
        return self._packed


def test_files_whose_faces_may_keep_labels_come_in_runs() -> None:
    runs = FileRuns(Clock())

    lengths = [runs.length()]
    for entries in ([entry()], [], [entry(relabel=False)]):
        runs.begin(entries)
        lengths.append(runs.length())

    assert lengths == [1, RUN_FRAMES, RUN_FRAMES, 1]


def test_a_worker_that_gets_live_frames_takes_no_runs() -> None:
    clock = Clock()
    runs = FileRuns(clock)

    runs.begin([entry("door", live=True)])
    runs.begin([entry()])
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
