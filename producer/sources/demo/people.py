"""The demo's people: one photograph, cut out, in different sizes, light and clothes, with and without a mask.

`Person.draw` draws a person into a frame, rotated about the neck, with the mask on, off, or moving.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.vision.arrays import Image
from producer.sources.demo import masks
from producer.sources.demo.masks import Cloth
from producer.sources.source import SourceFailed

# Eileen Collins, photographed by NASA: in the public domain. `make setup` fetches it.
PHOTOGRAPH = Path(__file__).parents[2] / "assets" / "astronaut.png"
PHOTOGRAPH_PX = 512

BUST = (14, 10, 366, 346)  # x1, y1, x2, y2 of head and shoulders in the photograph
FACE = (178.2, 62.9, 268.1, 176.2)  # the face's box
NECK = (222.0, 185.0)  # about which the person rotates
SILHOUETTE = [
    (251, 19), (238, 18), (227, 16), (214, 21), (205, 21), (193, 29), (189, 35), (174, 43), (156, 58), (153, 68),
    (155, 98), (157, 104), (167, 115), (170, 121), (174, 128), (182, 132), (182, 141), (186, 150), (176, 151),
    (160, 154), (140, 165), (128, 177), (124, 184), (116, 186), (113, 195), (115, 204), (107, 211), (90, 227),
    (76, 235), (62, 250), (54, 267), (44, 282), (40, 294), (34, 315), (26, 342), (24, 380), (366, 380), (360, 328),
    (356, 302), (352, 287), (345, 272), (340, 262), (314, 240), (305, 236), (302, 222), (294, 207), (284, 194),
    (270, 183), (256, 175), (256, 163), (264, 149), (266, 137), (275, 134), (290, 117), (296, 107), (300, 92),
    (299, 72), (296, 58), (289, 45), (279, 37), (267, 28),
]  # fmt: skip
# What of the head is not hair: the face under its fringe, and the ears.
BARE_HEAD = [
    (170, 119), (180, 117), (183, 96), (186, 80), (190, 75), (197, 81), (214, 80), (232, 82), (250, 88), (262, 91),
    (268, 98), (269, 119), (274, 130), (281, 126), (290, 180), (160, 180),
]  # fmt: skip
HAIR_BOTTOM_Y = 140
SUIT_HUES = (0, 14)  # OpenCV's hue, 0..179, of the orange suit
SUIT_TOP_Y = 195


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a person differs from the photograph.

    face_px: height of the face. suit_hue: added to the suit's, OpenCV's 0..179. light: of 1. warmth: -1 (blue) .. 1.
    hair: gains of blue, green and red.
    """

    face_px: float
    mirrored: bool
    suit_hue: int
    hair: tuple[float, float, float]
    light: float
    warmth: float
    cloth: Cloth


class Person:
    """A person, ready to be drawn at one size."""

    def __init__(self, photograph: Image, look: Look) -> None:
        self.scale = look.face_px / (FACE[3] - FACE[1])
        self._mirrored = look.mirrored
        body, cover = _cut_out(photograph, look)
        self._body = _Layer(body, cover, (BUST[0], BUST[1]), self.scale, self.scale)
        mask, mask_cover = masks.draw_mask(look.cloth)
        mask = _in_light(mask, 0.35 + 0.65 * look.light, look.warmth)
        shrunk = self.scale / masks.DRAWN_AT
        self._mask = _Layer(mask, mask_cover, (masks.CANVAS[0], masks.CANVAS[1]), self.scale, shrunk)

    def draw(self, frame: Image, *, x: float, y: float, rotation_degrees: float, mask_off: float) -> None:
        """Draw the person into a BGR frame, in place.

        Args:
            x, y: where the middle of the face is, pixels.
            mask_off: 0 the mask is on, 1 it is off; between them it moves.
        """
        to_frame = self.to_frame(x, y, rotation_degrees)
        self._body.draw(frame, to_frame, 1.0)
        if mask_off < 1:
            slid = to_frame.copy()
            slid[:, 2] += to_frame[:, 1] * (FACE[3] - FACE[1]) * 0.8 * mask_off**2
            self._mask.draw(frame, slid, min(1.0, 2 - 2 * mask_off))

    def to_frame(self, x: float, y: float, rotation_degrees: float) -> NDArray[np.float64]:
        """Return the affine map from the photograph to the frame, 2 x 3."""
        angle = np.deg2rad(rotation_degrees)
        flip = -1.0 if self._mirrored else 1.0
        rotation = self.scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        rotation = rotation @ np.array([[flip, 0.0], [0.0, 1.0]])
        face = np.array([(FACE[0] + FACE[2]) / 2, (FACE[1] + FACE[3]) / 2])
        upright = self.scale * np.array([flip * (face[0] - NECK[0]), face[1] - NECK[1]])
        neck = np.array([x, y]) - upright  # the neck stays in place while the head tilts
        return np.hstack([rotation, (neck - rotation @ np.array(NECK))[:, None]])


