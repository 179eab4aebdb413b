"""Toy data sets that a network learns in an epoch."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def write_faces(folder: Path, count: int, seed: int) -> Path:
    """Write toy faces: bright ones with a dark lower half wear a mask, those with a bright lower half do not."""
    rng = np.random.default_rng(seed)
    for name, lower in (("with_mask", 30), ("without_mask", 220)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            picture = rng.integers(100, 156, (40, 40, 3), np.uint8)
            picture[20:] = rng.integers(lower - 25, lower + 25, (20, 40, 3), np.uint8)
            cv2.imwrite(str(folder / name / f"{seed}-{number}.png"), picture)
    return folder
