"""Pictures and films as files: only SourceFailed or a frame's own error comes out, in little memory and time."""

from __future__ import annotations

import logging
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from bench.clip import data_folder
from bench.fuzz.mutate import mutated_bytes
from bench.fuzz.rounds import BrokenPromise, Round, limit_memory, noting
from pipeline.vision.jpeg import BadImage, decode_jpeg
from producer.sources.picture_file import read_picture
from producer.sources.source import SourceFailed, SourceFrame
from producer.sources.source_spec import parse_source

MAX_MEMORY = 1_000_000_000  # bytes, on top of what the process has when it begins
MAX_S = 10.0  # of processor time for one file
MAX_FRAMES = 100
HEAD_BYTES = 1_500  # of a file, in which half of the damage is done
# suffix, Pillow's name of the format, options
PICTURES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("jpg", "JPEG", {}),
    ("png", "PNG", {}),
    ("webp", "WEBP", {}),
    ("gif", "GIF", {}),
    ("tif", "TIFF", {"compression": "tiff_lzw"}),
    ("bmp", "BMP", {}),
    ("heic", "HEIF", {}),
    ("avif", "AVIF", {}),
)
# suffix, codecs of pictures and sound
FILMS = (
    ("mp4", "libx264", "aac"),
    ("mkv", "libx265", "ac3"),
    ("webm", "libvpx", "libvorbis"),
    ("ts", "libx264", "mp2"),
    ("mpg", "mpeg2video", "mp2"),
    ("avi", "mjpeg", "pcm_s16le"),
    ("wmv", "wmv2", "wmav2"),
)


@contextmanager
def ready() -> Iterator[Round]:
    """Yield the round, with a picture and a film of each kind."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        valid = [(path.suffix, path.read_bytes()) for path in (*_pictures(folder), *_films(folder))]
        limit_memory(MAX_MEMORY)

        def one_round(random: Random) -> int:
            for _ in range(10):
                suffix, content = random.choice(valid)
                path = folder / f"damaged{suffix}"
                path.write_bytes(_damaged(random, content, [other for _, other in valid]))
                with noting((suffix, path.read_bytes()[:HEAD_BYTES])):
                    check(path)
            return 10

        yield one_round


def check(path: Path) -> None:
    """Read a file to its end."""
    begun = time.process_time()
    try:
        source = parse_source(str(path)).open()
        for frame in islice(source, MAX_FRAMES):
            _check_frame(frame)
        source.close()
    except SourceFailed as error:
        if "\n" in str(error) or not str(error):
            raise BrokenPromise("an error that is not one line") from error
    if time.process_time() - begun > MAX_S:
        raise BrokenPromise(f"a file took {time.process_time() - begun:.0f} s")


def _check_frame(frame: SourceFrame) -> None:
    if (frame.image is not None) + (frame.jpeg is not None) + (frame.error is not None) != 1:
        raise BrokenPromise("a frame with more or less than one of an image, a JPEG and an error")
    image = frame.image
    if frame.jpeg is not None:
        try:
            image = decode_jpeg(frame.jpeg)
        except BadImage:
            return
    if image is not None and (image.dtype != np.uint8 or image.shape != (frame.height, frame.width, 3)):
        raise BrokenPromise(f"an image of {image.dtype} {image.shape} in a frame of {frame.width}x{frame.height}")


def _damaged(random: Random, content: bytes, others: list[bytes]) -> bytes:
    if random.random() < 0.5:
        return mutated_bytes(random, content[:HEAD_BYTES], [random.choice(others)]) + content[HEAD_BYTES:]
    return mutated_bytes(random, content, [random.choice(others)])


def _pictures(folder: Path) -> Iterator[Path]:
    found = min((data_folder() / "face-mask-detection" / "images").iterdir())
    assert read_picture(found, 0).error is None  # loads what HEIC is written with, too
    picture = Image.open(found).convert("RGB").resize((160, 120))
    for suffix, name, options in PICTURES:
        path = folder / f"valid.{suffix}"
        picture.save(path, name, **options)
        yield path


def _films(folder: Path) -> Iterator[Path]:
    for suffix, codec, sound in FILMS:
        path = folder / f"valid.{suffix}"
        inputs = ["-f", "lavfi", "-i", "testsrc2=size=160x128:rate=25", "-f", "lavfi", "-i", "sine=sample_rate=44100"]
        command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-y", *inputs, "-t", "0.6", "-c:v", codec]
        subprocess.run([*command, "-c:a", sound, str(path)], check=True, stderr=subprocess.DEVNULL)
        yield path