class _Layer:
    """A cut-out at its final size, premultiplied by its opacity, so that drawing is one product and one sum."""

    def __init__(self, bgr: Image, cover: Image, corner: tuple[float, float], scale: float, resized_by: float) -> None:
        size = (max(1, round(bgr.shape[1] * resized_by)), max(1, round(bgr.shape[0] * resized_by)))
        how = cv2.INTER_AREA if resized_by < 1 else cv2.INTER_CUBIC
        opacity = cv2.resize(cover, size, interpolation=how).astype(np.float32)[:, :, None] / 255
        colour = cv2.resize(bgr, size, interpolation=how) * opacity
        # three channels of colour and one of transparency: warping them together takes half the time of two images
        self._pixels = np.round(np.dstack([colour, 255 - 255 * opacity])).astype(np.uint8)
        # from this layer's pixels to the photograph's
        self._to_photograph = np.array([[1 / scale, 0, corner[0]], [0, 1 / scale, corner[1]], [0, 0, 1]])

    def draw(self, frame: Image, to_frame: NDArray[np.float64], opacity: float) -> None:
        full = np.vstack([to_frame, [0, 0, 1]]) @ self._to_photograph
        height, width = self._pixels.shape[:2]
        corners = full[:2] @ np.array([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]])
        x1, y1 = np.maximum(np.floor(corners.min(axis=1)).astype(int), 0)
        x2, y2 = np.minimum(np.ceil(corners.max(axis=1)).astype(int), (frame.shape[1], frame.shape[0]))
        if x2 <= x1 or y2 <= y1:
            return
        shift = full[:2].copy()
        shift[:, 2] -= (x1, y1)
        size = (int(x2 - x1), int(y2 - y1))
        warped = cv2.warpAffine(self._pixels, shift, size, flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0, 255))
        if opacity < 1:
            warped = cv2.addWeighted(warped, opacity, np.full_like(warped, (0, 0, 0, 255)), 1 - opacity, 0)
        transparency = cv2.cvtColor(cv2.extractChannel(warped, 3), cv2.COLOR_GRAY2BGR)
        part = frame[y1:y2, x1:x2]
        cv2.add(cv2.multiply(part, transparency, scale=1 / 255), cv2.cvtColor(warped, cv2.COLOR_BGRA2BGR), dst=part)


def load_photograph(path: Path = PHOTOGRAPH) -> Image:
    """Return the photograph, BGR.

    Raises:
        SourceFailed: it is missing or damaged; says how to get it.
    """
    photograph = cv2.imread(str(path)) if path.is_file() else None
    if photograph is None or photograph.shape != (PHOTOGRAPH_PX, PHOTOGRAPH_PX, 3):
        raise SourceFailed(f"the demo's photograph {path} is missing or damaged; run `make setup`")
    return np.asarray(photograph, np.uint8)


def _cut_out(photograph: Image, look: Look) -> tuple[Image, Image]:
    """Return head and shoulders with the light and clothes of a look, and their opacity."""
    cover = np.zeros(photograph.shape[:2], np.uint8)
    cv2.fillPoly(cover, [np.array(SILHOUETTE, np.int32)], 255, cv2.LINE_AA)
    cover = np.asarray(cv2.GaussianBlur(cv2.erode(cover, np.ones((3, 3), np.uint8)), (0, 0), 1.3), np.uint8)
    dressed = _in_light(_dyed(_dressed(photograph, look.suit_hue), look.hair), look.light, look.warmth)
    x1, y1, x2, y2 = BUST
    return dressed[y1:y2, x1:x2], cover[y1:y2, x1:x2]


def _dressed(photograph: Image, suit_hue: int) -> Image:
    """Return the photograph with the suit in another, duller colour; 0 changes nothing."""
    if suit_hue == 0:
        return photograph
    hsv = cv2.cvtColor(photograph, cv2.COLOR_BGR2HSV).astype(np.int32)
    suit = (hsv[:, :, 0] >= SUIT_HUES[0]) & (hsv[:, :, 0] <= SUIT_HUES[1]) & (hsv[:, :, 1] > 90)
    suit[:SUIT_TOP_Y] = False
    hsv[suit] = np.stack([(hsv[suit, 0] + suit_hue) % 180, hsv[suit, 1] * 0.55, hsv[suit, 2] * 0.72], axis=1)
    return np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2BGR), np.uint8)


def _dyed(photograph: Image, gains: tuple[float, float, float]) -> Image:
    hair = np.zeros(photograph.shape[:2], np.float32)
    hair[:HAIR_BOTTOM_Y] = 1
    cv2.fillPoly(hair, [np.array(BARE_HEAD, np.int32)], 0.0)
    weight = cv2.GaussianBlur(hair, (0, 0), 2.0)[:, :, None]
    return np.asarray(np.clip(photograph * (1 - weight + weight * np.array(gains)), 0, 255), np.uint8)


def _in_light(bgr: Image, light: float, warmth: float) -> Image:
    gains = light * np.array([1 - 0.10 * warmth, 1.0, 1 + 0.08 * warmth])
    return np.asarray(np.clip(bgr * gains, 0, 255), np.uint8)
