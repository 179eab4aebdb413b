"""Small annotated photographs, as tools write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.data.class_names import ClassNames
from trainer.data.sources import DatasetSource, read_source

WIDTH, HEIGHT = 120, 80
BOX = (10.0, 20.0, 40.0, 60.0)


def write_photograph(path: Path, seed: int = 0, orientation: int | None = None) -> Path:
    """Write noise of WIDTH x HEIGHT pixels, with an EXIF orientation if one is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    noise = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(path, exif=exif)
    return path


def write_text(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def voc(
    filename: str,
    *names: str,
    size: tuple[int, int] | None = (WIDTH, HEIGHT),
    boxes: Sequence[Sequence[object]] = (),
) -> str:
    """Return a Pascal VOC annotation with a face for each name, at BOX unless `boxes` says where."""
    objects = ""
    for name, box in zip(names, boxes or [BOX] * len(names), strict=True):
        corners = "".join(
            f"<{corner}>{number}</{corner}>"
            for corner, number in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        objects += f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>"
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return f"<annotation><filename>{filename}</filename>{sides}{objects}</annotation>"


def coco(pictures: Sequence[tuple[str, Sequence[tuple[str, object]]]], **of_object: object) -> str:
    """Return a COCO file of pictures with their objects, each a class name with its bbox."""
    names = sorted({name for _, objects in pictures for name, _ in objects})
    document = {
        "images": [
            {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for number, (name, _) in enumerate(pictures)
        ],
        "annotations": [
            {"id": place, "image_id": number, "category_id": names.index(name), "bbox": bbox, **of_object}
            for number, (_, objects) in enumerate(pictures)
            for place, (name, bbox) in enumerate(objects)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
    }
    return json.dumps(document)


def read(folder: Path, *choices: str) -> DatasetSource:
    return read_source(str(folder), ClassNames(choices))


def faces_of(source: DatasetSource) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    """Return how each face of each picture wears its mask, and its box in whole pixels."""
    return {
        item.path.name: [(face.worn, tuple(round(number) for number in face.box)) for face in item.faces]
        for item in source.items
    }
