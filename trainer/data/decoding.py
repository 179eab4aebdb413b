"""Decode pictures and clips: files in, pixels out.

A picture that is damaged, too large (by its header, before it is decoded), too small or of one plain colour raises
PictureUnusable with the reason. A clip that cannot be decoded has no frames.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as PillowImage

from pipeline.vision.arrays import Image
from pipeline.vision.jpeg import PILLOW_ERRORS, BadImage, check_size

CLIP_FRAMES = 100  # used of a clip, evenly spread; of a shorter clip all
MIN_PICTURE_PX = 8  # the shorter side of a picture that can show a face
MIN_GREY_STD = 1.0  # the standard deviation of grey levels below which a picture is of one plain colour

warnings.filterwarnings("ignore", module=r"PIL\.")  # of damage that it can read; other damage raises
PillowImage.MAX_IMAGE_PIXELS = None  # Pillow's own limit only warns; jpeg.check_size raises


class PictureUnusable(ValueError):
    """A picture cannot be learned from; the message follows its file's name."""


def decode_picture(content: bytes) -> Image:
    """Return a picture, uint8 H x W x 3, BGR, upright; raise PictureUnusable if it cannot be learned from."""
    width, height = _size(content)
    try:
        check_size(width, height)
    except BadImage as error:
        raise PictureUnusable(f"is too large: {error}") from error
    if min(width, height) < MIN_PICTURE_PX:
        raise PictureUnusable(f"is only {width}x{height} pixels large")
    try:
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:  # OpenCV has limits of its own, for example on a side's length
        raise PictureUnusable("is not a picture that can be read") from error
    if picture is None:
        raise PictureUnusable("is not a picture that can be read")
    if cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).std() < MIN_GREY_STD:
        raise PictureUnusable("shows nothing but one plain colour")
    return np.asarray(picture, np.uint8)


def clip_frames(path: Path) -> Iterator[tuple[int, Image]]:
    """Yield number and picture (BGR) of CLIP_FRAMES to 2 CLIP_FRAMES frames of a clip; of a shorter clip, of all.

    The frames are counted first, because a header may have no or a wrong number, as that of a live recording does.
    """
    step = max(1, sum(1 for _ in _grabbed(path)) // CLIP_FRAMES)
    for number, video in enumerate(_grabbed(path)):
        if number % step == 0:
            there, picture = video.retrieve()
            if not there:
                return
            yield number, np.asarray(picture, np.uint8)


def _grabbed(path: Path) -> Iterator[cv2.VideoCapture]:
    """Yield a clip once for each of its frames, which retrieve() then decodes."""
    video = cv2.VideoCapture(str(path))
    try:
        while video.grab():
            yield video
    finally:
        video.release()


def _size(content: bytes) -> tuple[int, int]:
    """Return width and height from the file's header."""
    try:
        with PillowImage.open(io.BytesIO(content)) as image:
            return image.size
    except PILLOW_ERRORS as error:
        raise PictureUnusable("is not a picture that can be read") from error
