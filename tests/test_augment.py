"""Training crops vary, the same way for the same seed, and show the face that serving would show."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from trainer.data.augment import augmented_crops, plain_crops
from trainer.data.batches import Batches, sampling_chances
from trainer.data.faces import FacePatches
from trainer.data.hand_drawing import draw_hand
from trainer.settings import RECIPES

RECIPE = msgspec.structs.replace(RECIPES["lite"], size_px=32, batch=6, epochs=4)


def patches(count: int = 16, side_px: float = 60, sources: tuple[str, ...] | None = None) -> FacePatches:
    """Noisy patches with a bright face square in the middle; every second face wears a mask."""
    pixels = np.random.default_rng(0).integers(0, 60, (count, 64, 64, 3), np.uint8)
    pixels[:, 20:44, 20:44] += 180
    return FacePatches(
        pixels=pixels,
        squares=np.tile(np.array([20, 20, 24], np.float32), (count, 1)),
        tight=np.zeros(count, bool),
        has_mask=np.arange(count) % 2 == 0,
        side_px=np.full(count, side_px, np.float32),
        sources=sources or ("toy",) * count,
    )


ALL = np.arange(16)


def test_augmenting_is_the_same_for_the_same_seed_and_leaves_the_patches_alone() -> None:
    before = patches()

    first, second, other = (
        augmented_crops(before, ALL, 32, 0.05, np.random.default_rng(seed))[0] for seed in (5, 5, 6)
    )

    assert (first.dtype, first.shape) == (np.uint8, (16, 32, 32, 3))
    np.testing.assert_array_equal(before.pixels, patches().pixels)
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_a_crop_that_is_made_grey_shows_what_its_twin_shows_in_colour() -> None:
    found = patches(200)
    found.pixels[..., 2] //= 2  # nothing in it is grey

    crops, coloured = augmented_crops(found, np.arange(200), 32, 0.05, np.random.default_rng(2))

    greyed = (crops != coloured).any(axis=(1, 2, 3))
    assert 50 <= greyed.sum() <= 110
    for crop, twin in zip(crops[greyed], coloured[greyed], strict=True):
        alike = np.corrcoef(crop.mean(axis=2).ravel(), twin.mean(axis=2).ravel())[0, 1]
        assert alike > 0.8
        assert np.ptp(crop, axis=2).mean() < np.ptp(twin, axis=2).mean()


def test_a_plain_crop_shows_the_square_of_the_face() -> None:
    crops = plain_crops(patches(), ALL, 24, margin=0.0)

    assert crops.min() >= 150
    assert plain_crops(patches(), ALL, 24, margin=0.5).min() < 60


@pytest.mark.parametrize("side_px", [8, 200])
def test_varied_crops_still_show_the_face_in_their_middle(side_px: float) -> None:
    found = patches(200, side_px)

    crops, _ = augmented_crops(found, np.arange(200), 32, 0.05, np.random.default_rng(1))

    middles = crops[:, 12:20, 12:20].reshape(200, -1).mean(axis=1)
    corners = crops[:, :2, :2].reshape(200, -1).mean(axis=1)
    assert np.median(middles) > np.median(corners) + 30


def test_a_hand_is_drawn_in_the_colour_of_the_face_it_covers() -> None:
    before = np.full((64, 64, 3), (20, 30, 40), np.uint8)
    before[14:32, 19:45] = (200, 150, 120)  # the brow
    after = before.copy()

    draw_hand(after, (0.5, 0.75), np.random.default_rng(0))

    changed = (after != before).any(axis=2)
    assert changed[32:].mean() > 0.05
    assert not changed[:8].any()
    middle = after[40:56, 24:40].reshape(-1, 3).astype(int)
    hand = middle[middle[:, 0] > 100]
    assert len(hand) > 50
    assert (hand[:, 0] > hand[:, 1]).all()
    assert (hand[:, 1] > hand[:, 2]).all()


def test_an_epoch_repeats_for_the_same_seed_and_another_differs() -> None:
    first, second = (Batches(patches(), RECIPE, seed=7) for _ in range(2))
    later = Batches(patches(), RECIPE, seed=7, first_epoch=1)

    assert [len(first[place][0]) for place in range(len(first))] == [6, 6, 4]
    np.testing.assert_array_equal(first[1][0], second[1][0])
    second.on_epoch_end()
    np.testing.assert_array_equal(second[1][0], later[1][0])
    assert (first[1][0] != second[1][0]).any()


def test_labels_come_with_their_crops() -> None:
    found = patches()
    found.pixels[found.has_mask] = 255
    batches = Batches(found, msgspec.structs.replace(RECIPE, batch=16), seed=0)

    crops, labels = batches[0]

    brightness = crops.reshape(16, -1).mean(axis=1)
    assert brightness[labels[:, 0] == 1].mean() > brightness[labels[:, 0] == 0].mean() + 50


def test_a_rare_kind_of_face_is_drawn_more_often_than_its_share() -> None:
    found = patches(16, sources=("rare",) * 2 + ("usual",) * 14)

    chances = sampling_chances(found)

    assert chances.sum() == pytest.approx(1)
    assert chances[0] == pytest.approx(chances[2] * 7 ** (2 / 3))
