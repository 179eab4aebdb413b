"""Hash a face so that copies of it have similar hashes: picture and box in, two small grey pictures out. Pure.

One picture shows the face's box, independent of its surroundings; the other shows the whole picture, independent of the
box. A copy in which one of the two has moved is found by the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from models.classifier.mask_classifier import crop_faces
from pipeline.vision.arrays import Image

HASH_PX = 64  # side of both pictures
MIN_SEEN_PX = 18  # a picture with a shorter side resembles every other one: its hash is left black
PICTURE_MARGIN = 0.15  # the margin around a face in a photograph of many people, as a share of its box


@dataclass(frozen=True, slots=True)
class PerceptualHash:
    """picture: the whole picture, or the face's surroundings in it. face: the square round its box. uint8 64 x 64."""

    picture: Image
    face: Image


def perceptual_hash(picture: Image, box: tuple[float, float, float, float], *, is_alone: bool) -> PerceptualHash:
    """Hash a face in a picture (uint8 H x W x 3, BGR); is_alone: whether the picture shows this face alone."""
    is_clear = min(box[2] - box[0], box[3] - box[1]) >= MIN_SEEN_PX
    plain = np.zeros((HASH_PX, HASH_PX), np.uint8)
    face = _square(picture, box, 0.0) if is_clear else plain
    if not is_alone:
        return PerceptualHash(picture=_square(picture, box, PICTURE_MARGIN) if is_clear else plain, face=face)
    shorter, longer = sorted(picture.shape[:2])
    if shorter < MIN_SEEN_PX:
        return PerceptualHash(picture=plain, face=face)
    interpolation = cv2.INTER_AREA if longer > HASH_PX else cv2.INTER_LINEAR
    small = cv2.resize(picture, (HASH_PX, HASH_PX), interpolation=interpolation)
    return PerceptualHash(picture=_grey(small), face=face)


def _square(picture: Image, box: tuple[float, float, float, float], margin: float) -> Image:
    crop = crop_faces(picture, np.array([box], np.float32), HASH_PX, margin)[0]
    return _grey(cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))


def _grey(picture: Image) -> Image:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)
