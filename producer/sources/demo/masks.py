"""Draw masks for the demo's people: a coloured cloth, as an image with an opacity mask that is laid over the face.

A mask covers the part CANVAS of the photograph at four times its size, and is scaled down with its wearer. All
coordinates are the photograph's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.vision.arrays import Floats, Image

CANVAS = (160.0, 95.0, 290.0, 195.0)  # x1, y1, x2, y2
DRAWN_AT = 4.0  # the mask's pixels for one of the photograph's

# Where cheeks, nose and chin are in the photograph.
OUTLINE = [
    (184, 120), (196, 115), (210, 110), (222, 107), (234, 110), (250, 115), (268, 123), (267, 140), (262, 156),
    (253, 169), (240, 179), (226, 183), (211, 181), (198, 171), (187, 157), (184, 140),
]  # fmt: skip
STRAPS = [[(185, 122), (174, 121)], [(188, 158), (175, 131)], [(267, 125), (277, 127)], [(262, 157), (274, 136)]]
CHIN_Y, NOSE = 172.0, (222.0, 124.0)
FACE_LEFT, FACE_RIGHT = 184.0, 268.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloth:
    """What a mask is made of.

    colour: BGR. pleats: horizontal folds, as surgical masks have; else a vertical seam in the middle.
    """

    colour: tuple[int, int, int]
    pleats: bool


SURGICAL = Cloth(colour=(214, 190, 142), pleats=True)
WHITE = Cloth(colour=(232, 232, 228), pleats=True)
BLACK = Cloth(colour=(46, 42, 40), pleats=False)


def draw_mask(cloth: Cloth) -> tuple[Image, Image]:
    """Return the mask as BGR uint8 and its cover, uint8 0 (face) .. 255 (cloth), both the size of the canvas."""
    width, height = canvas_size()
    cover = _filled(_smooth(OUTLINE))
    x = np.linspace(CANVAS[0], CANVAS[2], width, dtype=np.float32)[None, :]
    y = np.linspace(CANVAS[1], CANVAS[3], height, dtype=np.float32)[:, None]
    light = _light(x, y) * (_pleats(x, y) if cloth.pleats else _seam(x, y))
    weave = np.random.default_rng(1).normal(0, 0.012, (height, width)).astype(np.float32)
    light = light * (1 + cv2.GaussianBlur(weave, (0, 0), 0.8)) - _hem(cover)
    cloth_bgr = np.clip(np.array(cloth.colour, np.float32) * light[:, :, None], 0, 255).astype(np.uint8)
    straps = _straps()
    strap_bgr = np.array([max(60, channel) for channel in cloth.colour], np.float32) * 0.93
    mix = (cover.astype(np.float32) / 255)[:, :, None]
    bgr = (cloth_bgr * mix + strap_bgr * (1 - mix)).astype(np.uint8)
    return bgr, np.maximum(cover, straps)


def canvas_size() -> tuple[int, int]:
    """Return the width and height of a drawn mask in its own pixels."""
    return round((CANVAS[2] - CANVAS[0]) * DRAWN_AT), round((CANVAS[3] - CANVAS[1]) * DRAWN_AT)


def _light(x: Floats, y: Floats) -> Floats:
    """Return the light on the cloth, from the upper left: darker at the cheeks and chin, brighter on the nose."""
    across = (x - (FACE_LEFT + FACE_RIGHT) / 2) / ((FACE_RIGHT - FACE_LEFT) / 2)
    light = 1.0 - 0.26 * np.abs(across) ** 2.2 - 0.07 * across
    nose = np.exp(-(((x - NOSE[0]) / 9) ** 2) - ((y - NOSE[1]) / 15) ** 2)
    beside = np.exp(-(((np.abs(x - NOSE[0]) - 17) / 7) ** 2) - ((y - NOSE[1] + 3) / 12) ** 2)
    chin = 1 / (1 + np.exp(-(y - CHIN_Y) / 2.5))
    return np.asarray(light * (1 + 0.10 * nose - 0.10 * beside) * (1 - 0.30 * chin), np.float32)


def _pleats(x: Floats, y: Floats) -> Floats:
    """Return the shading of three horizontal folds that sag a little, as cloth does."""
    light = np.ones(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for middle_y in (134.0, 148.0, 161.0):
        fold_y = middle_y + 3.0 * (1 - ((x - 226) / 42) ** 2)
        below = y - fold_y
        light -= 0.20 * np.exp(-((below / 0.9) ** 2)) + 0.10 * np.exp(-((below - 2.2) ** 2) / 6) * (below > 0)
        light += 0.05 * np.exp(-((below + 1.8) ** 2) / 3)
    wire = np.exp(-(((y - (110.5 + ((x - 222) / 15) ** 2)) / 0.9) ** 2))  # the piece that is bent over the nose
    return np.asarray(light - 0.08 * wire, np.float32)


def _seam(x: Floats, y: Floats) -> Floats:
    """Return the shading of a vertical seam in the middle, with the cloth rounded on both sides of it."""
    seam_x = 222 + 3.0 * np.sin((y - 107) / 76 * np.pi)
    light = 1 - 0.30 * np.exp(-(((x - seam_x) / 0.9) ** 2)) + 0.25 * np.exp(-(((x - seam_x + 7) / 6) ** 2))
    return np.asarray(light, np.float32)


def _hem(cover: Image) -> Floats:
    """Return the shading along the edge."""
    inside = cv2.distanceTransform((cover > 127).astype(np.uint8), cv2.DIST_L2, 3) / DRAWN_AT
    return np.asarray(0.14 * np.exp(-((inside - 2.6) ** 2) / 0.35) + 0.12 * np.exp(-inside / 0.8), np.float32)


def _straps() -> Image:
    width, height = canvas_size()
    straps = np.zeros((height, width), np.uint8)
    for strap in STRAPS:
        cv2.polylines(straps, [_fixed(np.array(strap, np.float32))], False, 255, 5, cv2.LINE_AA, 4)
    return straps


def _filled(points: Floats) -> Image:
    width, height = canvas_size()
    cover = np.zeros((height, width), np.uint8)
    cv2.fillPoly(cover, [_fixed(points)], 255, cv2.LINE_AA, 4)
    return np.asarray(cv2.GaussianBlur(cover, (0, 0), 1.2), np.uint8)


def _fixed(points: Floats) -> NDArray[np.int32]:
    """Convert the photograph's coordinates to the canvas, in sixteenths of a pixel, as cv2's shift=4 expects."""
    moved: NDArray[Any] = (points - np.array(CANVAS[:2], np.float32)) * DRAWN_AT * 16
    return np.round(moved).astype(np.int32)


def _smooth(corners: list[tuple[int, int]]) -> Floats:
    """Return a closed outline, smoothed by three rounds of Chaikin's algorithm."""
    points = np.array(corners, np.float32)
    for _ in range(3):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], 1).reshape(-1, 2)
    return points
