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
            # Each has shades of its own: pictures that look alike are looked at closely, for they might be copies.
            shades = cv2.resize(rng.uniform(-75, 75, (7, 7, 3)), (40, 40), interpolation=cv2.INTER_CUBIC)
            picture = np.clip(128 + shades + rng.uniform(-28, 28, (40, 40, 3)), 0, 255).astype(np.uint8)
            picture[20:] = np.clip(lower + 0.7 * shades[20:] + rng.uniform(-25, 25, (20, 40, 3)), 0, 255)
            cv2.imwrite(str(folder / name / f"{seed}-{number}.png"), picture)
    return folder
