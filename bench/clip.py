"""Render the bench's own clip: 1280x720 at 20 frames a second, panning over street photographs; the same for one seed.

The pictures are those of face-mask-detection under MASKWATCH_DATA. The clip lies in bench/out and is made once.
"""

from __future__ import annotations

import os
import random
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

OUT = Path(__file__).parent / "out"
WIDTH, HEIGHT, FPS = 1280, 720, 20
SHOT_FRAMES = 60  # frames that one photograph is panned over
SEED = 0


def clip(seconds: int, seed: int = SEED) -> Path:
    """Return the clip of that length, rendering it when it is not there yet."""
    path = OUT / f"clip-{seconds}s-{seed}.mp4"
    if path.exists():
        return path
    pictures = sorted(data_folder().joinpath("face-mask-detection", "images").iterdir())
    random.Random(seed).shuffle(pictures)
    OUT.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    with av.open(str(part), "w", format="mp4") as file:
        stream = file.add_stream(
            "libx264", rate=Fraction(FPS), options={"preset": "veryfast", "crf": "20", "threads": "1"}
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(seconds * FPS):
            shot, step = divmod(number, SHOT_FRAMES)
            picture = np.asarray(Image.open(pictures[shot % len(pictures)]).convert("RGB"))[:, :, ::-1]
            file.mux(stream.encode(av.VideoFrame.from_ndarray(_panned(picture, step / SHOT_FRAMES), format="bgr24")))
        file.mux(stream.encode())
    part.replace(path)
    return path


def data_folder() -> Path:
    """Return the folder of real pictures; end with one line when it is not there."""
    folder = Path(os.environ.get("MASKWATCH_DATA", "../shared/data"))
    if not (folder / "face-mask-detection" / "images").is_dir():
        sys.exit(f"bench: {folder}/face-mask-detection/images does not exist; set MASKWATCH_DATA")
    return folder


def _panned(picture: NDArray[np.uint8], progress: float) -> NDArray[np.uint8]:
    """Return a 1280x720 window that moves over the picture, which is scaled to a tenth more than it."""
    height, width = picture.shape[:2]
    factor = 1.1 * max(WIDTH / width, HEIGHT / height)
    left = (width * factor - WIDTH) * progress
    top = (height * factor - HEIGHT) * progress
    matrix = np.array([[factor, 0, -left], [0, factor, -top]], np.float32)
    window: NDArray[np.uint8] = cv2.warpAffine(picture, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
    return window
