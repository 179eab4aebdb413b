"""Augment training faces the way cameras change them: patches in, uint8 crops out.

Pure: the same patches and generator state give the same batch. Crops are drawn from the patch around the face's square,
so that they show the real surroundings as far as the picture has them. Half of a batch is reduced to the resolution of
distant faces (MIN_FACE_PX and more), because a network must not learn to separate the classes by sharpness. The border
mode is drawn at random for the same reason: the masked faces of some data sets are rotated copies with smeared borders.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.vision.arrays import Image
from trainer.data.faces import FacePatches
from trainer.data.hand_drawing import draw_hand

MIN_FACE_PX = 12
LOW_RESOLUTION_SHARE = 0.5
DISTANT_FACE_PX = 28  # a face of fewer pixels is distant already

WHOLE_SHARE = 0.5  # of the draws use a tight picture whole, the others the face that was found in it
ROTATION_DEGREES = 20.0
SHIFT_SHARE = 0.12
# The range of a crop's scale, from zoomed in to zoomed out: natural logarithm of its side.
SCALE_LOG = (-0.15, 0.20)
ASPECT_LOG = 0.10

COVER_CHANCE = 0.15
HAND_CHANCE = 0.15
BLUR_CHANCE = 0.25
NOISE_CHANCE = 0.25
JPEG_CHANCE = 0.5
GREY_CHANCE = 0.4
NIGHT_CHANCE = 0.1
NIGHT_LEVELS = 0.12, 0.5  # the range of the light that is left

_BORDERS = (cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT_101, cv2.BORDER_CONSTANT)
_ENLARGERS = (cv2.INTER_LINEAR, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)


def augmented_crops(
    patches: FacePatches, indices: NDArray[np.intp], size_px: int, margin: float, rng: np.random.Generator
) -> tuple[Image, Image]:
    """Return augmented crops of some patches, and the same crops in colour: each uint8 n x S x S x 3 RGB.

    The two differ only in the crops that were made grey.

    Args:
        indices: of the faces, n.
        size_px: side S of a crop.
        margin: that serving cuts with, as a share of the face's box.
    """
    crops = np.empty((len(indices), size_px, size_px, 3), np.uint8)
    coloured = np.empty_like(crops)
    for crop, index in zip(crops, indices, strict=True):
        crop[:] = _moved(patches, int(index), size_px, margin, rng)
    pieces = crops.copy()
    for crop, in_colour, index in zip(crops, coloured, indices, strict=True):
        if rng.random() < COVER_CHANCE:
            peers = np.flatnonzero(patches.has_mask[indices] == patches.has_mask[index])
            _cover(crop, pieces[rng.choice(peers)], rng)
        if rng.random() < HAND_CHANCE:
            draw_hand(crop, _hand_centre(bool(patches.has_mask[index]), rng), rng)
        # By any mix of the colours: to an infrared camera, cloth and skin differ otherwise.
        mix = rng.dirichlet(np.ones(3)) if rng.random() < GREY_CHANCE else None
        is_distant = bool(patches.side_px[index] < DISTANT_FACE_PX)
        in_colour[:] = _filmed(crop, is_distant, rng if mix is None else deepcopy(rng))
        crop[:] = in_colour if mix is None else _filmed(_grey(crop, mix), is_distant, rng)
    return crops, coloured


def plain_crops(patches: FacePatches, indices: NDArray[np.intp], size_px: int, margin: float) -> Image:
    """Return the crops of some patches as serving cuts them, not augmented: uint8 n x S x S x 3 RGB."""
    crops = np.empty((len(indices), size_px, size_px, 3), np.uint8)
    for crop, index in zip(crops, indices, strict=True):
        x, y, side = patches.squares[index].tolist()
        scale = size_px / (side * (1 + 2 * margin))
        centre = np.array([x + side / 2, y + side / 2])
        matrix = np.array([[scale, 0, size_px / 2 - scale * centre[0]], [0, scale, size_px / 2 - scale * centre[1]]])
        crop[:] = cv2.warpAffine(patches.pixels[index], matrix, (size_px, size_px), borderMode=cv2.BORDER_REPLICATE)
    return crops


def _moved(patches: FacePatches, index: int, size_px: int, margin: float, rng: np.random.Generator) -> Image:
    """Cut a crop around the face: mirrored, rotated, scaled and shifted."""
    patch = patches.pixels[index]
    x, y, side = patches.squares[index].tolist()
    side *= 1 + 2 * margin
    x, y = x + patches.squares[index][2] / 2, y + patches.squares[index][2] / 2  # the centre
    if patches.tight[index] and rng.random() < WHOLE_SHARE:
        side = patch.shape[0]
        x = y = side / 2
    side *= np.exp(rng.uniform(*SCALE_LOG))
    x, y = np.array([x, y]) + rng.uniform(-SHIFT_SHARE, SHIFT_SHARE, 2) * side
    scale = size_px / side
    matrix = cv2.getRotationMatrix2D((float(x), float(y)), rng.uniform(-1, 1) * ROTATION_DEGREES, scale)
    matrix[0] *= np.exp(rng.uniform(-ASPECT_LOG, ASPECT_LOG)) * (1 if rng.random() < 0.5 else -1)
    matrix[:, 2] = size_px / 2 - matrix[:, :2] @ (x, y)
    if scale < 0.75:  # otherwise warping would skip pixels
        patch = cv2.GaussianBlur(patch, (0, 0), 0.4 / scale)
    border = _BORDERS[rng.integers(len(_BORDERS))]
    colour = rng.integers(0, 256, 3).tolist()
    moved: Image = cv2.warpAffine(patch, matrix, (size_px, size_px), borderMode=border, borderValue=colour)
    return moved


def _cover(picture: Image, other: Image, rng: np.random.Generator) -> None:
    """Paste a piece of another face over a part of this one, in place: hands, hair, heads in front."""
    side = picture.shape[0]
    height, width = (int(side * share) for share in rng.uniform(0.15, 0.4, 2))
    top, left, from_top, from_left = (int(rng.integers(0, side - span)) for span in (height, width, height, width))
    picture[top : top + height, left : left + width] = other[
        from_top : from_top + height, from_left : from_left + width
    ]


def _hand_centre(has_mask: bool, rng: np.random.Generator) -> tuple[float, float]:
    """Return the centre of a hand, as shares of the side: over a bare mouth; beside a mask, which must stay visible."""
    if has_mask:
        return rng.uniform(0, 0.15) + (0.85 if rng.random() < 0.5 else 0.0), rng.uniform(0.1, 0.9)
    return rng.uniform(0.35, 0.65), rng.uniform(0.62, 0.82)


def _grey(picture: Image, mix: NDArray[np.float64]) -> Image:
    grey = np.clip(picture @ mix, 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)


def _filmed(picture: Image, is_distant: bool, rng: np.random.Generator) -> Image:
    """Show a crop as a camera does: the light, then what lens, sensor and compression do to it."""
    return _degrade(_relight(picture, rng), is_distant, rng)


def _relight(picture: Image, rng: np.random.Generator) -> Image:
    """Change brightness, contrast, gamma and the colour of the light; make some pictures dark."""
    levels = np.linspace(0, 1, 256)[:, None] ** np.exp(rng.uniform(-0.4, 0.4))
    levels = (levels - 0.5) * rng.uniform(0.6, 1.4) + 0.5 + rng.uniform(-0.2, 0.2)
    levels = levels * rng.uniform(0.85, 1.15, 3)
    if rng.random() < NIGHT_CHANCE:
        levels = levels * rng.uniform(*NIGHT_LEVELS)
    table = np.clip(levels * 255, 0, 255).astype(np.uint8).reshape(256, 1, 3)
    relit: Image = cv2.LUT(picture, table)
    return relit


def _degrade(picture: Image, is_distant: bool, rng: np.random.Generator) -> Image:
    """Lower the resolution, blur, add noise and JPEG blocks in the order a camera does."""
    side = picture.shape[0]
    small = side
    if is_distant and rng.random() < 0.5:
        return picture
    if not is_distant and rng.random() < LOW_RESOLUTION_SHARE:
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


def _through_jpeg(picture: Image, quality: int) -> Image:
    _, jpeg = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, quality))
    decoded: Any = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)  # never None: it was just encoded
    return np.asarray(decoded, np.uint8)
