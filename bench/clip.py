"""Render the clips of the benchmarks: 20 frames per second, panning over photographs chosen by a seed.

The photographs are those of face-mask-detection under MASKWATCH_DATA. A clip is rendered once, into bench/out.
"""

from __future__ import annotations

import math
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

from trainer.data.annotations import read_annotations

OUT = Path(__file__).parent / "out"
WIDTH, HEIGHT, FPS = 1280, 720, 20
SHOT_FRAMES = 60  # frames per photograph
SEED = 0
FACES_TOLERANCE = 0.3  # of the number of faces that is asked for


def bench_clip(seconds: int, seed: int = SEED, *, width: int = WIDTH, faces: int | None = None) -> Path:
    """Return the clip of that length; render it if it does not exist.

    Args:
        seconds: its length.
        seed: of the choice of photographs.
        width: in pixels, even; the height is nine sixteenths of it.
        faces: about how many of them the photographs show; None for any photographs.
    """
    height = width * HEIGHT // WIDTH
    path = OUT / f"clip-{seconds}s-{seed}-{width}px-{faces or 'any'}-faces.mp4"
    if path.exists():
        return path
    photographs = _photographs(faces)
    random.Random(seed).shuffle(photographs)
    OUT.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    with av.open(str(part), "w", format="mp4") as file:
        stream = file.add_stream(
            "libx264", rate=Fraction(FPS), options={"preset": "veryfast", "crf": "20", "threads": "1"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(seconds * FPS):
            shot, step = divmod(number, SHOT_FRAMES)
            photograph = np.asarray(Image.open(photographs[shot % len(photographs)]).convert("RGB"))[:, :, ::-1]
            window = _panned(photograph, step / SHOT_FRAMES, width, height)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(window, format="bgr24")))
        file.mux(stream.encode())
    part.replace(path)
    return path


def data_folder() -> Path:
    """Return the folder of data sets; exit with one line if it does not exist."""
    folder = Path(os.environ.get("MASKWATCH_DATA", "../shared/data"))
    if not (folder / "face-mask-detection" / "images").is_dir():
        sys.exit(f"bench: {folder}/face-mask-detection/images does not exist; set MASKWATCH_DATA")
    return folder


def _photographs(faces: int | None) -> list[Path]:
    """Return the photographs of the data set in order of their names, if a number is given those with about so many."""
    folder = data_folder() / "face-mask-detection"
    if faces is None:
        return sorted((folder / "images").iterdir())
    around = range(math.ceil(faces * (1 - FACES_TOLERANCE)), math.floor(faces * (1 + FACES_TOLERANCE)) + 1)
    return [picture.path for picture in read_annotations(folder) if len(picture.faces) in around]


def _panned(photograph: NDArray[np.uint8], progress: float, width: int, height: int) -> NDArray[np.uint8]:
    """Return a window of that size that moves over the photograph, which is scaled to a tenth more than the window."""
    own_height, own_width = photograph.shape[:2]
    factor = 1.1 * max(width / own_width, height / own_height)
    left = (own_width * factor - width) * progress
    top = (own_height * factor - height) * progress
    matrix = np.array([[factor, 0, -left], [0, factor, -top]], np.float32)
    window: NDArray[np.uint8] = cv2.warpAffine(photograph, matrix, (width, height), flags=cv2.INTER_LINEAR)
    return window
