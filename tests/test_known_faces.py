"""Faces that were labelled a moment ago keep their labels: which ones do, and what becomes of a frame that has some."""

from __future__ import annotations

from typing import Any, cast

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from conftest import Server, wait_until
from hypothesis import given
from processes import Processes, processes

from pipeline.bus import messages
from pipeline.bus.messages import (
    BadMessage,
    FaceCrops,
    Frame,
    FrameResult,
    KnownFace,
    KnownFaces,
    Relabel,
    SharedPixels,
)
from pipeline.vision.faces import Face
from workers.known_faces import (
    MIN_CONFIDENCE,
    kept_faces,
    known_when_kept,
    known_when_labelled,
    known_when_passed_on,
    recognize,
    same_faces,
    thumbnails_of,
    unpack_known,
)

__all__ = ["processes"]

BOX = (100.0, 100.0, 200.0, 220.0)
NOW = Relabel(every_s=0.25, at_s=10.0)


def thumbnail(value: int) -> bytes:
    return bytes([value] * 64)


def known_face(**changes: Any) -> KnownFace:
    face = KnownFace(
        box=BOX, label="mask", confidence=0.97, model="v1", seq=0, number=0, labelled_at_s=9.9, thumbnail=thumbnail(100)
    )
    return msgspec.structs.replace(face, **changes)


def thumbnails(*values: int) -> Any:
    return np.array([list(thumbnail(value)) for value in values], np.uint8)


def test_a_face_that_has_not_changed_is_known() -> None:
    face = known_face()
    moved = (110.0, 104.0, 210.0, 224.0)

    assert recognize([face], [moved], thumbnails(105), NOW, "v1") == [msgspec.structs.replace(face, box=moved)]


@pytest.mark.parametrize(
    ("changes", "box", "value"),
    [
        ({"labelled_at_s": 9.75}, BOX, 100),
        ({"labelled_at_s": 10.25}, BOX, 100),
        ({"confidence": MIN_CONFIDENCE - 0.01}, BOX, 100),
        ({}, (150.0, 100.0, 250.0, 220.0), 100),
        ({}, (100.0, 100.0, 150.0, 160.0), 100),
        ({}, BOX, 119),
        ({"model": "v2"}, BOX, 100),
    ],
    ids=[
        "too long ago",
        "too much later",
        "unsure",
        "moved",
        "another size",
        "looks different",
        "labelled by another version",
    ],
)
def test_any_other_face_is_classified(changes: dict[str, Any], box: Any, value: int) -> None:
    assert recognize([known_face(**changes)], [box], thumbnails(value), NOW, "v1") == [None]


def test_two_boxes_are_never_known_as_the_same_face() -> None:
    face = known_face()

    assert recognize([face], [(104.0, 100.0, 204.0, 220.0), BOX], thumbnails(100, 100), NOW, "v1") == [None, face]


def test_a_face_is_compared_with_how_it_was_classified_so_that_small_changes_add_up() -> None:
    record = record_of([known_face(), None])

    after = known_when_labelled(record, labelled_in(record), "v2")

    assert after
    assert after.faces[0] == known_face()
    assert (after.faces[1].model, after.faces[1].thumbnail) == ("v2", thumbnail(50))
    assert known_when_kept(record.known[:1]) == KnownFaces(faces=[known_face()])


@pytest.mark.parametrize(("mean", "change", "is_known"), [(100, 18, True), (25, 4, True), (25, 5, False), (5, 2, True)])
def test_a_dark_face_may_change_less(mean: int, change: int, is_known: bool) -> None:
    face = known_face(thumbnail=thumbnail(mean))

    assert recognize([face], [BOX], thumbnails(mean + change), NOW, "v1") == [face if is_known else None]


def test_what_is_stored_and_is_no_record_is_not_used() -> None:
    packed = messages.encode(KnownFaces(faces=[known_face()]))

    assert unpack_known(packed) == [known_face()]
    assert unpack_known(b"") == unpack_known(b"\xc1") == []


def record_of(known: list[KnownFace | None], *, live: bool = True) -> FaceCrops:
    frame = Frame(
        frame_id="door:7:1",
        camera="door",
        start=7,
        seq=1,
        width=640,
        height=360,
        pixels_key="{s0}:pixels:door:7:1",
        captured_at=10.0,
        deadline_at=11.0 if live else None,
        relabel=NOW,
    )
    boxes = [face.box if face else (300.0, 100.0, 400.0, 220.0) for face in known]
    new = [thumbnail(50)] * len(known) if live else None
    return FaceCrops.for_frame(
        frame, boxes=boxes, scores=[0.8] * len(known), known=known, thumbnails=new, crop_px=8, seconds={}
    )


def labelled_in(record: FaceCrops) -> dict[int, Face]:
    faces = kept_faces(record.known, record.boxes, record.scores)
    for number in record.to_classify:
        faces[number] = Face(box=record.boxes[number], score=0.8, label="no_mask", confidence=0.6)
    return faces


