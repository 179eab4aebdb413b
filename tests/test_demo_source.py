"""The demo: the same frames from one seed, numbers that survive JPEG, faces that are found and labelled rightly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import missing
from frame_number import MAX_NUMBER, read_number
from hypothesis import given, settings
from hypothesis import strategies as st

from models.classifier import mask_classifier
from models.detector import face_detector
from pipeline.vision.jpeg import decode_jpeg, encode_jpeg
from producer.sources.demo import people
from producer.sources.demo.frame_number import BLOCK_PX, write_number
from producer.sources.demo.people import FACE, PHOTOGRAPH, Person
from producer.sources.demo.scene import Scene
from producer.sources.source import SourceFailed
from producer.sources.source_spec import parse_source

FPS = 20.0
LOOKED_AT = range(0, 600, 12)  # half a minute of the scene, in which every mask goes off and on


@pytest.fixture(scope="module")
def scene() -> Scene:
    if not PHOTOGRAPH.is_file():
        missing(f"{PHOTOGRAPH} is missing: run `make setup`")
    return Scene(fps=FPS, seed=0)


@pytest.fixture(scope="module")
def detector() -> face_detector.FaceDetector:
    return face_detector.load_detector()


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundTruth:
    """What a detector should find. masked: None while the mask is being put on or taken off."""

    box: tuple[float, float, float, float]
    masked: bool | None


def ground_truths(scene: Scene, index: int) -> list[GroundTruth]:
    """Return the faces in frame `index`, in the order of ACTORS."""
    found = []
    for number, person in enumerate(scene.people):
        mask_off = scene.mask_off(number, index)
        masked = None if 0 < mask_off < 1 else mask_off == 0
        found.append(GroundTruth(box=face_box(person, *scene.pose(number, index)), masked=masked))
    return found


def face_box(person: Person, x: float, y: float, rotation_degrees: float) -> tuple[float, float, float, float]:
    """Return the box of the face in the frame, x1, y1, x2, y2."""
    to_frame = person.to_frame(x, y, rotation_degrees)
    corners = np.array([(FACE[0], FACE[1]), (FACE[2], FACE[1]), (FACE[2], FACE[3]), (FACE[0], FACE[3])], np.float32)
    middle_x, middle_y = (corners @ to_frame[:, :2].T + to_frame[:, 2]).mean(axis=0)
    half_width, half_height = person.scale * (FACE[2] - FACE[0]) / 2, person.scale * (FACE[3] - FACE[1]) / 2
    return middle_x - half_width, middle_y - half_height, middle_x + half_width, middle_y + half_height


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the intersection of two boxes over their union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def nearest(truth: GroundTruth, boxes: np.ndarray) -> int | None:
    """Return which of the boxes is the face, None when none is."""
    overlaps = [overlap(truth.box, tuple(box)) for box in boxes]
    return int(np.argmax(overlaps)) if overlaps and max(overlaps) > 0.4 else None


def test_the_same_seed_and_index_give_the_same_frame_and_others_another(scene: Scene) -> None:
    frame = scene.render(77)

    again = Scene(fps=FPS, seed=0).render(77)
    others = [scene.render(78), Scene(fps=FPS, seed=1).render(77)]

    assert (frame.shape, frame.dtype) == ((720, 1280, 3), np.uint8)
    assert np.array_equal(frame, again)
    assert not any(np.array_equal(frame, other) for other in others)


def test_rendering_a_frame_leaves_no_trace_in_the_next(scene: Scene) -> None:
    before = scene.render(5)

    scene.render(400)[:] = 0

    assert np.array_equal(scene.render(5), before)


def test_every_face_of_the_demo_is_found(scene: Scene, detector: face_detector.FaceDetector) -> None:
    found = np.zeros(len(ground_truths(scene, 0)))

    for index in LOOKED_AT:
        boxes = detector.find(scene.render(index)).boxes
        found += [nearest(truth, boxes) is not None for truth in ground_truths(scene, index)]

    assert (found / len(LOOKED_AT) > 0.95).all()


def test_the_demo_s_masks_are_labelled_mask_and_its_bare_faces_no_mask(
    scene: Scene, detector: face_detector.FaceDetector
) -> None:
    classifier = mask_classifier.load_classifier()
    right: dict[bool, list[bool]] = {True: [], False: []}

    for index in LOOKED_AT:
        frame = scene.render(index)
        boxes = detector.find(frame).boxes
        crops = mask_classifier.crop_faces(frame, boxes, classifier.card.size_px, classifier.card.margin)
        masked = classifier.mask_probability(crops) > 0.5
        for truth in ground_truths(scene, index):
            at = nearest(truth, boxes)
            if truth.masked is not None and at is not None:
                right[truth.masked].append(bool(masked[at] == truth.masked))

    assert np.mean(right[True]) > 0.9
    assert np.mean(right[False]) > 0.9


def test_every_numbered_frame_carries_its_index_and_the_scene_otherwise_stays() -> None:
    numbered, plain = parse_source("demo:numbered,frames=3").open(), parse_source("demo:frames=3").open()

    pairs = list(zip(numbered, plain, strict=True))

    assert numbered.total == 3
    assert [read_number(source_frame.image) for source_frame, _ in pairs] == [0, 1, 2]
    assert [read_number(source_frame.image) for _, source_frame in pairs] == [None] * 3
    assert all(np.array_equal(one.image[2 * BLOCK_PX :], two.image[2 * BLOCK_PX :]) for one, two in pairs)


@settings(deadline=None)
@given(number=st.integers(0, MAX_NUMBER), quality=st.integers(40, 100), seed=st.integers(0, 2**32 - 1))
def test_a_number_survives_jpeg_over_any_picture(number: int, quality: int, seed: int) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (48, 400, 3), np.uint8)

    write_number(frame, number)

    assert read_number(decode_jpeg(encode_jpeg(frame, quality))) == number


@settings(deadline=None)
@given(one=st.integers(0, MAX_NUMBER), other=st.integers(0, MAX_NUMBER))
def test_a_mixture_of_two_frames_reads_as_one_of_them_or_as_none(one: int, other: int) -> None:
    torn = np.zeros((40, 400, 3), np.uint8)
    below = torn.copy()
    write_number(torn, one)
    write_number(below, other)

    torn[BLOCK_PX:] = below[BLOCK_PX:]

    assert read_number(torn) == (one if one == other else None)


@pytest.mark.parametrize("shape", [(720, 1280, 3), (10, 10, 3), (1, 1, 3)])
def test_a_frame_without_a_number_has_none(shape: tuple[int, int, int]) -> None:
    assert read_number(np.full(shape, 128, np.uint8)) is None


@pytest.mark.parametrize("text", ["demo:colour", "demo:frames=0", "demo:frames=many"])
def test_an_unknown_parameter_of_the_demo_is_named(text: str) -> None:
    with pytest.raises(SourceFailed, match="is not a parameter of the demo"):
        parse_source(text).open()


def test_a_missing_photograph_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(SourceFailed, match="make setup"):
        people.load_photograph(tmp_path / "astronaut.png")
