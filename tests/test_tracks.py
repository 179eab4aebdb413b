"""Faces followed from frame to frame, and labels that are steady but not slow."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.other_trackers import tracker_of_ours
from bench.track_scenes import TrackScene, crossing, pillar, queue, turning
from bench.tracks import measure
from pipeline.vision.faces import MAX_FACES, Box, Face, Label
from pipeline.vision.tracks import MAX_GAP_S, FaceTracker, TrackedFace, TrackerState

HERE = (100.0, 100.0, 200.0, 220.0)
MAX_SWITCHES = 4  # in a made scene of a minute with people who come and go
THERE = (400.0, 100.0, 500.0, 220.0)


def face(label: Label = "mask", confidence: float = 0.97, box: Box = HERE) -> Face:
    return Face(box=box, score=0.9, label=label, confidence=confidence)


def moved(box: Box, by_px: float) -> Box:
    return (box[0] + by_px, box[1], box[2] + by_px, box[3])


def after_a_second_with_a_mask(fps: float) -> tuple[FaceTracker, float]:
    tracks = FaceTracker()
    for frame in range(round(fps)):
        tracks.update([face()], frame / fps)
    return tracks, (round(fps) - 1) / fps


@pytest.mark.parametrize("fps", [5, 20])
@pytest.mark.parametrize("confidence", [0.99, 0.75])
def test_a_mask_taken_off_shows_within_a_second(fps: float, confidence: float) -> None:
    tracks, last_s = after_a_second_with_a_mask(fps)

    labels = [
        tracks.update([face("no_mask", confidence)], last_s + frame / fps)[0].label
        for frame in range(1, round(fps) + 1)
    ]

    assert labels[-1] == "no_mask"


@pytest.mark.parametrize("fps", [5, 20])
def test_a_single_flicker_does_not_show(fps: float) -> None:
    tracks, last_s = after_a_second_with_a_mask(fps)

    (flicker,) = tracks.update([face("no_mask", 0.99)], last_s + 1 / fps)
    (after,) = tracks.update([face()], last_s + 2 / fps)

    assert flicker.label == after.label == "mask"
    assert flicker.confidence < after.confidence


def test_a_label_that_has_changed_does_not_go_back_for_one_frame() -> None:
    tracks, last_s = after_a_second_with_a_mask(10)
    at_s, turned = last_s, face()
    while turned.label == "mask":
        at_s += 0.1
        (turned,) = tracks.update([face("no_mask")], at_s)

    (flicker,) = tracks.update([face("mask", 0.99)], at_s + 0.1)

    assert turned.confidence == pytest.approx(0.97)
    assert flicker.label == "no_mask"


@pytest.mark.parametrize("fps", [5, 10, 20])
def test_a_label_that_changes_says_since_when_frames_show_it_also_with_a_wrong_one_between(fps: float) -> None:
    tracks, last_s = after_a_second_with_a_mask(fps)
    before: list[Label] = ["no_mask"] * max(2, round(fps / 5))
    labels: list[Label] = [*before, "mask", *before, *before, *before]

    found = [tracks.update([face(label)], last_s + number / fps)[0] for number, label in enumerate(labels, start=1)]

    said = {one.turned_at_s for one in found if one.turned_at_s is not None}
    assert said == {last_s + 1 / fps}
    assert all(one.turned_at_s is None for one in found if one.label == "mask")
    assert found[-1].turned_at_s is None  # that is longer ago


@pytest.mark.parametrize("fps", [1, 2, 5, 20])
def test_one_sure_wrong_label_of_an_unsure_face_does_not_show(fps: float) -> None:
    tracks = FaceTracker()
    for frame in range(10):
        tracks.update([face("no_mask", 0.55)], frame / fps)

    found = [
        tracks.update([face("mask" if frame == 10 else "no_mask", 0.99 if frame == 10 else 0.55)], frame / fps)[0]
        for frame in range(10, 30)
    ]

    assert {one.label for one in found} == {"no_mask"}


@pytest.mark.parametrize("confidence", [0.99, 0.55])
def test_of_a_slow_camera_two_frames_change_a_label(confidence: float) -> None:
    tracks, last_s = after_a_second_with_a_mask(5)

    found = [tracks.update([face("no_mask", confidence)], last_s + second)[0] for second in (1, 2)]

    assert [one.label for one in found] == ["mask", "no_mask"]
    assert found[1].turned_at_s == last_s + 1


def test_a_wrong_label_long_before_a_change_is_not_its_begin() -> None:
    tracks, last_s = after_a_second_with_a_mask(10)
    labels: list[Label] = ["no_mask", "mask", "mask", "no_mask", "no_mask", "no_mask"]

    found = [tracks.update([face(label)], last_s + number / 10)[0] for number, label in enumerate(labels, start=1)]

    assert (found[-1].label, found[-1].turned_at_s) == ("no_mask", last_s + 0.4)


def test_a_face_keeps_its_track_while_it_moves() -> None:
    tracks = FaceTracker()

    numbers = [tracks.update([face(box=moved(HERE, 20 * frame))], frame / 5)[0].track for frame in range(10)]

    assert set(numbers) == {1}


def test_two_faces_in_another_order_keep_their_tracks_and_labels() -> None:
    tracks = FaceTracker()
    first = tracks.update([face("mask", box=HERE), face("no_mask", box=THERE)], 0.0)

    second = tracks.update([face("no_mask", box=THERE), face("mask", box=HERE)], 0.1)

    assert [one.track for one in second] == [first[1].track, first[0].track]
    assert [one.label for one in second] == ["no_mask", "mask"]


def test_a_face_goes_to_the_nearest_track() -> None:
    tracks = FaceTracker()
    tracks.update([face(box=HERE), face(box=moved(HERE, 60))], 0.0)

    after = tracks.update([face(box=moved(HERE, 50)), face(box=moved(HERE, -10))], 0.1)

    assert [one.track for one in after] == [2, 1]


def test_a_face_that_was_away_for_long_is_a_new_one() -> None:
    tracks = FaceTracker()
    tracks.update([face()], 0.0)

    (back_soon,) = tracks.update([face()], MAX_GAP_S)
    (back_late,) = tracks.update([face("no_mask")], 2 * MAX_GAP_S + 0.1)

    assert (back_soon.track, back_late.track) == (1, 2)
    assert back_late.label == "no_mask"


def test_tracks_are_numbered_by_the_frame_that_they_begin_in() -> None:
    early, late = FaceTracker(), FaceTracker()
    early.update([face()], 0.0, seq=10)

    first = early.update([face(), face(box=THERE)], 0.1, seq=11)
    second = late.update([face(), face(box=THERE)], 0.1, seq=11)

    assert [one.track for one in first] == [10 * MAX_FACES, 11 * MAX_FACES + 1]
    assert first[1].track == second[1].track


@pytest.mark.parametrize("fps", [5, 20])
@pytest.mark.parametrize("make", [crossing, pillar, queue, turning])
def test_people_who_cross_hide_and_turn_keep_their_tracks(make: Callable[[float, int], TrackScene], fps: float) -> None:
    scene = make(fps, 1)

    found = measure(scene, tracker_of_ours(fps))

    assert found.switches <= MAX_SWITCHES
    assert found.counted == pytest.approx(found.truth, abs=3)


def test_a_face_behind_a_pillar_for_two_seconds_keeps_its_track_and_one_elsewhere_does_not() -> None:
    tracks = FaceTracker()
    for frame in range(20):
        tracks.update([face(box=moved(HERE, 10 * frame))], frame / 10)

    behind = tracks.update([face(box=moved(HERE, 10 * 40)), face(box=HERE)], 4.0)

    assert [one.track for one in behind] == [1, 2]


def test_a_state_that_was_stored_is_continued() -> None:
    tracks = FaceTracker()
    for frame in range(10):
        tracks.update([face(box=moved(HERE, 20 * frame))], frame / 5)

    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(tracks.state), type=TrackerState)
    boxes = [face(box=moved(HERE, 300)), face(box=HERE)]

    assert FaceTracker(stored).update(boxes, 3.0) == tracks.update(boxes, 3.0)


def test_a_frame_of_the_same_moment_changes_nothing() -> None:
    tracks = FaceTracker()
    (first,) = tracks.update([face()], 1.0)

    (again,) = tracks.update([face("no_mask")], 1.0)

    assert (again.track, again.label, again.confidence) == (first.track, "mask", first.confidence)


def test_a_frame_without_faces_is_fine() -> None:
    assert FaceTracker().update([], 0.0) == []


sides = st.floats(-10, 700)
faces = st.lists(
    st.builds(
        Face,
        box=st.tuples(sides, sides, sides, sides),
        score=st.floats(0, 1),
        label=st.sampled_from(["mask", "no_mask"]),
        confidence=st.floats(0.5, 1),
    ),
    max_size=6,
)


@given(st.lists(st.tuples(faces, st.floats(0, 2)), max_size=8))
def test_whatever_comes_each_face_has_its_own_track_and_at_least_even_confidence(
    frames: list[tuple[list[Face], float]],
) -> None:
    tracks, now = FaceTracker(), 0.0

    for given_faces, gap_s in frames:
        now += gap_s
        tracked: list[TrackedFace] = tracks.update(given_faces, now)

        assert [one.box for one in tracked] == [one.box for one in given_faces]
        assert len({one.track for one in tracked}) == len(tracked)
        assert all(0.5 <= one.confidence <= 1 for one in tracked)
