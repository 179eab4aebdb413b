"""Draw a hand over a face: a crop in, the same crop with fingers or a fist of its own skin on it.

Bare faces behind hands are the most frequent mistake of a mask classifier, and public data sets have few of them. The
skin is taken from the face itself (its brow and cheeks), so that a network cannot recognise a drawn hand by its colour
or light. Pure: the same crop and generator state give the same picture.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.vision.arrays import Image

# The part of a crop that skin is taken from, as shares of its side: x from, x to, y from, y to.
SKIN = (0.3, 0.7, 0.22, 0.5)
# Of a drawn hand, as shares of the crop's side.
LENGTH, WIDTH = (0.25, 0.65), (0.08, 0.16)
FINGERS = 4
FIST_CHANCE = 0.4


def draw_hand(picture: Image, centre: tuple[float, float], rng: np.random.Generator) -> None:
    """Draw a hand into a uint8 S x S x 3 RGB crop, in place; its centre is given in shares of the side."""
    side = picture.shape[0]
    shape, lines = _outline(side, centre, rng)
    soft = cv2.GaussianBlur(shape, (0, 0), 0.008 * side + 0.3)[..., None] / 255.0
    shade = 1 - rng.uniform(0.15, 0.5) * cv2.GaussianBlur(lines, (0, 0), 0.01 * side + 0.3)[..., None] / 255.0
    hand = _skin(picture, rng) * shade
    picture[:] = np.clip(picture * (1 - soft) + hand * soft, 0, 255).astype(np.uint8)


def _outline(side: int, centre: tuple[float, float], rng: np.random.Generator) -> tuple[Image, Image]:
    """Return masks of the hand and of its fingers' edges: uint8 S x S, 0 or 255."""
    shape, lines = np.zeros((side, side), np.uint8), np.zeros((side, side), np.uint8)
    angle = rng.uniform(0, np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    length, width = rng.uniform(*LENGTH) * side, rng.uniform(*WIDTH) * side
    if rng.random() < FIST_CHANCE:
        length *= 0.4
    middle = np.array(centre) * side
    for finger in range(FINGERS):
        start = middle + across * width * (finger - (FINGERS - 1) / 2) - along * length * rng.uniform(0.4, 0.6)
        end = start + along * length * rng.uniform(0.8, 1.1)
        _stroke(shape, start, end, width * rng.uniform(0.9, 1.15))
        edge = across * width / 2
        _stroke(lines, start + edge, end + edge, 0.12 * width)
    return shape, lines


def _stroke(on: Image, start: NDArray[np.float64], end: NDArray[np.float64], width: float) -> None:
    ends = np.rint([start, end]).astype(int).tolist()
    cv2.line(on, ends[0], ends[1], 255, max(1, round(width)))


def _skin(picture: Image, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a crop's own skin, stretched over the whole crop: float64 S x S x 3."""
    side = picture.shape[0]
    left, right, top, bottom = (round(share * side) for share in SKIN)
    patch = np.rot90(picture[top:bottom, left:right], int(rng.integers(4)))
    smooth = cv2.GaussianBlur(patch, (0, 0), rng.uniform(0.02, 0.1) * side)
    spread = cv2.resize(smooth, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.float64)
    skin: NDArray[np.float64] = spread * rng.uniform(0.8, 1.15) * rng.uniform(0.96, 1.04, 3)
    return skin
