"""Read a list of files by their hashes: a text file in, hashes out."""

from __future__ import annotations

from pathlib import Path
from string import hexdigits

HASH_DIGITS = 16  # digits of a file's SHA-256 that identify it


def read_hashes(path: Path) -> frozenset[str]:
    """Return the hashes in a file: the start of a SHA-256 on each line; blank lines and comments after # are skipped.

    Raises:
        ValueError: a line is not a hash.
    """
    wanted = set()
    for number, text in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        name = text.partition("#")[0].strip().lower()
        if not name:
            continue
        if len(name) != HASH_DIGITS or not set(name) <= set(hexdigits):
            raise ValueError(f"{path}, line {number}: {name!r} is not the first {HASH_DIGITS} digits of a SHA-256")
        wanted.add(name)
    return frozenset(wanted)
