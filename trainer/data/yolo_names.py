"""Find out what the class numbers of YOLO labels mean: the listing of a data set in; names by number out.

They are in data.yaml (Ultralytics, Roboflow), or one a line, from number 0, in classes.txt (labelImg, Label Studio),
obj.names (Darknet, CVAT) or _darknet.labels (Roboflow), in the data set or, for a split of one, in the folders above.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from trainer.data.annotation import MAX_MESSAGE_CHARS, shortened
from trainer.data.file_listing import Listing, printable

YAML_SUFFIXES = frozenset({".yaml", ".yml"})
NAME_LISTS = frozenset({"classes.txt", "obj.names", "_darknet.labels"})
NAMES_ABOVE = ("data.yaml", "data.yml", "dataset.yaml", *sorted(NAME_LISTS))
LEVELS_ABOVE = 2  # from dataset/images/train to dataset


def yolo_names(listing: Listing) -> dict[int, str]:
    """Return the names of class numbers; without any, a number is to be its own name.

    Raises:
        ValueError: a file of names cannot be read, or two say something different.
    """
    found = _read_all(file for file in listing.files if file.suffix.lower() in YAML_SUFFIXES or _is_list(file))
    folder = listing.folder.resolve()
    for above in folder.parents[:LEVELS_ABOVE]:
        found = found or _read_all(file for name in NAMES_ABOVE if (file := above / name).is_file())
    for file, names in found.items():
        first, first_names = next(iter(found.items()))
        if names != first_names:
            raise ValueError(f"{printable(first)} and {printable(file)} name the classes differently: remove one")
    return next(iter(found.values()), {})


def _is_list(file: Path) -> bool:
    return file.name.lower() in NAME_LISTS


def _read_all(files: Iterable[Path]) -> dict[Path, dict[int, str]]:
    """Return the names in each file that has any."""
    read = {file: _from_list(file) if _is_list(file) else _from_yaml(file) for file in files}
    return {file: names for file, names in read.items() if names}


def _from_list(file: Path) -> dict[int, str]:
    return {number: name.strip() for number, name in enumerate(_text(file).splitlines()) if name.strip()}


def _from_yaml(file: Path) -> dict[int, str]:
    """Return the names of a YAML file: a list, or a mapping of numbers; none of one that is about something else."""
    try:
        # Everything as text: a class named `no` or `off` is not a truth value.
        document = yaml.load(_text(file), Loader=yaml.BaseLoader)  # noqa: S506  # it makes nothing but text
        names = document.get("names") if isinstance(document, dict) else None
        if isinstance(names, list):
            return {number: str(name).strip() for number, name in enumerate(names)}
        return {int(number): str(name).strip() for number, name in names.items()} if isinstance(names, dict) else {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = shortened(" ".join(str(error).split()), MAX_MESSAGE_CHARS)
        raise ValueError(f"{printable(file)}: its class names cannot be read ({reason}): correct it") from error


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig", "replace")
    except OSError as error:
        raise ValueError(f"{printable(file)} cannot be read ({error.strerror})") from error
