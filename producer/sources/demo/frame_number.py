"""Write a number into a frame's pixels, by which a reader identifies it, also after JPEG compression.

The number is in the upper left corner as two rows of blocks: its 24 bits, and below them their inverse.
"""

from __future__ import annotations

import numpy as np

from pipeline.vision.arrays import Image

BITS = 24
BLOCK_PX = 16


def write_number(frame: Image, number: int) -> None:
    """Write `number` modulo 2**24 into a BGR frame of at least 384 x 32 pixels, in place."""
    bits = (number >> np.arange(BITS)) & 1
    rows = np.stack([bits, 1 - bits]).astype(np.uint8) * 255
    blocks = np.kron(rows, np.ones((BLOCK_PX, BLOCK_PX), np.uint8))
    frame[: 2 * BLOCK_PX, : BITS * BLOCK_PX] = blocks[:, :, None]
