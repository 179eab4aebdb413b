"""Vary training pictures the way cameras do: uint8 batches in, new uint8 batches of the same shape out.

Pure: the same pictures, labels and generator state give the same batch. Half of a batch is brought down to the
resolution of distant faces (MIN_FACE_PX and more), because the pictures of one class must not be told apart by how
sharp they are. How a picture ends at its border is drawn at random for the same reason: the masked faces of some data
sets are rotated copies with smeared borders.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

MIN_FACE_PX = 12
LOW_RESOLUTION_SHARE = 0.5

ROTATION_DEGREES = 18.0
SHIFT_SHARE = 0.10
# How much of the picture's side the crop may gain (zoom out) or lose: natural logarithm of the scale.
SCALE_LOG = 0.3
ASPECT_LOG = 0.10

COVER_CHANCE = 0.2
BLUR_CHANCE = 0.25
NOISE_CHANCE = 0.25
JPEG_CHANCE = 0.5
GREY_CHANCE = 0.1

_BORDERS = (cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT_101, cv2.BORDER_CONSTANT)
_ENLARGERS = (cv2.INTER_LINEAR, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)


def augment(images: Picture, labels: NDArray[np.float32], rng: np.random.Generator) -> Picture:
    """Return a varied copy of a batch.

    Args:
        images: uint8 n x S x S x 3 RGB.
        labels: float32 n; a face is partly covered only with pieces of faces that carry the same label.
        rng: where all chance comes from.
    """
    varied = np.empty_like(images)
    for index, image in enumerate(images):
        peers = np.flatnonzero(labels == labels[index])
        picture = _move(image, rng)
        if rng.random() < COVER_CHANCE:
            _cover(picture, images[rng.choice(peers)], rng)
        varied[index] = _degrade(_relight(picture, rng), rng)
    return varied


def _move(image: Picture, rng: np.random.Generator) -> Picture:
    """Flip, turn, scale and shift."""
    side = image.shape[0]
    if rng.random() < 0.5:
        image = image[:, ::-1]
    scale = np.exp(rng.uniform(-SCALE_LOG, SCALE_LOG))
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-1, 1) * ROTATION_DEGREES, scale)
    turn[0, :2] *= np.exp(rng.uniform(-ASPECT_LOG, ASPECT_LOG))
    centre = turn[:, :2] @ (side / 2, side / 2)
    turn[:, 2] = side / 2 - centre + rng.uniform(-SHIFT_SHARE, SHIFT_SHARE, 2) * side
    border = _BORDERS[rng.integers(len(_BORDERS))]
    colour = rng.integers(0, 256, 3).tolist()
    moved: Picture = cv2.warpAffine(
        np.ascontiguousarray(image), turn, (side, side), borderMode=border, borderValue=colour
    )
    return moved


def _cover(picture: Picture, other: Picture, rng: np.random.Generator) -> None:
    """Paste a piece of another face over a part of this one, in place: hands, hair, heads in front."""
    side = picture.shape[0]
    height, width = (int(side * share) for share in rng.uniform(0.15, 0.4, 2))
    top, left, from_top, from_left = (int(rng.integers(0, side - span)) for span in (height, width, height, width))
    picture[top : top + height, left : left + width] = other[
        from_top : from_top + height, from_left : from_left + width
    ]


def _relight(picture: Picture, rng: np.random.Generator) -> Picture:
    """Change brightness, contrast, gamma and the colour of the light; sometimes grey."""
    if rng.random() < GREY_CHANCE:
        picture = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    levels = np.linspace(0, 1, 256)[:, None] ** np.exp(rng.uniform(-0.4, 0.4))
    levels = (levels - 0.5) * rng.uniform(0.6, 1.4) + 0.5 + rng.uniform(-0.2, 0.2)
    levels = levels * rng.uniform(0.85, 1.15, 3)
    table = np.clip(levels * 255, 0, 255).astype(np.uint8).reshape(256, 1, 3)
    relit: Picture = cv2.LUT(picture, table)
    return relit


def _degrade(picture: Picture, rng: np.random.Generator) -> Picture:
    """Lower the resolution, blur, add noise and JPEG blocks in the order a camera does."""
    side = picture.shape[0]
    small = side
    if rng.random() < LOW_RESOLUTION_SHARE:
        small = int(np.exp(rng.uniform(np.log(MIN_FACE_PX), np.log(0.75 * side))))
        picture = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
    if rng.random() < BLUR_CHANCE:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 0.02 * small + 0.4))
    if rng.random() < NOISE_CHANCE:
        noise = rng.normal(0, rng.uniform(2, 12), picture.shape)
        picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
    if rng.random() < JPEG_CHANCE:
        picture = _through_jpeg(picture, quality=int(rng.integers(30, 96)))
    if small != side:
        how = _ENLARGERS[rng.integers(len(_ENLARGERS))]
        picture = cv2.resize(picture, (side, side), interpolation=how)
    return picture


def _through_jpeg(picture: Picture, quality: int) -> Picture:
    _, jpeg = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, quality))
    decoded: Any = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)  # never None: it was just encoded
    return np.asarray(decoded, np.uint8)
