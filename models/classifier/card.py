"""The card of a trained classifier: card.json beside its files, read and checked.

It describes the network's input (crop size and margin), the training data and settings, the measured figures, and the
hash of each file. A card that is missing or invalid raises ModelUnusable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec

from models.files import ModelUnusable, decode_json, indented_json, read_checked

DEFAULT_FOLDER = Path(__file__).parent.parent / "default"
CARD_NAME = "card.json"
INT8_NAME = "classifier.int8.onnx"
FLOAT_NAME = "classifier.onnx"
KERAS_NAME = "classifier.keras"

RESTORE = "restore it, train again or take another model"

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Version = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9.-]{0,63}\Z")]
# A card may come from another machine: the files that it names must be in its own folder.
FileName = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """Describe a trained classifier.

    version: arch and the first 8 digits of the int8 file's hash.
    size_px: side S of its crops. margin: added to the face's box at each side of a crop, as a share of the box.
    threshold: the lowest probability of a mask at which a face is labelled mask.
    data: pictures by data folder ("face-mask-12k/Train": 10004). settings: how it was trained.
    measured: figures by name for each test folder; shares 0..1.
    last_epoch: the number of the last epoch and its figures. calibration: the temperature, and the number of faces.
    tests: for each test folder in measured, a digest of its contents: two cards are compared where it is equal.
    files: SHA-256 by file name. created: date and time in UTC, ISO 8601.
    job: the ID of its training job; empty when it was trained without one.
    """

    version: Version
    arch: str
    size_px: Annotated[int, msgspec.Meta(ge=16, le=1024)]
    margin: Share
    threshold: Share
    data: dict[str, int]
    settings: dict[str, Any]
    measured: dict[str, dict[str, float]]
    last_epoch: dict[str, float] = {}
    calibration: dict[str, float] = {}
    tests: dict[str, str] = {}
    files: dict[FileName, Sha256]
    created: str
    job: str = ""


def read_card(folder: Path) -> Card:
    """Read the card of a model folder."""
    path = folder / CARD_NAME
    try:
        return parse_card(path.read_bytes(), str(path))
    except OSError as error:
        raise ModelUnusable(f"{path} cannot be read ({error.strerror}): {folder} is not a model folder") from error


class CardHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What the cards of all kinds of models have."""

    version: Version
    job: str = ""


def read_card_header(folder: Path) -> CardHeader:
    """Read version and job from the card of a classifier or detector."""
    path = folder / CARD_NAME
    try:
        return decode_json(path.read_bytes(), CardHeader, str(path), remedy="train again or take another model")
    except OSError as error:
        raise ModelUnusable(f"{path} cannot be read ({error.strerror}): {folder} is not a model folder") from error


def parse_card(content: bytes, where: str) -> Card:
    """Return the card in a file's bytes; `where` names the file in the error."""
    return decode_json(content, Card, where, remedy="train again or take another model")


def check_files(folder: Path) -> None:
    """Check every file that a model folder's card names."""
    for name, sha256 in read_card(folder).files.items():
        read_checked(folder / name, sha256, remedy=RESTORE)


def write_card(folder: Path, card: Card) -> None:
    """Write the card of a model folder."""
    (folder / CARD_NAME).write_bytes(indented_json(card))
