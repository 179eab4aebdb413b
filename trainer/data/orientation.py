"""Turn boxes with their pictures: a picture's header and the size that its boxes were drawn on in, upright boxes out.

Cameras store a turned picture with an EXIF note of how to turn it, and decode_picture() turns it so. Some annotation
tools draw on the picture as it is stored, others as it is seen; the size that they write tells which. Where it fits
neither, or both, nothing is guessed: ValueError says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image as PillowImage

from pipeline.vision.faces import Box
from pipeline.vision.jpeg import PILLOW_ERRORS
from trainer.data.decoding import PictureUnusable

ORIENTATION_TAG = 0x0112
UPRIGHT = 1
QUARTER_TURNS = frozenset({5, 6, 7, 8})  # the orientations that exchange width and height


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureHeader:
    """What a picture's header says: width and height in pixels as stored, and its EXIF orientation, 1 to 8."""

    width: int
    height: int
    orientation: int

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height as stored."""
        return self.width, self.height

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as seen."""
        return (self.height, self.width) if self.orientation in QUARTER_TURNS else (self.width, self.height)


def read_header(path: Path) -> PictureHeader:
    """Read a picture's header; raise PictureUnusable if it has none that can be read."""
    try:
        with PillowImage.open(path) as image:
            orientation = _orientation(image.info.get("exif", b""))
            return PictureHeader(width=image.width, height=image.height, orientation=orientation)
    except PILLOW_ERRORS as error:
        raise PictureUnusable("is not a picture that can be read") from error


def orientation_of_boxes(header: PictureHeader, size: tuple[float, float] | None) -> int:
    """Return how boxes must be turned to fit the upright picture: as an EXIF orientation, 1 if they fit already.

    Args:
        header: of the picture.
        size: width and height in pixels of the picture that they were drawn on; None if that is not known.

    Raises:
        ValueError: the size is that of another picture, or does not tell whether the picture was turned.
    """
    is_turned = header.orientation != UPRIGHT
    if size is None:
        if is_turned:
            raise ValueError("its EXIF data turn it, and no size says whether its boxes are turned: save it upright")
        return UPRIGHT
    fits_stored, fits_upright = size == header.stored_size, size == header.upright_size
    if not (fits_stored or fits_upright):
        drawn, stored = f"{size[0]:g}x{size[1]:g}", f"{header.width}x{header.height}"
        raise ValueError(f"its boxes were drawn on {drawn} pixels, but it has {stored}: annotate the picture as it is")
    if is_turned and fits_stored and fits_upright:
        raise ValueError("its EXIF data turn it, and its size does not tell whether its boxes are: save it upright")
    return UPRIGHT if fits_upright else header.orientation


def turned(box: Box, header: PictureHeader, orientation: int) -> Box:
    """Return a box of the stored picture turned by an EXIF orientation (EXIF 2.32, tag 274); 1 changes nothing."""
    x1, y1, x2, y2 = box
    if orientation in (2, 3, 7, 8):  # left and right are exchanged
        x1, x2 = header.width - x2, header.width - x1
    if orientation in (3, 4, 6, 7):  # top and bottom are
        y1, y2 = header.height - y2, header.height - y1
    return (y1, x1, y2, x2) if orientation in QUARTER_TURNS else (x1, y1, x2, y2)


def _orientation(content: bytes) -> int:
    """Return the orientation in EXIF data; 1 if they are damaged or have no valid one, as decoders do."""
    exif = PillowImage.Exif()
    try:
        exif.load(content)  # the picture's getexif() would read XMP too, which OpenCV does not
        orientation = exif.get(ORIENTATION_TAG)
    except PILLOW_ERRORS:
        return UPRIGHT
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else UPRIGHT
