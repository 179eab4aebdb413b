"""Read Pascal VOC annotations: XML files, one for each picture, in; what they say out. As tools write them:

- in any folder, beside the pictures or in one of their own;
- `<filename>` with a path of any system, without a suffix, or naming the XML file; a picture that cannot be found by it
  is found by the annotation's own name;
- in the encoding of the XML declaration, as GBK, also those that Python's parser does not know.

A file that does not parse, or whose picture is missing, gets one line.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from pipeline.vision.faces import Box
from trainer.data.annotation import (
    MAX_MESSAGE_CHARS,
    AnnotatedObject,
    Annotation,
    read_object,
    shortened,
)
from trainer.data.file_listing import Listing, printable
from trainer.data.picture_finder import PictureFinder, missing_picture

XML_SUFFIXES = frozenset({".xml"})
FOLDER_NAME = "annotations"  # of a folder whose XML files are annotations, whatever they hold
SNIFFED_BYTES = 1024
UNNAMED = "unnamed"  # the class name of an object without one
_DECLARATION = re.compile(r"""\A<\?xml[^>]*?(?:encoding\s*=\s*["']([^"']+)["'][^>]*?)?\?>""")
# GB 18030 holds the characters of both, and what Windows writes beyond them.
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030"}


def voc_files(listing: Listing) -> list[Path]:
    """Return the XML files of a data set if it is one of Pascal VOC; otherwise none."""
    files = listing.with_suffix(XML_SUFFIXES)
    return files if any(file.parent.name.lower() == FOLDER_NAME or _is_annotation(file) for file in files) else []


def read_voc(files: Sequence[Path], finder: PictureFinder) -> tuple[list[Annotation], list[str]]:
    """Read annotation files in order; return what they say, and a line for each that cannot be used."""
    found: list[Annotation] = []
    problems: list[str] = []
    for file in files:
        try:
            found.append(_read(file, finder))
        # LookupError: an encoding that Python does not know.
        except (ElementTree.ParseError, ValueError, LookupError, OSError) as error:
            problems.append(f"{printable(file)}: {shortened(str(error), MAX_MESSAGE_CHARS)}")
    return found, problems


def _is_annotation(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return b"<annotation" in opened.read(SNIFFED_BYTES).replace(b"\0", b"")
    except OSError:
        return False


def _read(file: Path, finder: PictureFinder) -> Annotation:
    root = ElementTree.fromstring(_text_of(file.read_bytes()))  # noqa: S314  # the user's own data; expat 2.4 bounds entities
    name = root.findtext("filename") or file.stem
    picture = finder.named(name, file) or finder.beside(file)
    if picture is None:
        raise ValueError(missing_picture(name))
    objects = tuple(_object(element) for element in root.iter("object"))
    return Annotation(file=file, picture=picture, size=_size(root), objects=objects)


def _text_of(content: bytes) -> str:
    """Decode an XML file by its byte order mark or declaration; return it without either.

    What cannot be decoded is replaced: it is in folders' and files' names, which are not needed.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16", "replace")
    else:
        content = content.removeprefix(codecs.BOM_UTF8).strip()
        declared = _DECLARATION.match(content[:SNIFFED_BYTES].decode("latin-1"))
        encoding = (declared and declared[1]) or "utf-8"
        text = content.decode(_WIDER.get(encoding.lower(), encoding), "replace")
    return _DECLARATION.sub("", text.strip())


def _size(root: ElementTree.Element) -> tuple[float, float] | None:
    """Return width and height; None when they are missing, or zero as some tools write."""
    try:
        width, height = (float(root.findtext(f"size/{name}") or 0) for name in ("width", "height"))
    except ValueError:
        return None
    return (width, height) if width > 0 and height > 0 else None


def _object(element: ElementTree.Element) -> AnnotatedObject:
    def box() -> Box:
        x1, y1, x2, y2 = (float(_text(element, f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax"))
        return x1, y1, x2, y2

    return read_object((element.findtext("name") or "").strip() or UNNAMED, box)


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"<{path}> is missing")
    return text
