"""Class folders are found at any depth, and what tools leave in folders is not trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
from annotated_folders import faces_of, read, voc, write_photograph, write_text

from trainer.data.annotations import DatasetUnusable
from trainer.data.prepare import prepare_data


def labels_of(folder: Path, *choices: str) -> dict[str, str | None]:
    return {str(item.path.relative_to(folder)): item.label for item in read(folder, *choices).items}


@pytest.mark.parametrize(
    ("masked", "bare"),
    [
        ("with_mask", "without_mask"),
        ("Face Mask Dataset/Train/WithMask", "Face Mask Dataset/Train/WithoutMask"),
        ("a/b/c/Masked", "a/b/d/no-mask"),
        ("mask/with_mask", "mask/without_mask"),
        ("data/face_mask", "data/face"),
        ("1_mask/deeper/still", "0_no_mask"),
    ],
)
def test_class_folders_may_be_at_any_depth(tmp_path: Path, masked: str, bare: str) -> None:
    write_photograph(tmp_path / masked / "a.jpg")
    write_photograph(tmp_path / bare / "b.jpg")

    source = read(tmp_path)

    assert {item.path.name: item.label for item in source.items} == {"a.jpg": "mask", "b.jpg": "no_mask"}
    assert source.problems == ()


def test_everything_below_a_class_folder_has_its_label_but_masks_worn_incorrectly(tmp_path: Path) -> None:
    for name in ("with_mask/a.jpg", "with_mask/face/b.jpg", "with_mask/incorrect/c.jpg", "without_mask/d.jpg"):
        write_photograph(tmp_path / name)

    source = read(tmp_path)

    assert [(item.path.name, item.label) for item in source.items] == [
        ("a.jpg", "mask"),
        ("b.jpg", "mask"),
        ("d.jpg", "no_mask"),
    ]
    assert source.problems == (f"{tmp_path}/with_mask/incorrect is not named for a class, mask or no mask: left out",)


def test_what_is_in_no_class_folder_gets_one_line_for_each_folder(tmp_path: Path) -> None:
    for name in ("set/with_mask/a.jpg", "set/without_mask/b.jpg", "set/other/c.jpg", "set/other/d.jpg", "more/e/f.jpg"):
        write_photograph(tmp_path / name)
    write_text(tmp_path / "set" / "notes.md", "?")

    source = read(tmp_path)

    assert [problem.split(" is not named")[0] for problem in source.problems] == [
        f"{tmp_path}/more",
        f"{tmp_path}/set/notes.md",
        f"{tmp_path}/set/other",
    ]


def test_class_folders_beside_annotated_photographs_are_refused_with_what_to_name(tmp_path: Path) -> None:
    for name in ("with_mask/a.jpg", "without_mask/b.jpg", "street/c.jpg"):
        write_photograph(tmp_path / name)
    write_text(tmp_path / "street" / "c.xml", voc("c.jpg", "with_mask"))

    with pytest.raises(DatasetUnusable, match="has class folders and annotated photographs: name each by itself"):
        read(tmp_path)


def test_annotated_photographs_may_be_in_class_folders(tmp_path: Path) -> None:
    for name in ("with_mask", "without_mask"):
        write_photograph(tmp_path / name / f"{name}.jpg")
        write_photograph(tmp_path / name / "alone.jpg")
        write_text(tmp_path / name / f"{name}.xml", voc(f"{name}.jpg", name))

    source = read(tmp_path)

    assert [item.label for item in source.items] == [None, None]
    assert [problem.endswith("alone.jpg has no annotation: left out") for problem in source.problems] == [True, True]


def test_a_user_says_which_folders_are_classes(tmp_path: Path) -> None:
    for name in ("kn95/a.jpg", "people/b.jpg", "mask/c.jpg"):
        write_photograph(tmp_path / name)

    assert labels_of(tmp_path, "kn95=mask", "people=no_mask", "mask=ignore") == {
        "kn95/a.jpg": "mask",
        "people/b.jpg": "no_mask",
    }


LEFTOVERS = (
    "with_mask/.ipynb_checkpoints/1-checkpoint.jpg",
    "with_mask/._1.jpg",
    "with_mask/desktop.ini",
    "without_mask/Thumbs.db",
    "without_mask/1.jpg:Zone.Identifier",
    "__MACOSX/with_mask/._2.jpg",
    ".DS_Store",
)


def test_what_tools_leave_behind_is_counted_and_not_trained_on(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    for number in range(20):
        write_photograph(folder / ("with_mask", "without_mask")[number % 2] / f"{number}.jpg", number)
    for name in LEFTOVERS:
        write_photograph(tmp_path / "a.jpg", 99)
        write_text(folder / name, "")
        (folder / name).write_bytes((tmp_path / "a.jpg").read_bytes())
    said: list[str] = []

    found = prepare_data([read(folder)], size_px=32, margin=0.05, warn=said.append)

    assert said == [f"toy: leftovers of tools are left out: {folder}/.DS_Store and 6 more"]
    assert found.counts["leftovers of tools"] == 7
    assert len(found.manifest) == 20


@pytest.mark.parametrize("name", ["images/._a.jpg", "annotations/._a.xml", "annotations/.ipynb_checkpoints/a.xml"])
def test_leftovers_beside_annotations_are_counted_too(tmp_path: Path, name: str) -> None:
    write_photograph(tmp_path / "images" / "a.jpg")
    write_text(tmp_path / "annotations" / "a.xml", voc("a.jpg", "with_mask"))
    write_text(tmp_path / name, "leftover")

    source = read(tmp_path)

    assert list(faces_of(source)) == ["a.jpg"]
    assert source.problems == ()
    assert len(source.leftovers) == 1
