"""Images from the network: only BadImage comes out, whatever the bytes, in little memory and time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from random import Random

import cv2
import numpy as np
from PIL import Image

from bench.clip import data_folder
from bench.fuzz.mutate import arbitrary_bytes, mutated_bytes
from bench.fuzz.rounds import BrokenPromise, Round, limit_memory, noting
from pipeline.vision.jpeg import BadImage, check_size, decode_jpeg, jpeg_size, unpack_crops

MAX_MEMORY = 1_500_000_000  # bytes: ten times an image of the most pixels
MAX_S = 20.0  # of processor time for one image
PICTURES = 40
HEAD_BYTES = 700  # of a JPEG, in which half of the damage is done


@contextmanager
def ready() -> Iterator[Round]:
    """Yield the round, with real pictures, also grey, CMYK, progressive and tiny ones."""
    found = sorted((data_folder() / "face-mask-detection" / "images").iterdir())[:PICTURES]
    valid = [jpeg for path in found for jpeg in _encoded(Image.open(path).convert("RGB"))]
    limit_memory(MAX_MEMORY)

    def one_round(random: Random) -> int:
        for _ in range(50):
            jpeg = arbitrary_bytes(random) if random.random() < 0.1 else _damaged(random, valid)
            with noting(jpeg):
                check(random, jpeg)
        return 50

    yield one_round


def check(random: Random, jpeg: bytes) -> None:
    """Decode an image in every way."""
    begun = time.process_time()
    with suppress(BadImage):
        width, height = jpeg_size(jpeg)
        check_size(width, height)
    for at_least_px in (None, random.choice((1, 64, 960, 4096))):
        with suppress(BadImage):
            image = decode_jpeg(jpeg, at_least_px=at_least_px)
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise BrokenPromise(f"an image of {image.dtype} {image.shape}")
    with suppress(BadImage):
        check_size(random.randint(-(2**40), 2**40), random.randint(-1, 2**33))
    with suppress(BadImage):
        unpack_crops(jpeg, random.choice((0, 1, 2, 128)), random.choice((8, 112, 512)))
    if time.process_time() - begun > MAX_S:
        raise BrokenPromise(f"an image took {time.process_time() - begun:.0f} s")


def _damaged(random: Random, valid: list[bytes]) -> bytes:
    jpeg = random.choice(valid)
    if random.random() < 0.5:
        return mutated_bytes(random, jpeg[:HEAD_BYTES], [random.choice(valid)]) + jpeg[HEAD_BYTES:]
    return mutated_bytes(random, jpeg, [random.choice(valid)])


def _encoded(picture: Image.Image) -> Iterator[bytes]:
    """Yield a picture as JPEG of several kinds."""
    picture.thumbnail((320, 320))
    array = np.asarray(picture)[:, :, ::-1]
    progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    restarts = [cv2.IMWRITE_JPEG_RST_INTERVAL, 4]
    for image, flags in (
        (array, []),
        (array, progressive),
        (array, restarts),
        (array[:, :, 0], []),
        (array[:1, :1], []),
    ):
        yield cv2.imencode(".jpg", np.ascontiguousarray(image), flags)[1].tobytes()
    yield _cmyk(picture)


def _cmyk(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.convert("CMYK").save(file, "JPEG")
    return file.getvalue()
