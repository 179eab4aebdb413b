"""Change an image as cameras do: light, colour, night, blur, motion, noise and JPEG. Pure; uint8 H x W x 3, BGR."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from pipeline.vision.arrays import Image

GREY_CHANCE = 0.08
NIGHT_CHANCE = 0.06
HUE_CHANCE = 0.3
LOW_RESOLUTION_CHANCE = 0.15
BLUR_CHANCE = 0.12
MOTION_CHANCE = 0.06
NOISE_CHANCE = 0.2
JPEG_CHANCE = 0.4

MAX_HUE_SHIFT = 12  # of 180
MAX_MOTION_PX = 13


def add_camera_effects(image: Image, rng: np.random.Generator) -> Image:
    """Return a changed copy of an image."""
    image = _relit(image, rng)
    if rng.random() < LOW_RESOLUTION_CHANCE:
        image = _at_low_resolution(image, rng)
    if rng.random() < BLUR_CHANCE:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 2.0))
    if rng.random() < MOTION_CHANCE:
        image = _in_motion(image, rng)
    if rng.random() < NOISE_CHANCE:
        image = _noisy(image, rng.uniform(2, 12), rng)
    if rng.random() < JPEG_CHANCE:
        image = _through_jpeg(image, int(rng.integers(30, 96)))
    return image


def _relit(image: Image, rng: np.random.Generator) -> Image:
    """Change brightness, contrast, gamma and colours; make some images grey, and some dark and noisy as at night."""
    if rng.random() < HUE_CHANCE:
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        shifted = hsv[..., 0].astype(np.int16) + int(rng.integers(-MAX_HUE_SHIFT, MAX_HUE_SHIFT + 1))
        hsv[..., 0] = (shifted % 180).astype(np.uint8)
        image = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.uint8)
    is_night = rng.random() < NIGHT_CHANCE
    if is_night or rng.random() < GREY_CHANCE:
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        share = rng.uniform(0.5, 1.0) if is_night else 1.0
        image = np.asarray(cv2.addWeighted(grey, share, image, 1 - share, 0), np.uint8)
    levels = np.linspace(0, 1, 256)[:, None] ** np.exp(rng.uniform(-0.4, 0.4))
    levels = (levels - 0.5) * rng.uniform(0.7, 1.3) + 0.5 + rng.uniform(-0.15, 0.15)
    levels = levels * rng.uniform(0.88, 1.12, 3) * (rng.uniform(0.15, 0.45) if is_night else 1.0)
    relit = np.asarray(cv2.LUT(image, np.clip(levels * 255, 0, 255).astype(np.uint8).reshape(256, 1, 3)), np.uint8)
    return _noisy(relit, rng.uniform(2, 8), rng) if is_night else relit


def _at_low_resolution(image: Image, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    share = rng.uniform(0.4, 0.9)
    small = cv2.resize(image, (round(share * width), round(share * height)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _in_motion(image: Image, rng: np.random.Generator) -> Image:
    """Smear an image along a line."""
    length = int(rng.integers(3, MAX_MOTION_PX + 1))
    kernel = np.zeros((length, length), np.float32)
    angle, middle = rng.uniform(0, np.pi), (length - 1) / 2
    ends = [
        (round(middle + side * middle * np.cos(angle)), round(middle + side * middle * np.sin(angle)))
        for side in (-1, 1)
    ]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)


def _noisy(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    noise = rng.standard_normal(image.shape, np.float32) * np.float32(sigma)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def _through_jpeg(image: Image, quality: int) -> Image:
    _, jpeg = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))
    decoded: Any = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)  # never None: it was just encoded
    return np.asarray(decoded, np.uint8)
