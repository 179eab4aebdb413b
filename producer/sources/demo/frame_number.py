"""Write a number into a frame, and read it back: how the tests know which frame they look at.

The number stands in the upper left corner as two rows of blocks: its 24 bits, and below them their inverse. It survives
JPEG; a frame that holds no whole number, or a mixture of two, reads as None.
"""

from __future__ import annotations

import numpy as np

from pipeline.vision.jpeg import Image

BITS = 24
BLOCK_PX = 16
LARGEST = 2**BITS - 1
CONTRAST = 96  # least difference between a bit's block and its inverse, of 255

_PLACES = np.arange(BITS)


def write_number(frame: Image, number: int) -> None:
    """Write `number` modulo 2**24 into a BGR frame of at least 384 x 32 pixels, in place."""
    bits = (number >> _PLACES) & 1
    rows = np.stack([bits, 1 - bits]).astype(np.uint8) * 255
    blocks = np.kron(rows, np.ones((BLOCK_PX, BLOCK_PX), np.uint8))
    frame[: 2 * BLOCK_PX, : BITS * BLOCK_PX] = blocks[:, :, None]


def read_number(frame: Image) -> int | None:
    """Return the number in a BGR frame, None when it does not hold one."""
    if frame.shape[0] < 2 * BLOCK_PX or frame.shape[1] < BITS * BLOCK_PX:
        return None
    strip = frame[: 2 * BLOCK_PX, : BITS * BLOCK_PX].mean(axis=2).reshape(2, BLOCK_PX, BITS, BLOCK_PX)
    edge = BLOCK_PX // 4  # JPEG smears colour across the edges of blocks
    levels = strip[:, edge:-edge, :, edge:-edge].mean(axis=(1, 3))
    difference = levels[0] - levels[1]
    if np.abs(difference).min() < CONTRAST:
        return None
    return int(((difference > 0).astype(np.int64) << _PLACES).sum())
