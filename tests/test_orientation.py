"""Boxes are on the faces of pictures that EXIF turns, or their pictures are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from annotated_folders import HEIGHT, WIDTH, coco, faces_of, read, voc, write_text
from PIL import Image

from trainer.data.decoding import decode_picture

BOX = (10, 20, 40, 60)  # in the stored picture, which is white there and black elsewhere
QUARTER_TURNS = (5, 6, 7, 8)


def write_turned(path: Path, orientation: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.new("RGB", size)
    picture.paste("white", BOX)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, exif=exif, quality=95)
    return path


def white_box(path: Path) -> tuple[int, ...]:
    """Return where a picture is white as it is trained on."""
    rows, columns = np.nonzero(decode_picture(path.read_bytes())[:, :, 0] > 127)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", QUARTER_TURNS)
def test_boxes_in_stored_coordinates_are_turned_with_the_picture(tmp_path: Path, orientation: int, suffix: str) -> None:
    picture = write_turned(tmp_path / f"a.{suffix}", orientation)
    write_text(tmp_path / "a.xml", voc(picture.name, "mask", boxes=[BOX]))

    assert faces_of(read(tmp_path)) == {picture.name: [("mask", white_box(picture))]}


@pytest.mark.parametrize("orientation", QUARTER_TURNS)
def test_boxes_in_turned_coordinates_stay_as_they_are(tmp_path: Path, orientation: int) -> None:
    picture = write_turned(tmp_path / "a.jpg", orientation)
    seen = white_box(picture)
    write_text(tmp_path / "a.xml", voc("a.jpg", "mask", size=(HEIGHT, WIDTH), boxes=[seen]))

    assert faces_of(read(tmp_path)) == {"a.jpg": [("mask", seen)]}


def test_the_size_in_a_coco_file_tells_too(tmp_path: Path) -> None:
    picture = write_turned(tmp_path / "a.jpg", 6)
    write_text(tmp_path / "a.json", coco([("a.jpg", [("mask", [10, 20, 30, 40])])]))

    assert faces_of(read(tmp_path)) == {"a.jpg": [("mask", white_box(picture))]}


@pytest.mark.parametrize(
    ("orientation", "size", "stored", "says"),
    [
        (1, (60, 40), (WIDTH, HEIGHT), "its boxes were drawn on 60x40 pixels, but it has 120x80"),
        (1, (HEIGHT, WIDTH), (WIDTH, HEIGHT), "its boxes were drawn on 80x120 pixels, but it has 120x80"),
        (6, (60, 40), (WIDTH, HEIGHT), "its boxes were drawn on 60x40 pixels, but it has 120x80"),
        (6, None, (WIDTH, HEIGHT), "no size says whether its boxes are turned: save it upright"),
        (6, (100, 100), (100, 100), "its size does not tell whether its boxes are: save it upright"),
        (3, (WIDTH, HEIGHT), (WIDTH, HEIGHT), "its size does not tell whether its boxes are: save it upright"),
    ],
)
def test_a_picture_is_refused_when_it_is_not_known_how_its_boxes_lie(
    tmp_path: Path, orientation: int, size: tuple[int, int] | None, stored: tuple[int, int], says: str
) -> None:
    write_turned(tmp_path / "turned.jpg", orientation, stored)
    write_text(tmp_path / "turned.xml", voc("turned.jpg", "mask", size=size, boxes=[BOX]))
    write_turned(tmp_path / "good.jpg", 1)
    write_text(tmp_path / "good.xml", voc("good.jpg", "mask", size=(0, 0), boxes=[BOX]))

    source = read(tmp_path)

    (problem,) = source.problems
    assert list(faces_of(source)) == ["good.jpg"]
    assert problem.startswith(f"{tmp_path}/turned.jpg: ")
    assert says in problem
