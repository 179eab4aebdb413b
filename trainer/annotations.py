"""Read photographs with annotated faces: a folder in, pictures with boxes and labels out.

The folder has `annotations` (Pascal VOC, one XML file a picture) and `images`. Anything missing or malformed raises
DatasetUnusable: a figure measured on half of a data set is worse than none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from trainer.dataset import DatasetUnusable

# A mask below the nose is neither of the two labels.
WornAs = Literal["mask", "no_mask", "incorrect"]
WORN_AS: dict[str, WornAs] = {
    "with_mask": "mask",
    "without_mask": "no_mask",
    "mask_weared_incorrect": "incorrect",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedFace:
    """One face: its box (x1, y1, x2, y2 in pixels) and how its mask is worn."""

    box: tuple[float, float, float, float]
    worn: WornAs


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedPicture:
    """One photograph and all its faces."""

    path: Path
    faces: tuple[AnnotatedFace, ...]


def has_annotations(folder: Path) -> bool:
    """Tell whether a data folder holds annotated photographs rather than class folders."""
    return (folder / "annotations").is_dir()


def read_annotations(folder: Path) -> list[AnnotatedPicture]:
    """Read all annotations of a folder, sorted by picture name.

    Raises:
        DatasetUnusable: there are none, one does not parse, or its picture is missing.
    """
    files = sorted((folder / "annotations").glob("*.xml"))
    if not files:
        raise DatasetUnusable(f"{folder}/annotations has no .xml files")
    return [_read(path, folder / "images") for path in files]


def _read(path: Path, images: Path) -> AnnotatedPicture:
    try:
        root = ElementTree.parse(path).getroot()  # noqa: S314  # the user's own data; expat 2.4 bounds entities
        picture = images / Path(_text(root, "filename")).name
        faces = tuple(_face(element) for element in root.iter("object"))
    except (ElementTree.ParseError, ValueError, KeyError) as error:
        raise DatasetUnusable(f"{path} is no annotation that can be read: {error}") from error
    if not picture.is_file():
        raise DatasetUnusable(f"{picture}, which {path.name} annotates, is missing")
    return AnnotatedPicture(path=picture, faces=faces)


def _face(element: ElementTree.Element) -> AnnotatedFace:
    box = (
        float(_text(element, "bndbox/xmin")),
        float(_text(element, "bndbox/ymin")),
        float(_text(element, "bndbox/xmax")),
        float(_text(element, "bndbox/ymax")),
    )
    return AnnotatedFace(box=box, worn=WORN_AS[_text(element, "name")])


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"<{path}> is missing")
    return text
