"""Boxes and texts on pictures of any size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.vision.arrays import Image
from pipeline.vision.drawing import COLOURS_BGR, NOTE_BGR, draw_faces, offline_image
from pipeline.vision.faces import Box, Face, Label, label_text


def face(label: Label = "mask", box: Box = (200, 150, 400, 350)) -> Face:
    return Face(box=box, score=0.9, label=label, confidence=0.957)


def grey(width: int = 640, height: int = 480) -> Image:
    return np.full((height, width, 3), 120, np.uint8)


def has(picture: Image, colour: tuple[int, int, int]) -> int:
    return int((picture == colour).all(axis=2).sum())


def test_the_text_contains_label_and_confidence() -> None:
    assert label_text("mask", 0.957) == "Mask (Confidence: 96%)"
    assert label_text("no_mask", 0.92) == "No Mask (Confidence: 92%)"


@pytest.mark.parametrize("label", ["mask", "no_mask"])
def test_a_box_has_the_colour_of_its_label(label: Label) -> None:
    drawn = draw_faces(grey(), [face(label)])

    assert tuple(drawn[250, 200]) == tuple(drawn[350, 300]) == COLOURS_BGR[label]


def test_a_face_without_a_mask_has_two_lines_round_it_and_one_with_a_mask_has_one() -> None:
    row = {label: draw_faces(grey(), [face(label)])[250, 190:260] for label in ("mask", "no_mask")}

    lines = {
        label: int(np.diff((pixels == COLOURS_BGR[label]).all(axis=1).astype(int)).clip(0).sum())
        for label, pixels in row.items()
    }

    assert lines == {"mask": 1, "no_mask": 2}


def test_the_two_colours_differ_in_lightness() -> None:
    lightness = {
        label: int(cv2.cvtColor(np.array([[colour]], np.uint8), cv2.COLOR_BGR2GRAY)[0, 0])
        for label, colour in COLOURS_BGR.items()
    }

    assert lightness["mask"] > 1.3 * lightness["no_mask"]


def test_the_picture_given_stays_as_it_was() -> None:
    frame = grey()

    drawn = draw_faces(frame, [face()])

    assert (frame == 120).all()
    assert not (drawn == 120).all()


def test_a_picture_without_faces_comes_back_equal_but_not_the_same() -> None:
    frame = grey()

    drawn = draw_faces(frame, [])

    assert drawn is not frame
    assert (drawn == frame).all()


@pytest.mark.parametrize("box", [(-50, -50, 60, 60), (600, 440, 700, 600), (0, 0, 640, 480), (630, 0, 640, 10)])
def test_a_text_stays_inside_the_picture_wherever_the_box_is(box: Box) -> None:
    wanted = has(draw_faces(grey(), [face(box=(300, 200, 301, 201))]), COLOURS_BGR["mask"])

    found = has(draw_faces(grey(), [face(box=box)]), COLOURS_BGR["mask"])

    assert found > 0.9 * wanted


def test_texts_of_neighbours_do_not_cover_each_other() -> None:
    neighbours = [face("mask", (100, 200, 140, 240)), face("no_mask", (150, 200, 190, 240))]

    drawn = draw_faces(grey(), neighbours)

    alone = [has(draw_faces(grey(), [one]), COLOURS_BGR[one.label]) for one in neighbours]
    together = [has(drawn, COLOURS_BGR[one.label]) for one in neighbours]
    assert together[0] > 0.9 * alone[0]
    assert together[1] > 0.9 * alone[1]


def test_a_note_is_at_the_lower_edge() -> None:
    drawn = draw_faces(grey(), [], note="not labelled right now")

    assert has(drawn[-40:], NOTE_BGR) > 500
    assert has(drawn[:-40], NOTE_BGR) == 0


def test_an_offline_image_is_dark_and_without_colour() -> None:
    colourful = np.zeros((480, 640, 3), np.uint8)
    colourful[..., 2] = 255

    offline = offline_image(colourful, "demo is offline")

    assert offline[:200].max() < 100
    assert (offline[:200, :, 0] == offline[:200, :, 2]).all()
    assert has(offline, NOTE_BGR) > 500


def test_an_offline_image_can_be_had_of_a_camera_that_never_sent_one() -> None:
    assert offline_image(None, "demo is offline").shape == (360, 640, 3)


whole = st.floats(-1e6, 1e6)


@given(
    st.integers(1, 80),
    st.integers(1, 80),
    st.lists(st.tuples(whole, whole, whole, whole), max_size=4),
    st.sampled_from(["mask", "no_mask"]),
)
def test_any_size_and_any_box_can_be_drawn(width: int, height: int, boxes: list[Box], label: Label) -> None:
    frame = grey(width, height)

    drawn = draw_faces(frame, [face(label, box) for box in boxes], note="not labelled right now")

    assert drawn.shape == frame.shape
    assert drawn.dtype == np.uint8
    assert offline_image(frame, "offline").shape == frame.shape
