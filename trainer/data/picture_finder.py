"""Find the picture that an annotation is about: a name, or a file beside it, in; the picture out.

A name may have any path before it, of any system, and no suffix, another suffix or that of the annotation. Of several
pictures of that name the one is taken whose folder is most like the annotation's: labels/train goes with images/train.
If that does not decide, or there is no such picture, ValueError says so.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from trainer.data.annotation import shortened
from trainer.data.file_listing import PICTURE_SUFFIXES, printable


class PictureFinder:
    """The pictures of a data set by their names."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for file in files:
            if file.suffix.lower() in PICTURE_SUFFIXES:
                self._by_name[file.name.lower()].append(file)
                self._by_stem[file.stem.lower()].append(file)

    def named(self, name: str, annotation: Path) -> Path | None:
        """Return the picture with a name that an annotation file gives; None if there is none.

        Raises:
            ValueError: there are several, and none is nearer to the annotation.
        """
        for last in dict.fromkeys((Path(name.strip()).name, _last_part(name))):
            has_suffix = Path(last).suffix.lower() in PICTURE_SUFFIXES | {annotation.suffix.lower()}
            candidates = self._by_name[last.lower()] or self._by_stem[last.lower()]
            if not candidates and has_suffix:
                candidates = self._by_stem[Path(last).stem.lower()]
            if candidates:
                return _nearest(candidates, last, annotation)
        return None

    def has_beside(self, annotation: Path) -> bool:
        """Return whether any picture has the stem of an annotation file."""
        return bool(self._by_stem.get(annotation.stem.lower()))

    def beside(self, annotation: Path) -> Path | None:
        """Return the picture with the stem of an annotation file; None if there is none.

        Raises:
            ValueError: as named().
        """
        candidates = self._by_stem[annotation.stem.lower()]
        return _nearest(candidates, annotation.stem, annotation) if candidates else None


def missing_picture(name: str) -> str:
    """Return the problem of an annotation whose picture is not there."""
    return f"its picture {shortened(printable(Path(_last_part(name))))} is missing"


def _last_part(name: str) -> str:
    """Return what follows the last slash or backslash of a name."""
    return re.split(r"[\\/]", name.strip())[-1]


def _nearest(candidates: list[Path], name: str, annotation: Path) -> Path:
    exact = [path for path in candidates if name in (path.name, path.stem)]
    best = sorted(exact or candidates, key=lambda path: -_likeness(path.parent, annotation.parent))
    if len(best) > 1 and _likeness(best[0].parent, annotation.parent) == _likeness(best[1].parent, annotation.parent):
        raise ValueError(f"its picture may be {printable(best[0])} or {printable(best[1])}: rename one")
    return best[0]


def _likeness(one: Path, other: Path) -> int:
    """Return how many parts two folders share at their beginnings and ends; more than that if they are the same."""
    if one == other:
        return len(one.parts) + len(other.parts)
    return _shared(one.parts, other.parts) + _shared(one.parts[::-1], other.parts[::-1])


def _shared(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    pairs = zip(one, other, strict=False)
    return next((count for count, (mine, yours) in enumerate(pairs) if mine != yours), min(len(one), len(other)))
