"""Copy crops as worse cameras show them, to measure with: grey, dark and blurred. Pure.

Each function takes and returns uint8 n x S x S x 3 RGB.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from pipeline.vision.arrays import Image

DARK_LEVEL = 0.2  # of the light
DARK_NOISE = 4.0  # standard deviation, in levels of 255
BLUR_SHARE = 0.025  # the blur's standard deviation, as a share of the side


def grey(crops: Image) -> Image:
    """Take the colours away, as infrared and black-and-white cameras do."""
    return _each(crops, lambda crop: cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB))


def dark(crops: Image) -> Image:
    """Darken crops, with the noise of a camera at night."""
    noise = np.random.default_rng(0).normal(0, DARK_NOISE, crops.shape[1:])
    return _each(crops, lambda crop: np.clip(DARK_LEVEL * crop + noise, 0, 255).astype(np.uint8))


def blurred(crops: Image) -> Image:
    """Blur crops, as out of focus."""
    return _each(crops, lambda crop: cv2.GaussianBlur(crop, (0, 0), BLUR_SHARE * crop.shape[0]))


COPIES: dict[str, Callable[[Image], Image]] = {"grey": grey, "dark": dark, "blurred": blurred}


def _each(crops: Image, change: Callable[[Image], Image]) -> Image:
    copies = np.empty_like(crops)
    for copy, crop in zip(copies, crops, strict=True):
        copy[:] = change(crop)
    return copies
