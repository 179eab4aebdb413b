"""What the cards of all kinds of models have in common: card.json in a model folder, read and checked.

A card describes a model and names its files with their hashes. Each kind has a card of its own, in
models/classifier/card.py and models/detector/card.py. A card that is missing or invalid raises ModelUnusable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from models.files import ModelUnusable, Record, decode_json

CARD_NAME = "card.json"

RESTORE = "restore it, train again or take another model"
TAKE_ANOTHER = "train again or take another model"

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Version = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9.-]{0,63}\Z")]
# A card may come from another machine: the files that it names must be in its own folder.
FileName = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class CardHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What the cards of all kinds of models have."""

    version: Version
    files: dict[FileName, Sha256]
    job: str = ""


def read_card_header(folder: Path) -> CardHeader:
    """Read from the card of a model folder what the cards of all kinds have."""
    return read_card_as(CardHeader, folder)


def read_card_as(card_type: type[Record], folder: Path) -> Record:
    """Read the card of a model folder as a record of some type."""
    path = folder / CARD_NAME
    try:
        return parse_card_as(card_type, path.read_bytes(), str(path))
    except OSError as error:
        raise ModelUnusable(f"{path} cannot be read ({error.strerror}): {folder} is not a model folder") from error


def parse_card_as(card_type: type[Record], content: bytes, where: str) -> Record:
    """Return the card in a file's bytes as a record of some type; `where` names the file in the error."""
    return decode_json(content, card_type, where, remedy=TAKE_ANOTHER)
