"""The card of a trained classifier: card.json beside its files, read and checked.

It describes the network's input (crop size and margin), the training data and settings, the measured figures, and the
hash of each file. A card that is missing or invalid raises ModelUnusable. What the cards of all kinds have in common is
in models/card.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec

from models.card import CARD_NAME, FileName, Sha256, Share, Version, read_card_as
from models.files import indented_json, replace_file

DEFAULT_FOLDER = Path(__file__).parent.parent / "default"
# The classifiers that the program includes, by the name that `--model` has for them.
BUILT_IN_CLASSIFIERS = {"lite": DEFAULT_FOLDER, "resnet18-half": DEFAULT_FOLDER.with_name("resnet18-half")}
INT8_NAME = "classifier.int8.onnx"
FLOAT_NAME = "classifier.onnx"
KERAS_NAME = "classifier.keras"


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
    """Read the card of a classifier's folder."""
    return read_card_as(Card, folder)


def write_card(folder: Path, card: Card) -> None:
    """Write the card of a model folder, whole or not at all: a folder with a card is finished."""
    replace_file(folder / CARD_NAME, indented_json(card))