@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_each_face_of_a_frame_is_either_kept_or_classified_and_is_known_afterwards(is_known: list[bool]) -> None:
    record = record_of([known_face() if one else None for one in is_known])

    faces = labelled_in(record)
    after = known_when_labelled(record, faces, "v1")

    assert [faces[number].fresh for number in range(len(faces))] == [not one for one in is_known]
    if all(is_known):
        with pytest.raises(BadMessage, match="no face is to be classified"):
            messages.decode(FaceCrops, messages.encode(record))
        return
    assert after
    assert [face.labelled_at_s for face in after.faces] == [9.9 if one else 10.0 for one in is_known]
    assert [face.thumbnail for face in after.faces] == [thumbnail(100 if one else 50) for one in is_known]
    assert messages.decode(FaceCrops, messages.encode(record)) == record


def test_of_a_file_faces_are_known_when_they_are_passed_on_without_their_labels() -> None:
    earlier = known_face(label=None, confidence=None, model=None, seq=0, number=3)
    record = record_of([earlier, None], live=False)

    after = known_when_passed_on(record, thumbnails(90, 50))

    assert after
    assert [(face.seq, face.number, face.thumbnail) for face in after.faces] == [
        (0, 3, thumbnail(100)),
        (1, 1, thumbnail(50)),
    ]
    assert recognize(after.faces, record.boxes, thumbnails(100, 50), NOW, "v1") == after.faces
    assert kept_faces(record.known, record.boxes, record.scores) == {}
    (same,) = same_faces(record.known, record.boxes, record.scores)
    assert (same.number, same.same_seq, same.same_number) == (0, 0, 3)
    assert known_when_passed_on(record_of([None]), thumbnails(50)) is None


def test_a_thumbnail_is_the_faces_brightness_in_64_places() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[20:50, 20:80] = 200

    assert thumbnails_of(image, np.array([[20, 20, 80, 80]], np.float32), 0.0).tolist() == [[200] * 32 + [0] * 32]
    assert thumbnails_of(image, np.empty((0, 4), np.float32), 0.0).shape == (0, 64)


SHARED = SharedPixels(pid=1, fd=3, token="0" * 32, slot=0, generation=2)
HUGE = ((0.0, 0.0, 20.0, 20.0), (-7000.0, 0.0, 7000.0, 100.0))
CONTRADICTIONS: dict[tuple[tuple[str, Any], ...], str] = {
    (("known", (None,)),): "2 boxes but 1 known",
    (("scores", (0.5,)),): "2 boxes but 1 scores",
    (("thumbnails", (b"t" * 64,)),): "2 boxes but 1 thumbnails",
    (("crop_boxes", ((0.0, 0.0, 1.0, 1.0),)),): "2 boxes but 1 crop_boxes",
    (("crop_boxes", (BOX, BOX)),): "no pixels to cut them from",
    (("crop_boxes", HUGE), ("shared", SHARED)): "not inside the frame",
}


def test_a_record_that_contradicts_itself_is_invalid() -> None:
    record = record_of([known_face(), None])

    for changes, error in CONTRADICTIONS.items():
        packed = messages.encode(msgspec.structs.replace(record, **dict(changes)))
        with pytest.raises(BadMessage, match=error):
            messages.decode(FaceCrops, packed)


def results(server: Server) -> list[FrameResult]:
    rows = cast(list[Any], server.client.xrange("{s0}:results"))
    found = [messages.decode(FrameResult, fields[b"record"]) for _, fields in rows]
    return [result for result in found if result.outcome == "labelled"]


def test_a_live_camera_labels_each_face_anew_only_now_and_then_unless_told_otherwise(
    server: Server, processes: Processes
) -> None:
    processes.start("detect", redis=server)
    processes.start("classify", redis=server)
    processes.start("camera", "demo", "--name", "some", "--fps", "10", redis=server)
    processes.start("camera", "demo", "--name", "every", "--fps", "10", "--relabel-s", "0", redis=server)

    def frames_of(camera: str) -> list[FrameResult]:
        return [result for result in results(server) if result.camera == camera and result.faces]

    wait_until(lambda: min(len(frames_of("some")), len(frames_of("every"))) >= 40, 60, "frames of both are labelled")

    assert all(face.fresh for result in frames_of("every") for face in result.faces)
    fresh = [face.fresh for result in frames_of("some") for face in result.faces]
    assert any(fresh)
    assert not all(fresh)
    assert any(result.faces and not any(face.fresh for face in result.faces) for result in frames_of("some"))
    labelled_at: dict[str, float] = {}
    for result in sorted(frames_of("some"), key=lambda one: one.captured_at):
        for number, face in enumerate(sorted(result.faces, key=lambda one: one.box[0])):
            if face.fresh or len(result.faces) != 5:
                labelled_at[str(number)] = result.captured_at
            assert result.captured_at - labelled_at.get(str(number), result.captured_at) < 0.25
