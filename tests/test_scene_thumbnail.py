"""Thumbnails are small, show what an event is about, and hide faces for good if asked to."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.vision.arrays import Image
from pipeline.vision.faces import Box
from pipeline.vision.jpeg import decode_jpeg
from pipeline.vision.scene_thumbnail import BLUR_CELLS, MAX_BYTES, MAX_SIDE_PX, scene_thumbnail

FACE: Box = (600.0, 300.0, 680.0, 400.0)
EDGE: Box = (-30.0, -20.0, 40.0, 60.0)


def noise(width: int, height: int) -> Image:
    """Return an image of which every detail counts, and that compresses badly."""
    pixels: Image = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    return pixels


@pytest.mark.parametrize("boxes", [[], [FACE], [FACE, EDGE], [(2_000.0, 0.0, 2_100.0, 90.0)]], ids=str)
@pytest.mark.parametrize("size", [(1_280, 720), (320, 200), (40, 30), (1, 1)], ids=str)
def test_a_thumbnail_is_small_whatever_the_frame_and_the_faces(size: tuple[int, int], boxes: list[Box]) -> None:
    jpeg = scene_thumbnail(noise(*size), boxes, boxes)

    height, width = decode_jpeg(jpeg).shape[:2]
    assert max(width, height) <= min(MAX_SIDE_PX, max(size))
    assert len(jpeg) <= 1.5 * MAX_BYTES


def test_a_thumbnail_shows_the_faces_and_what_is_around_them() -> None:
    image = np.zeros((720, 1_280, 3), np.uint8)
    image[300:400, 600:680] = 255

    shown = decode_jpeg(scene_thumbnail(image, [FACE], []))

    share = (shown[..., 0] > 127).mean()
    assert share == pytest.approx(80 * 100 / (480 * 500), abs=0.01)


def test_of_a_blurred_face_only_a_few_colours_are_left() -> None:
    faces = [noise(80, 100), noise(80, 100)[:, ::-1]]
    images = []
    for one in faces:
        image = np.full((720, 1_280, 3), 127, np.uint8)
        image[300:400, 600:680] = one
        images.append(decode_jpeg(scene_thumbnail(image, [FACE], [FACE])))

    plain = decode_jpeg(scene_thumbnail(np.ascontiguousarray(image), [FACE], []))

    assert cv2.absdiff(images[0], images[1]).max() < 60  # of faces that have nothing in common
    assert images[0].std() < plain.std() / 3
    assert BLUR_CELLS <= 4


def test_faces_that_are_not_shown_are_blurred_too() -> None:
    image = np.full((720, 1_280, 3), 127, np.uint8)
    image[300:400, 750:830] = noise(80, 100)

    hidden, plain = (decode_jpeg(scene_thumbnail(image, [FACE], boxes)) for boxes in ([FACE, (750, 300, 830, 400)], []))

    assert hidden.std() < plain.std() / 3


def test_the_frame_itself_is_not_changed() -> None:
    image = noise(640, 360)
    before = image.copy()

    scene_thumbnail(image, [EDGE], [EDGE])

    assert np.array_equal(image, before)
