"""Tell by its first bytes whether a file is a picture, whatever its name says: a file in, True or False out."""

from __future__ import annotations

from pathlib import Path

SIGNATURES = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"II*\x00",  # TIFF
    b"MM\x00*",
)
# Of ISO files, which may be films, too: the brands of HEIC and AVIF pictures.
PICTURE_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis"})
READ_BYTES = 16


def is_picture(path: Path) -> bool:
    """Return whether a file begins like a picture; False for one that cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(READ_BYTES)
    except OSError:
        return False
    is_webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    is_iso_picture = start[4:8] == b"ftyp" and start[8:12] in PICTURE_BRANDS
    return start.startswith(SIGNATURES) or is_webp or is_iso_picture
