"""Draw canvases to train a detector on: pictures in, a square image with its faces and ignored regions out.

Pure: the same pictures and generator state give the same canvas. A canvas is a mosaic of four pictures or shows one.
Sizes are relative to SERVED_PX, the long side to which frames are scaled when they are searched, so that faces have all
sizes that they have there. A face that is cut or too small to be one is ignored, neither learned as a face nor as
background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.vision.arrays import Floats, Image
from trainer.data.decoding import decode_picture
from trainer.detection.camera_effects import add_camera_effects
from trainer.detection.pictures import TrainingPicture

SERVED_PX = 640
MOSAIC_SHARE = 0.6
# The range of a picture's scale: 1 gives it a long side of SERVED_PX.
MOSAIC_SCALES = (0.45, 1.35)
SINGLE_SCALES = (0.75, 1.9)
# The range of the point where the four pictures of a mosaic meet, as a share of the side.
MEETING_POINT = (0.3, 0.7)
FACE_CHANCE = 0.8  # the part of a picture that is shown is chosen so that a certain face is in it
MIN_FACE_PX = 6.0  # the shorter side of a face on a canvas, below which it is ignored
MIN_VISIBLE_SHARE = 0.7  # of a face's box, below which it is ignored


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """An image (uint8 S x S x 3, BGR) with faces and ignored regions (float32 n x 4, x1, y1, x2, y2, inside it).

    is_bare: bool n, as TrainingPicture.
    """

    image: Image
    boxes: Floats
    is_bare: NDArray[np.bool_]
    ignored: Floats


def draw_canvas(pictures: Sequence[TrainingPicture], size_px: int, rng: np.random.Generator) -> Canvas:
    """Draw a canvas with a side of size_px from four pictures, all of which or the first of which it shows."""
    image = np.full((size_px, size_px, 3), rng.integers(0, 256), np.uint8)
    tiles = _tiles(size_px, rng)
    scales = MOSAIC_SCALES if len(tiles) > 1 else SINGLE_SCALES
    placed = []
    for tile, picture in zip(tiles, pictures, strict=False):
        scale = float(np.exp(rng.uniform(*np.log(scales)))) * SERVED_PX
        placed.append(_place(image, tile, picture, scale, rng))
    boxes, is_bare, ignored = (np.concatenate(part) for part in zip(*placed, strict=True))
    return Canvas(image=add_camera_effects(image, rng), boxes=boxes, is_bare=is_bare, ignored=ignored)


def _tiles(size_px: int, rng: np.random.Generator) -> list[tuple[int, int, int, int]]:
    """Return the tiles (x1, y1, x2, y2) of a mosaic, or the whole canvas as one."""
    if rng.random() >= MOSAIC_SHARE:
        return [(0, 0, size_px, size_px)]
    x, y = (int(share * size_px) for share in rng.uniform(*MEETING_POINT, 2))
    return [(0, 0, x, y), (x, 0, size_px, y), (0, y, x, size_px), (x, y, size_px, size_px)]


def _place(
    canvas: Image, tile: tuple[int, int, int, int], picture: TrainingPicture, long_side: float, rng: np.random.Generator
) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """Draw a picture, scaled to a long side and perhaps mirrored, into a tile.

    Returns:
        Its faces, which of them are bare, and ignored regions.
    """
    image, boxes, ignored = decode_picture(picture.content), picture.boxes, picture.ignored
    height, width = image.shape[:2]
    if rng.random() < 0.5:
        image = cv2.flip(image, 1)
        boxes, ignored = _mirrored(boxes, width), _mirrored(ignored, width)
    scale = long_side / max(height, width)
    room = np.array([tile[2] - tile[0], tile[3] - tile[1]])
    shown = np.minimum(np.ceil(room / scale), [width, height]).astype(int)  # in pixels of the picture
    left, top = _corner(shown, (width, height), boxes, rng)
    part = image[top : top + shown[1], left : left + shown[0]]
    sides = np.minimum(np.maximum(1, np.round(shown * scale)), room).astype(int)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    x, y = np.array(tile[:2]) + rng.integers(0, room - sides + 1)
    canvas[y : y + sides[1], x : x + sides[0]] = cv2.resize(part, tuple(sides.tolist()), interpolation=how)
    boxes, ignored = (_moved(one, (left, top), sides / shown, (int(x), int(y))) for one in (boxes, ignored))
    return _visible(boxes, picture.is_bare, ignored, np.array([x, y, x + sides[0], y + sides[1]], np.float32))


def _corner(shown: NDArray[np.intp], size: tuple[int, int], boxes: Floats, rng: np.random.Generator) -> tuple[int, int]:
    """Return the upper left corner of the part of a picture that is shown."""
    low, high = np.zeros(2), np.array(size) - shown
    if len(boxes) and rng.random() < FACE_CHANCE:
        face = boxes[rng.integers(len(boxes))]
        centre = (face[:2] + face[2:]) / 2
        low, high = np.clip(centre - shown, 0, high), np.clip(centre, 0, high)
    left, top = (
        int(share * (last - first) + first) for share, first, last in zip(rng.random(2), low, high, strict=True)
    )
    return left, top


def _moved(boxes: Floats, corner: tuple[int, int], scales: NDArray[np.float64], to: tuple[int, int]) -> Floats:
    moved = (boxes - np.array(corner * 2)) * np.tile(scales, 2) + np.array(to * 2)
    return np.asarray(moved, np.float32)


def _mirrored(boxes: Floats, width: int) -> Floats:
    x1, y1, x2, y2 = boxes.T
    return np.stack([width - x2, y1, width - x1, y2], axis=1)


def _visible(
    boxes: Floats, is_bare: NDArray[np.bool_], ignored: Floats, part: Floats
) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """Clip boxes to the visible part; return faces to learn, and what to ignore, cut and small faces included."""
    clipped = boxes.clip(np.tile(part[:2], 2), np.tile(part[2:], 2))
    sides = clipped[:, 2:] - clipped[:, :2]
    share = sides.prod(axis=1) / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    is_face = (share >= MIN_VISIBLE_SHARE) & (sides.min(axis=1, initial=np.inf) >= MIN_FACE_PX)
    regions = np.concatenate([ignored.clip(np.tile(part[:2], 2), np.tile(part[2:], 2)), clipped[~is_face]])
    return clipped[is_face], is_bare[is_face], regions[(regions[:, :2] < regions[:, 2:]).all(axis=1)]
