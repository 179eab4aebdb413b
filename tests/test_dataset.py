"""Data sets are read the same way every time, and what cannot be used is said."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from trainer import dataset
from trainer.annotations import read_annotations
from trainer.augment import augment
from trainer.dataset import DatasetUnusable, find_samples, found_face, load, split, whole_picture


def write_picture(path: Path, brightness: int = 128, size: tuple[int, int] = (20, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), brightness, np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(20):
        write_picture(tmp_path / "WithMask" / f"{number}.png")
        write_picture(tmp_path / "WithMask" / f"Augmented_{number}_{number}.png")
        write_picture(tmp_path / "WithoutMask" / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("names", [("WithMask", "WithoutMask"), ("with_mask", "without_mask"), ("mask", "no mask")])
def test_class_folders_are_known_by_their_usual_names(tmp_path: Path, names: tuple[str, str]) -> None:
    write_picture(tmp_path / names[0] / "a.jpg")
    write_picture(tmp_path / names[1] / "deeper" / "b.JPG")

    samples = find_samples(tmp_path)

    assert [(sample.path.name, sample.has_mask) for sample in samples] == [("a.jpg", True), ("b.JPG", False)]


def test_a_folder_without_both_classes_says_what_is_missing(tmp_path: Path) -> None:
    write_picture(tmp_path / "with_mask" / "a.jpg")

    with pytest.raises(DatasetUnusable, match="no pictures in a folder named without_mask"):
        find_samples(tmp_path)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetUnusable, match="nowhere is not a folder"):
        find_samples(tmp_path / "nowhere")


def test_unreadable_pictures_are_left_out_and_named(folder: Path) -> None:
    (folder / "WithMask" / "0.png").write_bytes(b"")
    (folder / "WithMask" / "1.png").write_bytes(b"no picture")

    pictures = load(find_samples(folder), whole_picture(16))

    assert len(pictures.labels) == len(pictures.images) == 58
    assert [line.rsplit("/", 1)[1] for line in pictures.unreadable] == [
        "0.png is empty: left out",
        "1.png is not a picture that can be read: left out",
    ]


def test_pictures_are_rgb_squares_with_their_labels(tmp_path: Path) -> None:
    write_picture(tmp_path / "mask" / "a.png", brightness=250, size=(10, 30))
    write_picture(tmp_path / "no_mask" / "b.png", brightness=3)

    pictures = load(find_samples(tmp_path), whole_picture(16))

    assert pictures.images.shape == (2, 16, 16, 3)
    assert pictures.images.dtype == np.uint8
    assert pictures.labels.tolist() == [1.0, 0.0]
    assert pictures.images.reshape(2, -1).mean(axis=1).tolist() == [250, 3]


def test_a_split_is_the_same_for_the_same_seed_and_loses_nothing(folder: Path) -> None:
    samples = find_samples(folder)

    training, validation = split(samples, seed=3)

    assert (training, validation) == split(samples, seed=3)
    assert (training, validation) != split(samples, seed=4)
    assert sorted(training + validation, key=lambda sample: sample.path) == samples
    assert {sample.has_mask for sample in validation} == {True, False}


def test_augmented_copies_stay_on_their_originals_side(folder: Path) -> None:
    training, validation = split(find_samples(folder), seed=0, share=0.3)

    originals = [
        {sample.path.stem.split("_")[-1] for sample in side if sample.has_mask} for side in (training, validation)
    ]

    assert not originals[0] & originals[1]


def test_a_face_in_a_photograph_is_cut_out_as_serving_cuts_it(pictures: Path) -> None:
    path = min((pictures / "face-mask-12k" / "Train" / "WithoutMask").iterdir())
    face = np.asarray(cv2.imread(str(path)), np.uint8)
    side = face.shape[0]
    photograph = np.asarray(cv2.copyMakeBorder(face, side, side, side, side, cv2.BORDER_REPLICATE), np.uint8)

    alone, inside = found_face(64, 0.05)(face), found_face(64, 0.05)(photograph)

    assert np.abs(alone.astype(int) - inside).mean() < 25


def test_where_no_face_is_found_the_picture_is_taken_whole() -> None:
    grey = np.full((50, 50, 3), 77, np.uint8)

    crop = found_face(32, 0.05)(grey)

    assert (crop == 77).all()


def test_augmenting_is_the_same_for_the_same_seed() -> None:
    images = np.random.default_rng(0).integers(0, 256, (16, 48, 48, 3), np.uint8)
    labels = np.tile(np.array([0, 1], np.float32), 8)
    before = images.copy()

    first = augment(images, labels, np.random.default_rng(5))
    second = augment(images, labels, np.random.default_rng(5))
    other = augment(images, labels, np.random.default_rng(6))

    assert first.dtype == np.uint8
    assert first.shape == images.shape
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def write_annotation(folder: Path, label: str = "with_mask", picture: str = "a.jpg") -> None:
    (folder / "annotations").mkdir()
    (folder / "annotations" / "a.xml").write_text(
        f"<annotation><filename>{picture}</filename><object><name>{label}</name><bndbox><xmin>1</xmin><ymin>2</ymin>"
        "<xmax>11</xmax><ymax>22</ymax></bndbox></object></annotation>"
    )


def test_annotations_give_boxes_and_how_masks_are_worn(tmp_path: Path) -> None:
    write_annotation(tmp_path, "mask_weared_incorrect")
    write_picture(tmp_path / "images" / "a.jpg")

    (picture,) = read_annotations(tmp_path)

    assert picture.path == tmp_path / "images" / "a.jpg"
    assert [(face.box, face.worn) for face in picture.faces] == [((1, 2, 11, 22), "incorrect")]


def test_an_annotation_without_its_picture_fails(tmp_path: Path) -> None:
    write_annotation(tmp_path)

    with pytest.raises(DatasetUnusable, match=r"a\.jpg, which a\.xml annotates, is missing"):
        read_annotations(tmp_path)


def test_an_unknown_label_fails(tmp_path: Path) -> None:
    write_annotation(tmp_path, "scarf")
    write_picture(tmp_path / "images" / "a.jpg")

    with pytest.raises(DatasetUnusable, match="scarf"):
        read_annotations(tmp_path)


def test_a_folder_without_annotations_fails(tmp_path: Path) -> None:
    with pytest.raises(DatasetUnusable, match=r"has no \.xml files"):
        read_annotations(tmp_path)


def test_real_class_folders_are_read_whole(pictures: Path) -> None:
    samples = find_samples(pictures / "face-mask-12k" / "Validation")

    loaded = load(samples[::20], dataset.whole_picture(32))

    assert len(samples) == 800
    assert loaded.unreadable == ()
    assert loaded.labels.mean() == 0.5
