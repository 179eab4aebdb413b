"""Find out from a file's name of which photograph or person it is a copy. Pure."""

from __future__ import annotations

import re
from pathlib import Path

# "Augmented_690_1742059.jpg" is a copy of picture 690, "0_0_0_copy_12.jpg" of "0_0_0.jpg".
_AUGMENTED = re.compile(r"^augmented_(\d+)_\d+$")
_COPY = re.compile(r"(?:[ _-]copy)+(?:[ _-]?\d+| ?\(\d+\))*$")
# "0_0_anhu_0083.jpg" is the 83rd picture of one person.
_PERSON = re.compile(r"^\d+_\d+_([a-z]+)_\d+$")


def original_name(path: Path) -> str:
    """Return the photograph or person that a file name marks the file as a copy of; otherwise the name itself."""
    stem = path.stem.lower()
    if augmented := _AUGMENTED.match(stem):
        return f"original {augmented[1]}"
    if person := _PERSON.match(stem):
        return f"person {person[1]}"
    return _COPY.sub("", stem)


def is_marked_copy(path: Path) -> bool:
    """Return whether a file name marks the file as a copy of a photograph or person."""
    return original_name(path) != path.stem.lower()
