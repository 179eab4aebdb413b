"""Copies of one photograph are found whatever was done to them, and different people are not taken for copies."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.vision.arrays import Image
from trainer.data.copies import candidates, finder
from trainer.data.copies.finder import find_copies
from trainer.data.copies.perceptual_hash import PerceptualHash, perceptual_hash
from trainer.data.copy_names import original_name
from trainer.data.faces import find_faces
from trainer.data.sources import DatasetFile
from trainer.data.split import connected_components

PEOPLE = 60


def originals(folder: Path, first: int) -> list[Image]:
    """Read sixty portraits of different people, half of them with masks; numbered originals, no augmented copies."""
    found: list[Image] = []
    for name in ("WithMask", "WithoutMask"):
        paths = sorted(path for path in (folder / "face-mask-12k" / "Train" / name).iterdir() if path.stem.isdigit())
        large = [np.asarray(cv2.imread(str(path)), np.uint8) for path in paths[first::7][:60]]
        found += [picture for picture in large if min(picture.shape[:2]) >= 50][: PEOPLE // 2]
    return found


@pytest.fixture(scope="module")
def people(pictures: Path) -> list[Image]:
    return originals(pictures, 0)


def whole(picture: Image) -> PerceptualHash:
    """Take the print of a picture that is a face by itself."""
    height, width = picture.shape[:2]
    return perceptual_hash(picture, (0, 0, width, height), is_alone=True)


def pairs_of(pictures: list[Image]) -> set[tuple[int, int]]:
    return in_order(copies_among([whole(picture) for picture in pictures]))


def copies_among(hashes: list[PerceptualHash]) -> list[tuple[int, int]]:
    """Find copies among hashes of one label, of which nothing is known."""
    return find_copies(hashes, range(len(hashes)), ["mask"] * len(hashes))


def in_order(pairs: list[tuple[int, int]]) -> set[tuple[int, int]]:
    return {(min(pair), max(pair)) for pair in pairs}


def test_different_people_are_no_copies(pictures: Path) -> None:
    others = originals(pictures, 3)

    assert len(others) == PEOPLE
    assert pairs_of(others) == set()


def turned(picture: Image, degrees: float) -> Image:
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    return np.asarray(cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def cut(picture: Image, share: float) -> Image:
    height, width = (round(side * share) for side in picture.shape[:2])
    return picture[height:-height, width:-width]


def through_jpeg(picture: Image) -> Image:
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, 20))[1], 1), np.uint8)


def clipped(numbers: object) -> Image:
    return np.clip(np.asarray(numbers), 0, 255).astype(np.uint8)


def noisy(picture: Image) -> Image:
    return clipped(picture + np.random.default_rng(0).normal(0, 15, picture.shape))


CHANGES: dict[str, tuple[Callable[[Image], Image], int]] = {
    # what is done to a picture, and of how many of the sixty the copy must be found at least
    "mirrored": (lambda picture: picture[:, ::-1], 59),
    "brighter, so that a part is white": (lambda picture: clipped(picture * 1.3 + 20), 52),
    "darker": (lambda picture: clipped(picture * 0.6), 58),
    "grey": (lambda picture: cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), 58),
    "encoded again": (through_jpeg, 58),
    "noisy": (noisy, 58),
    "blurred": (lambda picture: cv2.GaussianBlur(picture, (0, 0), 2), 51),
    "tiny": (lambda picture: cv2.resize(picture, (22, 22), interpolation=cv2.INTER_AREA), 57),
    "turned by 5 degrees": (lambda picture: turned(picture, 5), 58),
    "turned by -12 degrees": (lambda picture: turned(picture, -12), 57),
    "turned by 15 degrees": (lambda picture: turned(picture, 15), 56),
    "turned by 90 degrees": (lambda picture: np.rot90(picture), 58),
    "mirrored and turned": (lambda picture: turned(picture[:, ::-1], 10), 57),
    "cut by a tenth": (lambda picture: cut(picture, 0.1), 58),
    "cut by a fifth": (lambda picture: cut(picture, 0.2), 58),
    "in a black frame": (lambda picture: cv2.copyMakeBorder(picture, 20, 20, 20, 20, 0), 57),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_picture_is_a_copy_of_its_original_and_of_no_other(people: list[Image], change: str) -> None:
    do, least = CHANGES[change]
    changed = [np.ascontiguousarray(do(picture)) for picture in people]

    found = pairs_of([*people, *changed])

    wanted = {(place, place + PEOPLE) for place in range(PEOPLE)}
    assert len(found & wanted) >= least
    assert found <= wanted


def test_a_picture_cut_at_one_corner_is_a_copy(people: list[Image], tmp_path: Path) -> None:
    items = []
    for copy in (False, True):
        for place, picture in enumerate(people):
            path = tmp_path / f"{copy} {place}.png"
            height, width = picture.shape[:2]
            cv2.imwrite(str(path), picture[: round(0.85 * height), round(0.15 * width) :] if copy else picture)
            items.append(DatasetFile(path=path, label="mask"))
    hashes = [found.hashes[0] for found in find_faces(items, "toy", "toy")]

    found = in_order(copies_among(hashes))

    wanted = {(place, place + PEOPLE) for place in range(PEOPLE)}
    assert len(found & wanted) >= 40
    assert found <= wanted


def test_what_is_known_to_belong_together_is_not_looked_for_again(people: list[Image]) -> None:
    hashes = [whole(picture) for picture in (people[0], people[1], people[0])]

    assert find_copies(hashes, [0, 1, 2], ["mask"] * 3) == [(0, 2)]
    assert find_copies(hashes, [0, 1, 0], ["mask"] * 3) == []


def test_a_copy_with_another_label_is_reported_though_it_is_known_to_belong_there(people: list[Image]) -> None:
    hashes = [whole(people[place]) for place in (0, 1, 0, 0, 0)]

    found = find_copies(hashes, [0, 1, 0, 0, 0], ["mask", "mask", "mask", "no_mask", "no_mask"])

    assert {place for pair in found for place in pair} == {0, 2, 3, 4}
    assert all(min(pair) < 3 <= max(pair) for pair in found)


def test_copies_are_found_the_same_way_every_time(people: list[Image]) -> None:
    hashes = [whole(turned(picture, degrees)) for picture in people[:20] for degrees in (0, 7)]

    first, again = (copies_among(hashes) for _ in range(2))

    assert first == again
    assert len(first) >= 19


def test_very_many_copies_take_no_more_memory_than_a_block_of_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "BLOCK", 64)
    monkeypatch.setattr(finder, "PICTURE_POSES", finder.PICTURE_POSES[:1])
    monkeypatch.setattr(finder, "FACE_POSES", finder.FACE_POSES[:1])
    rng = np.random.default_rng(0)
    one = cv2.GaussianBlur(rng.integers(0, 256, (64, 64, 3)).astype(np.float32), (0, 0), 2) * 3 - 256
    hashes = [whole(clipped(one + rng.normal(0, 2, one.shape))) for _ in range(500)]
    copies_among(hashes[:2])  # makes what is made only once
    tracemalloc.start()

    found = copies_among(hashes)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 499
    assert peak < 12e6  # 2 MB are the small pictures; of 125,000 pairs, each one held would take 400 bytes


def shades(rng: np.random.Generator, size_px: float, spread: float) -> NDArray[np.float32]:
    soft: NDArray[np.float32] = cv2.GaussianBlur(rng.normal(0, 1, (96, 96, 3)).astype(np.float32), (0, 0), size_px)
    return soft * (spread / soft.std())


def look_alikes(count: int) -> list[Image]:
    """Make pictures that share their coarse light and shade, as frames of one person do, and differ in their detail."""
    rng = np.random.default_rng(0)
    common = 128 + shades(rng, 6, 45)
    return [clipped(common + shades(rng, 1.5, 14)) for _ in range(count)]


@pytest.mark.parametrize("block", [1024, 32])
def test_of_pictures_that_all_look_alike_only_the_most_alike_are_candidates(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(candidates, "BLOCK", block)
    count, most = 100, 7
    hashes = np.stack([whole(picture).picture for picture in look_alikes(count)])

    def found(most: int) -> candidates.CandidatePairs:
        everything = np.full(count, most)
        return candidates.find_candidates(
            hashes, finder.PICTURE_POSES, everything, lambda rows, columns: rows[:, None] != columns
        )

    every, few = found(count), found(most)

    assert len(every.pairs) == count * (count - 1)  # each pair for the sake of both
    assert not every.has_more.any()
    assert len(few.pairs) == count * most
    assert few.has_more.all()
    for place in range(count):
        assert few.pairs[few.pairs[:, 3] == place].tolist() == every.pairs[every.pairs[:, 3] == place][:most].tolist()


def test_nothing_is_looked_for_that_is_not_wanted() -> None:
    hashes = np.stack([whole(picture).picture for picture in look_alikes(12)])
    most = np.array([3] * 6 + [0] * 6)

    found = candidates.find_candidates(
        hashes, finder.PICTURE_POSES, most, lambda rows, columns: (rows[:, None] + columns) % 2 == 1
    )

    assert np.bincount(found.pairs[:, 3], minlength=12).tolist() == most.tolist()
    assert (found.pairs[:, :2].sum(axis=1) % 2 == 1).all()


def test_copies_of_one_photograph_are_joined_however_many_they_and_its_look_alikes_are() -> None:
    others = look_alikes(50)
    rng = np.random.default_rng(1)
    changed = others[0], turned(others[0][:, ::-1], 7)  # each has more copies like itself than are looked at in a round
    same = [clipped(picture + rng.normal(0, 6, picture.shape)) for picture in changed for _ in range(30)]

    found = copies_among([whole(picture) for picture in (*others, *same)])

    assert connected_components(110, found) == [*range(50), *[0] * 60]


def test_many_pictures_that_all_contradict_each_other_are_reported() -> None:
    rng = np.random.default_rng(0)
    hashes = [whole(clipped(look_alikes(1)[0] + rng.normal(0, 6, (96, 96, 3)))) for _ in range(40)]

    found = find_copies(hashes, [0] * 40, ["mask", "no_mask"] * 20)

    assert {place for pair in found for place in pair} == set(range(40))


def test_plain_and_very_small_pictures_are_not_called_copies() -> None:
    plain = np.full((50, 50, 3), 128, np.uint8)
    small = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)

    assert pairs_of([plain, plain, small, small]) == set()


def test_no_pictures_have_no_copies() -> None:
    assert find_copies([], [], []) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Augmented_690_1742059.jpg", "Augmented_690_42.png"),
        ("0_0_0.jpg", "0_0_0_copy_12.jpg"),
        ("0_0_0_copy.jpg", "0_0_0 copy (2).jpg"),
        ("0_0_anhu_0083.jpg", "1_0_anhu_0038.jpg"),
    ],
)
def test_names_mark_copies(one: str, other: str) -> None:
    assert original_name(Path(one)) == original_name(Path(other))


@pytest.mark.parametrize(
    ("one", "other"), [("Augmented_690_1.jpg", "Augmented_69_1.jpg"), ("690.jpg", "69.jpg"), ("12.jpg", "21.jpg")]
)
def test_names_of_different_pictures_differ(one: str, other: str) -> None:
    assert original_name(Path(one)) != original_name(Path(other))
