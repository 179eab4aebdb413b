"""Copies of one photograph are found whatever was done to them, and different people are not taken for copies."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from trainer.data.copies import Picture, fingerprints, near_copies, original_name


def read(path: Path) -> Picture:
    return np.asarray(cv2.cvtColor(np.asarray(cv2.imread(str(path))), cv2.COLOR_BGR2RGB), np.uint8)


@pytest.fixture(scope="module")
def people(pictures: Path) -> list[Picture]:
    """Twelve different portraits, six of them with masks; the numbered originals, not their augmented copies."""
    folder = pictures / "face-mask-12k" / "Train"
    return [
        read(path)
        for name in ("WithMask", "WithoutMask")
        for path in sorted(path for path in (folder / name).iterdir() if path.stem.isdigit())[::40][:6]
    ]


def test_different_people_are_no_copies(people: list[Picture]) -> None:
    prints = fingerprints(people)

    assert list(near_copies(prints)) == []


def through_jpeg(picture: Picture) -> Picture:
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, 40))[1], 1), np.uint8)


@pytest.mark.parametrize(
    "change",
    [
        lambda picture: picture[:, ::-1],
        lambda picture: cv2.resize(picture, (70, 70), interpolation=cv2.INTER_AREA),
        through_jpeg,
        lambda picture: np.clip(picture * 0.7 + 20, 0, 255).astype(np.uint8),
        lambda picture: cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
        lambda picture: picture[1:-1, 1:],
    ],
    ids=["mirrored", "smaller", "encoded again", "darker", "grey", "cut a little"],
)
def test_a_changed_picture_is_a_copy_of_its_original(people: list[Picture], change) -> None:  # type: ignore[no-untyped-def]
    changed = [np.ascontiguousarray(change(picture)) for picture in people]

    found = set(near_copies(fingerprints([*people, *changed])))

    originals = {(place, place + len(people)) for place in range(len(people))}
    assert len(found & originals) >= len(people) - 1
    assert found <= originals


def test_plain_pictures_are_not_called_copies() -> None:
    grey = np.full((50, 50, 3), 128, np.uint8)

    assert list(near_copies(fingerprints([grey, grey]))) == []


def test_no_pictures_have_no_copies() -> None:
    assert list(near_copies(fingerprints([]))) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Augmented_690_1742059.jpg", "Augmented_690_42.png"),
        ("0_0_0.jpg", "0_0_0_copy_12.jpg"),
        ("0_0_0_copy.jpg", "0_0_0 copy (2).jpg"),
        ("0_0_anhu_0083.jpg", "1_0_anhu_0038.jpg"),
    ],
)
def test_names_tell_copies(one: str, other: str) -> None:
    assert original_name(Path(one)) == original_name(Path(other))


@pytest.mark.parametrize(
    ("one", "other"), [("Augmented_690_1.jpg", "Augmented_69_1.jpg"), ("690.jpg", "69.jpg"), ("12.jpg", "21.jpg")]
)
def test_names_of_different_pictures_differ(one: str, other: str) -> None:
    assert original_name(Path(one)) != original_name(Path(other))
