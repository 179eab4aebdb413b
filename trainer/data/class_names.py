"""Say what the class names of data sets mean: a name in; mask, no mask, worn incorrectly or ignored, out.

Names are compared without case, spaces, hyphens and underscores. Those of DEFAULTS are known; a user says what others
mean, or changes one, with NAME=mask, NAME=no_mask or NAME=ignore. A number is never known by default, because each tool
counts the classes in its own order. Text that says nothing of this kind raises ValueError.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, get_args

# A mask worn incorrectly is neither of the two labels. What is ignored is no face to learn from or to measure with.
WornAs = Literal["mask", "no_mask", "incorrect"]
Meaning = Literal["mask", "no_mask", "incorrect", "ignore"]
Choice = Literal["mask", "no_mask", "ignore"]

DEFAULTS: dict[Meaning, tuple[str, ...]] = {
    "mask": ("with_mask", "mask", "face_mask", "masked", "masked_face", "face_with_mask", "wearing_mask", "mask_on"),
    "no_mask": (
        *("without_mask", "no_mask", "face", "unmasked", "unmasked_face", "not_masked"),
        *("no_face_mask", "face_without_mask", "face_no_mask", "not_wearing_mask", "mask_off"),
    ),
    "incorrect": (
        *("mask_weared_incorrect", "mask_worn_incorrect", "mask_worn_incorrectly", "mask_incorrect", "incorrect_mask"),
        *("incorrect", "incorrectly_worn_mask", "incorrect_mask_wearing", "improper_mask"),
    ),
}
SHOWN_NAMES = 10  # in the message of unknown names
MAX_NAME_CHARS = 60


class ClassNames:
    """The meaning of class names: the defaults with a user's changes."""

    def __init__(self, choices: Iterable[str] = ()) -> None:
        """Read a user's choices.

        Args:
            choices: each NAME=mask, NAME=no_mask or NAME=ignore. A name may hold "=" itself.

        Raises:
            ValueError: one has another form, or a name is given two meanings.
        """
        chosen: dict[str, Meaning] = {}
        for choice in choices:
            name, meaning = _parsed(choice)
            if chosen.setdefault(_key(name), meaning) != meaning:
                raise ValueError(f"--map {choice}: {name} has another meaning already: give it once")
        self._meanings = {_key(name): meaning for meaning, names in DEFAULTS.items() for name in names} | chosen

    def meaning_of(self, name: str) -> Meaning | None:
        """Return what a name means; None if that is not known."""
        return self._meanings.get(_key(name))

    def meaning_of_folder(self, name: str) -> Meaning | None:
        """Return what a folder's name means, which may have numbers before or behind, as 1_with_mask."""
        return self.meaning_of(name) or self._meanings.get(re.sub(r"[^a-z]", "", name.lower()))


def unknown_names_text(where: str, names: Iterable[str], unknown: Iterable[str]) -> str:
    """Return the line that says which names are unknown.

    Args:
        where: the data set.
        names: all that are found.
        unknown: those of them whose meaning is not known; at least one.
    """
    strange = sorted(unknown)
    hint = " (data.yaml or classes.txt would name a number)" if all(name.isdigit() for name in strange) else ""
    return (
        f"{where} has faces named {_listed(sorted(names))}; the meaning of {_listed(strange)} is not known{hint}: "
        f"give it with --map {_quoted(f'{_shortened(strange[0])}=mask|no_mask|ignore')}, for each name"
    )


def _parsed(choice: str) -> tuple[str, Choice]:
    name, separator, meaning = choice.rpartition("=")
    for known in get_args(Choice):
        if separator and _key(name) and meaning == known:
            return name, known
    raise ValueError(f"--map {_shortened(choice)}: write NAME=mask, NAME=no_mask or NAME=ignore")


def _key(name: str) -> str:
    """Return the part of a name that is compared."""
    return re.sub(r"[\s_-]", "", name.casefold())


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(map(_shortened, names[:SHOWN_NAMES])) + more


def _shortened(name: str) -> str:
    """Return a name as part of one line."""
    shown = "".join(char if char.isprintable() else "?" for char in " ".join(name.split()))
    return shown if len(shown) <= MAX_NAME_CHARS else shown[:MAX_NAME_CHARS] + "..."


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"  # shells read | and spaces themselves
