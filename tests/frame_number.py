"""Read the number that the numbered demo writes into its frames."""

from __future__ import annotations

import numpy as np

from pipeline.vision.arrays import Image
from producer.sources.demo.frame_number import BITS, BLOCK_PX

MAX_NUMBER = 2**BITS - 1
MIN_CONTRAST = 96  # difference between a bit's block and its inverse, of 255


def read_number(frame: Image) -> int | None:
    """Return the number in a BGR frame; None when there is none, or a mixture of two."""
    if frame.shape[0] < 2 * BLOCK_PX or frame.shape[1] < BITS * BLOCK_PX:
        return None
    strip = frame[: 2 * BLOCK_PX, : BITS * BLOCK_PX].mean(axis=2).reshape(2, BLOCK_PX, BITS, BLOCK_PX)
    edge = BLOCK_PX // 4  # JPEG smears colour across the edges of blocks
    levels = strip[:, edge:-edge, :, edge:-edge].mean(axis=(1, 3))
    difference = levels[0] - levels[1]
    if np.abs(difference).min() < MIN_CONTRAST:
        return None
    return int(((difference > 0).astype(np.int64) << np.arange(BITS)).sum())
