"""Labels of data sets: only DatasetUnusable comes out, or faces that are inside their pictures, in little memory."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from PIL import Image

from bench.fuzz.mutate import mutated_bytes
from bench.fuzz.rounds import BrokenPromise, Round, limit_memory, noting
from trainer.data.annotations import DatasetUnusable
from trainer.data.faces import find_faces
from trainer.data.sources import read_source

MAX_MEMORY = 1_000_000_000  # bytes, on top of what the process has when it begins
MAX_S = 10.0  # of processor time for one data set
WIDTH, HEIGHT = 120, 80
XML = (
    "<annotation><filename>a.jpg</filename><size><width>120</width><height>80</height><depth>3</depth></size>"
    "<object><name>with_mask</name><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>40</xmax><ymax>60</ymax></bndbox></object>"
    "<object><name>without_mask</name><bndbox><xmin>60</xmin><ymin>5</ymin><xmax>99.5</xmax><ymax>70</ymax></bndbox>"
    "</object></annotation>"
)
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 0, "bbox": [10, 20, 30, 40]},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [60, 5, 39.5, 65], "segmentation": [[60, 5, 99, 5, 99, 70]]},
    ],
    "categories": [{"id": 0, "name": "mask"}, {"id": 1, "name": "no-mask"}],
}
YAML = "train: images\nnames:\n  0: mask\n  1: no_mask\n"
YOLO = "0 0.2 0.5 0.25 0.5\n1 0.5 0.1 0.8 0.1 0.8 0.9\n"
# What each data set consists of besides its picture, a.jpg.
DATA_SETS: tuple[dict[str, bytes], ...] = (
    {"a.xml": XML.encode()},
    {"_annotations.coco.json": json.dumps(COCO).encode()},
    {"a.txt": YOLO.encode(), "data.yaml": YAML.encode()},
    {"a.txt": YOLO.encode(), "classes.txt": b"mask\nno_mask\n"},
)


@contextmanager
def ready() -> Iterator[Round]:
    """Yield the round, with a data set of each kind."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        picture = folder / "a.jpg"
        Image.effect_noise((WIDTH, HEIGHT), 60).convert("RGB").save(picture)
        limit_memory(MAX_MEMORY)

        def one_round(random: Random) -> int:
            for _ in range(20):
                files = dict(random.choice(DATA_SETS))
                damaged = random.choice(sorted(files))
                files[damaged] = mutated_bytes(random, files[damaged], [*random.choice(DATA_SETS).values()])
                with noting(files):
                    _check(folder, files)
            return 20

        yield one_round


def _check(folder: Path, files: dict[str, bytes]) -> None:
    """Read a data set of these files."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    begun = time.process_time()
    try:
        for file in find_faces(read_source(str(folder)).items, "fuzzed", "fuzzed"):
            for face in file.faces:
                _check_box(face.box)
    except DatasetUnusable as error:
        if "\n" in str(error) or not str(error):
            raise BrokenPromise("an error that is not one line") from error
    finally:
        for name in files:
            (folder / name).unlink()
    if time.process_time() - begun > MAX_S:
        raise BrokenPromise(f"a data set took {time.process_time() - begun:.0f} s")


def _check_box(box: tuple[float, float, float, float]) -> None:
    x1, y1, x2, y2 = box
    if not all(map(math.isfinite, box)) or not (0 <= x1 < x2 <= WIDTH and 0 <= y1 < y2 <= HEIGHT):
        raise BrokenPromise(f"a face at {box} in a picture of {WIDTH}x{HEIGHT}")
