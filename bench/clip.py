"""Render the clip of the benchmarks: 1280x720 at 20 frames per second, panning over photographs chosen by a seed.

The photographs are those of face-mask-detection under MASKWATCH_DATA. A clip is rendered once, into bench/out.
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
SHOT_FRAMES = 60  # frames per photograph
SEED = 0


def bench_clip(seconds: int, seed: int = SEED) -> Path:
    """Return the clip of that length; render it if it does not exist."""
    path = OUT / f"clip-{seconds}s-{seed}.mp4"
    if path.exists():
        return path
    photographs = sorted(data_folder().joinpath("face-mask-detection", "images").iterdir())
    random.Random(seed).shuffle(photographs)
    OUT.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    with av.open(str(part), "w", format="mp4") as file:
        stream = file.add_stream(
            "libx264", rate=Fraction(FPS), options={"preset": "veryfast", "crf": "20", "threads": "1"}
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(seconds * FPS):
            shot, step = divmod(number, SHOT_FRAMES)
            photograph = np.asarray(Image.open(photographs[shot % len(photographs)]).convert("RGB"))[:, :, ::-1]
            file.mux(stream.encode(av.VideoFrame.from_ndarray(_panned(photograph, step / SHOT_FRAMES), format="bgr24")))
        file.mux(stream.encode())
    part.replace(path)
    return path


def data_folder() -> Path:
    """Return the folder of data sets; exit with one line if it does not exist."""
    folder = Path(os.environ.get("MASKWATCH_DATA", "../shared/data"))
    if not (folder / "face-mask-detection" / "images").is_dir():
        sys.exit(f"bench: {folder}/face-mask-detection/images does not exist; set MASKWATCH_DATA")
    return folder


def _panned(photograph: NDArray[np.uint8], progress: float) -> NDArray[np.uint8]:
    """Return a 1280x720 window that moves over the photograph, which is scaled to a tenth more than the window."""
    height, width = photograph.shape[:2]
    factor = 1.1 * max(WIDTH / width, HEIGHT / height)
    left = (width * factor - WIDTH) * progress
    top = (height * factor - HEIGHT) * progress
    matrix = np.array([[factor, 0, -left], [0, factor, -top]], np.float32)
    window: NDArray[np.uint8] = cv2.warpAffine(photograph, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
    return window
