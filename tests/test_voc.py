"""Pascal VOC annotations are read as every tool writes them, and each picture gets its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from annotated_folders import BOX, faces_of, read, voc, write_photograph, write_text

from trainer.data.annotations import DatasetUnusable

MASK = [("mask", BOX)]
NO_MASK = [("no_mask", BOX)]


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("annotations", "images"),
        ("Annotations", "JPEGImages"),
        ("VOCdevkit/VOC2007/Annotations", "VOCdevkit/VOC2007/JPEGImages"),
        ("train/labels_xml", "train/photos"),
        ("train", "train"),
        ("", ""),
    ],
)
def test_annotations_and_pictures_may_be_in_any_folders(tmp_path: Path, annotations: str, images: str) -> None:
    write_photograph(tmp_path / images / "a.jpg")
    write_text(tmp_path / annotations / "a.xml", voc("a.jpg", "with_mask", "without_mask"))

    source = read(tmp_path)

    assert faces_of(source) == {"a.jpg": MASK + NO_MASK}
    assert source.problems == ()


def test_pictures_of_one_name_belong_to_the_annotations_of_their_own_split(tmp_path: Path) -> None:
    for split, name in (("train", "with_mask"), ("val", "without_mask")):
        write_photograph(tmp_path / split / "images" / "1.jpg")
        write_text(tmp_path / split / "annotations" / "1.xml", voc("1.jpg", name))
        write_photograph(tmp_path / "other" / "images" / split / "2.jpg")
        write_text(tmp_path / "other" / "annotations" / split / "2.xml", voc("2.jpg", name))

    items = {str(item.path.relative_to(tmp_path)): item.faces[0].worn for item in read(tmp_path).items}

    assert items == {
        "train/images/1.jpg": "mask",
        "val/images/1.jpg": "no_mask",
        "other/images/train/2.jpg": "mask",
        "other/images/val/2.jpg": "no_mask",
    }


@pytest.mark.parametrize(
    "filename",
    [
        "photo 1.jpg",
        "photo 1",
        "photo 1.xml",
        "PHOTO 1.JPG",
        "photo 1.png",
        "\n        photo 1.jpg\n    ",
        r"C:\Users\me\faces\photo 1.jpg",
        r"..\photo 1.jpg",
        "/home/me/faces/photo 1.jpg",
        "another name.jpg",
        "",
    ],
)
def test_a_picture_is_found_whatever_is_written_as_its_name(tmp_path: Path, filename: str) -> None:
    write_photograph(tmp_path / "images" / "photo 1.jpg")
    write_text(tmp_path / "annotations" / "photo 1.xml", voc(filename, "with_mask"))

    source = read(tmp_path)

    assert faces_of(source) == {"photo 1.jpg": MASK}


def test_a_picture_is_found_by_the_name_that_is_written_before_that_of_the_file(tmp_path: Path) -> None:
    write_photograph(tmp_path / "images" / "v1.2.jpg")
    write_photograph(tmp_path / "images" / "v1.jpg")
    write_text(tmp_path / "annotations" / "1.xml", voc("v1.2", "with_mask"))
    write_text(tmp_path / "annotations" / "2.xml", voc("v1", "without_mask"))

    assert faces_of(read(tmp_path)) == {"v1.2.jpg": MASK, "v1.jpg": NO_MASK}


def test_a_name_of_two_pictures_is_not_guessed(tmp_path: Path) -> None:
    for suffix in ("jpg", "png"):
        write_photograph(tmp_path / "images" / f"a.{suffix}")
    write_text(tmp_path / "annotations" / "a.xml", voc("a", "with_mask"))
    write_photograph(tmp_path / "images" / "b.jpg")
    write_text(tmp_path / "annotations" / "b.xml", voc("b.jpg", "with_mask"))

    source = read(tmp_path)

    (problem,) = source.problems
    assert faces_of(source) == {"b.jpg": MASK}
    assert problem.endswith("images/a.jpg or " + str(tmp_path / "images/a.png") + ": rename one: left out")


@pytest.mark.parametrize(
    ("before", "encoding"),
    [
        ('<?xml version="1.0" encoding="gb2312"?>', "gb2312"),
        ('<?xml version="1.0" encoding="GBK" standalone="no"?>', "gbk"),
        ("<?xml version='1.0' encoding='windows-1251'?>", "cp1251"),
        ('<?xml version="1.0" encoding="Shift_JIS"?>', "shift_jis"),
        ('<?xml version="1.0" encoding="UTF-16"?>', "utf-16"),
        ('\n\n<?xml version="1.0"?>', "utf-8-sig"),
        ("\ufeff", "utf-8"),
        ("", "gbk"),  # not declared, and not UTF-8
    ],
)
def test_an_annotation_may_have_any_encoding_that_it_declares(tmp_path: Path, before: str, encoding: str) -> None:
    folder = "Лица" if encoding == "cp1251" else "人口"  # characters that each of these encodings has
    text = voc("a.jpg", "with_mask").replace("<filename>", f"<folder>{folder}</folder><filename>")
    write_photograph(tmp_path / "images" / "a.jpg")
    write_text(tmp_path / "annotations" / "a.xml", before + text, encoding)

    source = read(tmp_path)

    assert faces_of(source) == {"a.jpg": MASK}


def test_a_picture_may_have_a_name_in_the_encoding_of_its_annotation(tmp_path: Path) -> None:
    write_photograph(tmp_path / "图片" / "口罩 1.jpg")
    text = '<?xml version="1.0" encoding="gb2312"?>' + voc(r"D:\图片\口罩 1.jpg", "with_mask")
    write_text(tmp_path / "xml" / "1.xml", text, "gb2312")

    assert faces_of(read(tmp_path)) == {"口罩 1.jpg": MASK}


def test_files_that_are_no_annotations_do_not_make_a_data_set_pascal_voc(tmp_path: Path) -> None:
    for name in ("with_mask", "without_mask"):
        write_photograph(tmp_path / name / "a.jpg")
    write_text(tmp_path / "project.xml", "<project/>")

    source = read(tmp_path)

    assert [item.label for item in source.items] == ["mask", "no_mask"]
    assert [problem.rsplit("/", 1)[1] for problem in source.problems] == [
        "project.xml is not named for a class, mask or no mask: left out"
    ]


def test_an_annotation_file_in_place_of_its_folder_is_refused_with_the_folder_to_name(tmp_path: Path) -> None:
    file = write_text(tmp_path / "street" / "data.yaml", "names: [mask]")

    with pytest.raises(DatasetUnusable, match=rf"name the folder with its pictures, {tmp_path}/street$"):
        read(file)
