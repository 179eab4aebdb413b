"""YOLO's labels are read in the layouts of its tools, and numbers mean what their data set says."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

import pytest
from annotated_folders import faces_of, read, write_photograph, write_text
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trainer.data.annotations import DatasetUnusable
from trainer.data.faces import find_faces

# In a picture of 120 x 80 pixels, and as its box in pixels.
LINE, BOX = "0.25 0.5 0.25 0.5", (15, 20, 45, 60)
OTHER_LINE, OTHER_BOX = "0.75 0.5 0.5 1", (60, 0, 120, 80)
FACES = [("no_mask", BOX), ("mask", OTHER_BOX)]


def write_labels(picture: Path, labels: Path, *lines: str) -> None:
    write_photograph(picture)
    write_text(labels, "".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.txt", "no-mask\r\nmask\r\n\r\n"),
        ("labels/classes.txt", "no-mask\nmask"),
        ("obj.names", "no_mask\nmask\n"),
        ("_darknet.labels", "no mask\nmask\n"),
        ("data.yaml", "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['no-mask', 'mask']\n"),
        ("faces.yml", "path: ../faces\ntrain: images\nnames:\n  0: no_mask  # bare\n  1: mask\n"),
        ("data.yaml", "names:\n- No Mask\n- 'Mask'\nroboflow:\n  license: CC BY 4.0\n"),
    ],
)
def test_numbers_have_the_names_that_the_data_set_gives_them(tmp_path: Path, name: str, content: str) -> None:
    write_labels(tmp_path / "images" / "a.jpg", tmp_path / "labels" / "a.txt", f"0 {LINE}", f"1 {OTHER_LINE}")
    write_text(tmp_path / name, content)

    source = read(tmp_path)

    assert faces_of(source) == {"a.jpg": FACES}
    assert source.problems == ()


@pytest.mark.parametrize(
    ("picture", "labels", "given"),
    [
        ("images/train/a.jpg", "labels/train/a.txt", ""),
        ("train/images/a.jpg", "train/labels/a.txt", ""),
        ("train/images/a.jpg", "train/labels/a.txt", "train"),
        ("obj_train_data/a.jpg", "obj_train_data/a.txt", ""),
        ("a.jpg", "a.txt", ""),
    ],
)
def test_labels_may_be_in_the_layout_of_each_tool(tmp_path: Path, picture: str, labels: str, given: str) -> None:
    write_labels(tmp_path / picture, tmp_path / labels, f"0 {LINE}", f"1 {OTHER_LINE}")
    write_text(tmp_path / "data.yaml", "names: [face, face_mask]")
    write_text(tmp_path / "train.txt", picture)
    write_text(tmp_path / "README.roboflow.txt", "Exported by a tool.")

    source = read(tmp_path / given)

    assert faces_of(source) == {"a.jpg": FACES}
    assert source.problems == ()


def test_splits_with_equal_names_keep_their_own_labels(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "valid")):
        write_labels(tmp_path / split / "images" / "1.jpg", tmp_path / split / "labels" / "1.txt", f"{number} {LINE}")
        write_labels(tmp_path / "images" / split / "2.jpg", tmp_path / "labels" / split / "2.txt", f"{number} {LINE}")
    write_text(tmp_path / "data.yaml", "names: [mask, no_mask]")

    items = {str(item.path.relative_to(tmp_path)): item.faces[0].worn for item in read(tmp_path).items}

    assert items == {
        "train/images/1.jpg": "mask",
        "valid/images/1.jpg": "no_mask",
        "images/train/2.jpg": "mask",
        "images/valid/2.jpg": "no_mask",
    }


@pytest.mark.parametrize(
    "line",
    [
        "0 0.125 0.25 0.375 0.25 0.375 0.75 0.125 0.75",  # corners of a box
        "0 0.25 0.25 0.375 0.5 0.125 0.75",  # a triangle
        f"0 {LINE} 0.93",  # with a score
        f"0.0 {LINE}",
    ],
)
def test_a_polygon_becomes_the_box_round_it_and_a_score_is_no_part_of_a_box(tmp_path: Path, line: str) -> None:
    write_labels(tmp_path / "a.jpg", tmp_path / "a.txt", line)
    write_text(tmp_path / "classes.txt", "no_mask")

    assert faces_of(read(tmp_path)) == {"a.jpg": [("no_mask", BOX)]}


def test_numbers_without_names_are_refused_until_the_user_says_what_they_mean(tmp_path: Path) -> None:
    write_labels(tmp_path / "images" / "a.jpg", tmp_path / "labels" / "a.txt", f"0 {LINE}", f"1 {OTHER_LINE}")

    with pytest.raises(DatasetUnusable, match=r"named 0, 1; .*data\.yaml or classes\.txt .* --map '0=mask\|no_mask"):
        read(tmp_path)
    assert faces_of(read(tmp_path, "0=no_mask", "1=mask")) == {"a.jpg": FACES}


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"data.yaml": "names: [mask"}, "its class names cannot be read"),
        ({"data.yaml": "names: {first: mask}"}, "its class names cannot be read"),
        ({"classes.txt": "mask\nno_mask", "data.yaml": "names: [no_mask, mask]"}, "name the classes differently"),
    ],
)
def test_names_that_are_damaged_or_contradict_each_other_are_refused(
    tmp_path: Path, names: dict[str, str], says: str
) -> None:
    write_labels(tmp_path / "a.jpg", tmp_path / "a.txt", f"0 {LINE}")
    for name, content in names.items():
        write_text(tmp_path / name, content)

    with pytest.raises(DatasetUnusable, match=says) as error:
        read(tmp_path)

    assert "\n" not in str(error.value)


def test_what_cannot_be_used_of_labels_gets_a_line_each(tmp_path: Path) -> None:
    write_labels(
        tmp_path / "a.jpg", tmp_path / "a.txt", f"0 {LINE}", "0 0.5 0.5", "0 x y z w", "0 -1 -1 0.5 0.5 0.1 0.1"
    )
    write_photograph(tmp_path / "background.jpg")
    write_text(tmp_path / "gone.txt", f"0 {LINE}")
    write_text(tmp_path / "classes.txt", "mask")

    source = read(tmp_path)

    assert faces_of(source) == {"a.jpg": [("mask", BOX)]}
    assert [problem.replace(f"{tmp_path}/", "") for problem in source.problems] == [
        "gone.txt: its picture gone is missing: left out",
        "a.txt: a line with [0.5, 0.5] has no box: left out",
        "a.txt: could not convert string to float: 'x': left out",
        "a.txt: the polygon [-1.0, -1.0, 0.5, 0.5, 0.1, 0.1] is not inside the picture: left out",
        "background.jpg has no annotation: left out",
    ]


def test_damaged_exif_data_do_not_move_a_box(tmp_path: Path) -> None:
    Image.new("RGB", (120, 80)).save(tmp_path / "a.jpg", exif=b"Exif\0\0damaged")
    write_text(tmp_path / "a.txt", f"0 {LINE}")
    write_text(tmp_path / "classes.txt", "mask")

    assert faces_of(read(tmp_path)) == {"a.jpg": [("mask", BOX)]}


def test_a_picture_that_cannot_be_read_is_reported_where_it_is_decoded(tmp_path: Path) -> None:
    write_text(tmp_path / "a.jpg", "no picture")
    write_text(tmp_path / "a.txt", f"0 {LINE}")
    write_text(tmp_path / "classes.txt", "mask")
    source = read(tmp_path)

    (found,) = find_faces(source.items, source.name, source.collection)

    assert found.problems == (f"{tmp_path}/a.jpg is not a picture that can be read: left out",)


@given(lines=st.lists(st.lists(st.text("0123456789.-einfa ", max_size=12), max_size=12), max_size=5))
def test_any_text_in_labels_gives_faces_or_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("labels")
    write_labels(folder / "a.jpg", folder / "a.txt", f"0 {LINE}", *map(" ".join, lines))
    write_text(folder / "classes.txt", "mask")

    with suppress(DatasetUnusable):
        source = read(folder)

        assert all(math.isfinite(number) for item in source.items for face in item.faces for number in face.box)
        assert all("\n" not in problem for problem in source.problems)


def test_shares_are_of_the_picture_as_it_is_seen(tmp_path: Path) -> None:
    write_photograph(tmp_path / "a.jpg", orientation=6)
    write_text(tmp_path / "a.txt", f"0 {LINE}")
    write_text(tmp_path / "classes.txt", "mask")

    assert faces_of(read(tmp_path)) == {"a.jpg": [("mask", (10, 30, 30, 90))]}
