"""Read a folder of pictures, or one picture: files in, frames out, in natural order of their names.

What is left out is said in one line at WARNING. A picture that cannot be read yields a SourceFrame with an error; only
a folder without any picture raises SourceFailed.
"""

from __future__ import annotations

import functools
import logging
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from producer.sources.picture_file import read_picture
from producer.sources.picture_signature import is_picture
from producer.sources.source import PICTURE_SUFFIXES, Kind, SourceFailed, SourceFrame

log = logging.getLogger(__name__)

MAX_SUFFIXES_SAID = 5


class FolderSource:
    """The pictures of a folder. It has no timestamps.

    Args:
        path: the folder, or one picture.
        recursive: with the pictures of the folders in it; links to folders are not followed.
    """

    kind: Kind = "folder"
    is_live = False

    def __init__(self, path: Path, *, recursive: bool = False) -> None:
        self._folder = path.parent if path.is_file() else path
        self._paths = [path] if path.is_file() else _pictures_in(path, recursive=recursive)
        self.total: int | None = len(self._paths)

    def __iter__(self) -> Iterator[SourceFrame]:
        for index, path in enumerate(self._paths):
            yield read_picture(path, index, str(path.relative_to(self._folder)))

    def close(self) -> None:
        """Do nothing: nothing is open."""


def natural_order(name: str) -> tuple[list[str | int], str]:
    """Return a sort key by which picture2 comes before picture10."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def _pictures_in(folder: Path, *, recursive: bool) -> list[Path]:
    try:
        pictures, left_out = _parted(folder, recursive=recursive)
    except OSError as error:
        raise SourceFailed(f"the folder {folder} cannot be read: {error.strerror}") from error
    if not pictures:
        hint = "; --recursive looks into the folders in it" if left_out["folders"] else ""
        raise SourceFailed(f"the folder {folder} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))}){hint}")
    if left_out:
        _warn_once(f"{folder}: pictures: {len(pictures)}; left out: {_described(left_out)}")
    return sorted(pictures, key=lambda path: natural_order(str(path.relative_to(folder))))


def _parted(folder: Path, *, recursive: bool) -> tuple[list[Path], Counter[str]]:
    """Return the pictures of a folder, and how much else there is of what.

    "folders", "hidden", or else a suffix.
    """
    pictures: list[Path] = []
    left_out: Counter[str] = Counter()
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            left_out["hidden"] += 1
        elif entry.is_dir() and recursive and not entry.is_symlink():
            below, more = _parted(entry, recursive=True)
            pictures += below
            left_out += more
        elif entry.is_dir():
            left_out["folders"] += 1
        elif entry.is_file() and (entry.suffix.lower() in PICTURE_SUFFIXES or is_picture(entry)):
            pictures.append(entry)
        else:
            left_out[entry.suffix.lower() or "without a suffix"] += 1
    return pictures, left_out


@functools.cache
def _warn_once(text: str) -> None:
    """Log a warning, unless it was logged before: a camera reads its folder again and again."""
    log.warning("%s", text)


def _described(left_out: Counter[str]) -> str:
    suffixes = Counter({suffix: count for suffix, count in left_out.items() if suffix not in ("folders", "hidden")})
    parts = [f"folders: {left_out['folders']} (--recursive looks into them)"] if left_out["folders"] else []
    if suffixes:
        said = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(MAX_SUFFIXES_SAID))
        parts.append(f"no pictures: {suffixes.total()} ({said})")
    if left_out["hidden"]:
        parts.append(f"hidden: {left_out['hidden']}")
    return "; ".join(parts)
