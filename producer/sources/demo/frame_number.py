"""Write a number into a frame's pixels, and read it back: tests identify frames by it.

The number is in the upper left corner as two rows of blocks: its 24 bits, and below them their inverse. It survives
JPEG compression; a frame without a number, or a mixture of two frames, reads as None.
"""

from __future__ import annotations

import numpy as np

from pipeline.vision.jpeg import Image

BITS = 24
BLOCK_PX = 16
MAX_NUMBER = 2**BITS - 1
MIN_CONTRAST = 96  # difference between a bit's block and its inverse, of 255

_BIT_INDICES = np.arange(BITS)


def write_number(frame: Image, number: int) -> None:
    """Write `number` modulo 2**24 into a BGR frame of at least 384 x 32 pixels, in place."""
    bits = (number >> _BIT_INDICES) & 1
    rows = np.stack([bits, 1 - bits]).astype(np.uint8) * 255
    blocks = np.kron(rows, np.ones((BLOCK_PX, BLOCK_PX), np.uint8))
    frame[: 2 * BLOCK_PX, : BITS * BLOCK_PX] = blocks[:, :, None]


def read_number(frame: Image) -> int | None:
    """Return the number in a BGR frame; None when there is none."""
    if frame.shape[0] < 2 * BLOCK_PX or frame.shape[1] < BITS * BLOCK_PX:
        return None
    strip = frame[: 2 * BLOCK_PX, : BITS * BLOCK_PX].mean(axis=2).reshape(2, BLOCK_PX, BITS, BLOCK_PX)
    edge = BLOCK_PX // 4  # JPEG smears colour across the edges of blocks
    levels = strip[:, edge:-edge, :, edge:-edge].mean(axis=(1, 3))
    difference = levels[0] - levels[1]
    if np.abs(difference).min() < MIN_CONTRAST:
        return None
    return int(((difference > 0).astype(np.int64) << _BIT_INDICES).sum())
