"""COCO's annotations are read as Roboflow and COCO's own tools write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from annotated_folders import coco, faces_of, read, write_photograph, write_text
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.annotations import DatasetUnusable

BBOX, BOX = [10, 20, 30, 40], (10, 20, 40, 60)
MASK = [("mask", BOX)]
NO_MASK = [("no_mask", BOX)]


@pytest.mark.parametrize(
    ("file", "picture", "name"),
    [
        ("train/_annotations.coco.json", "train/a.jpg", "a.jpg"),
        ("annotations/instances_train2017.json", "train2017/a.jpg", "a.jpg"),
        ("annotations/instances_default.json", "images/a.jpg", "a.jpg"),
        ("result.json", "images/a.jpg", "images\\a.jpg"),
        ("labels.json", "data/deep/a.jpg", "/home/me/data/deep/a.jpg"),
    ],
)
def test_annotations_may_be_in_the_layout_of_each_tool(tmp_path: Path, file: str, picture: str, name: str) -> None:
    write_photograph(tmp_path / picture)
    write_text(tmp_path / file, coco([(name, [("mask", BBOX), ("no-mask", BBOX)])]))

    source = read(tmp_path)

    assert faces_of(source) == {"a.jpg": MASK + NO_MASK}
    assert source.problems == ()


def test_splits_with_equal_names_keep_their_own_annotations(tmp_path: Path) -> None:
    for split, name in (("train2017", "mask"), ("val2017", "no_mask")):
        write_photograph(tmp_path / split / "1.jpg")
        write_text(tmp_path / "annotations" / f"instances_{split}.json", coco([("1.jpg", [(name, BBOX)])]))

    items = {item.path.parent.name: item.faces[0].worn for item in read(tmp_path).items}

    assert items == {"train2017": "mask", "val2017": "no_mask"}


def test_a_category_that_no_object_has_needs_no_meaning(tmp_path: Path) -> None:
    document = json.loads(coco([("a.jpg", [("mask", BBOX)])]))
    document["categories"].append({"id": 7, "name": "faces-and-masks", "supercategory": "none"})
    write_photograph(tmp_path / "a.jpg")
    write_text(tmp_path / "_annotations.coco.json", json.dumps(document))

    assert faces_of(read(tmp_path)) == {"a.jpg": MASK}


def test_an_object_without_a_bbox_has_the_box_round_its_polygons(tmp_path: Path) -> None:
    polygons = [[10, 20, 30, 25, 20, 60], [15, 30, 40, 40, 12, 50]]
    write_photograph(tmp_path / "a.jpg")
    write_text(tmp_path / "a.json", coco([("a.jpg", [("mask", [])])], segmentation=polygons))

    assert faces_of(read(tmp_path)) == {"a.jpg": MASK}


@pytest.mark.parametrize(
    ("bbox", "says"),
    [
        ([10, 20, 0, 40], "has no area"),
        ([10, 20, float("nan"), 40], "not finite"),
        ([10, 20, 30], "has 3 numbers instead of 4"),
        ([10, 20, "wide", 40], "is unusable"),
        (None, "neither a bbox nor polygons"),
    ],
)
def test_an_object_whose_box_cannot_be_used_is_left_out_of_its_picture(tmp_path: Path, bbox: object, says: str) -> None:
    write_photograph(tmp_path / "a.jpg")
    write_text(tmp_path / "a.json", coco([("a.jpg", [("mask", BBOX), ("mask", bbox)])]))

    source = read(tmp_path)

    (problem,) = source.problems
    assert faces_of(source) == {"a.jpg": MASK}
    assert problem.startswith(f"{tmp_path}/a.json: a.jpg: ")
    assert says in problem


def test_pictures_that_are_missing_or_not_listed_get_a_line_each(tmp_path: Path) -> None:
    document = json.loads(coco([("a.jpg", [("mask", BBOX)]), ("gone.jpg", [("mask", BBOX)])]))
    document["annotations"].append({"id": 9, "image_id": 99, "category_id": 0, "bbox": BBOX})
    write_photograph(tmp_path / "a.jpg")
    write_photograph(tmp_path / "alone.jpg")
    write_text(tmp_path / "a.json", json.dumps(document))

    source = read(tmp_path)

    assert [problem.replace(f"{tmp_path}/", "") for problem in source.problems] == [
        "a.json: its picture gone.jpg is missing: left out",
        "a.json: image 99 has objects, but is not listed: left out",
        "alone.jpg has no annotation: left out",
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40)
@given(bbox=JSON, segmentation=JSON)
def test_any_json_in_place_of_a_box_gives_a_face_or_a_line(
    tmp_path_factory: pytest.TempPathFactory, bbox: object, segmentation: object
) -> None:
    folder = tmp_path_factory.mktemp("coco")
    write_photograph(folder / "a.jpg")
    objects = [("mask", BBOX), ("mask", bbox)]
    write_text(folder / "a.json", coco([("a.jpg", objects)], segmentation=segmentation))

    source = read(folder)

    assert len(source.items[0].faces) + len(source.boxes) == 2
    assert all("\n" not in problem for problem in source.problems)


@pytest.mark.parametrize(
    "content", ['{"images": [', "[]", '{"images": [{"id": 1}], "annotations": [], "categories": []}']
)
def test_a_file_that_is_damaged_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    write_photograph(tmp_path / "a.jpg")
    write_text(tmp_path / "_annotations.coco.json", content)

    with pytest.raises(DatasetUnusable, match="is not a COCO file that can be read") as error:
        read(tmp_path)

    assert "\n" not in str(error.value)
