"""The card of a trained face detector: card.json beside its file.

It describes how its outlines are drawn, the training data and settings, the measured figures, and the hash of the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from models.classifier.card import CARD_NAME, FileName, Sha256, Share, Version
from models.files import ModelUnusable, decode_json, indented_json

DETECTOR_NAME = "detector.onnx"


class OutlineGeometry(msgspec.Struct, frozen=True, kw_only=True):
    """How outlines differ from the published detector's boxes around the same faces, by which crops are cut.

    right, down: of the centre, as shares of the published box's width and height. wider, higher: factors of its sides.
    """

    right: float
    down: float
    wider: float
    higher: float


class DetectorCard(msgspec.Struct, frozen=True, kw_only=True):
    """Describe a trained detector.

    version: arch and the first 8 digits of the file's hash. input_px: the long side that it was trained for.
    score_threshold: from which score on a box is a face. outlines: see OutlineGeometry.
    data: pictures and boxes by data set and use. settings: how it was trained.
    measured: figures by name for each set (trainer/detection/precision.py); shares 0..1.
    last_epoch: the number of the last epoch and its figures. files: SHA-256 by file name.
    created: date and time in UTC, ISO 8601. job: the ID of its training job; empty when it was trained without one.
    """

    version: Version
    arch: str
    input_px: int
    score_threshold: Share
    outlines: OutlineGeometry
    data: dict[str, int]
    settings: dict[str, Any]
    measured: dict[str, dict[str, float]]
    last_epoch: dict[str, float]
    files: dict[FileName, Sha256]
    created: str
    job: str = ""


def read_detector_card(folder: Path) -> DetectorCard:
    """Read the card of a detector's folder; raise ModelUnusable if it is missing or invalid."""
    path = folder / CARD_NAME
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelUnusable(f"{path} cannot be read ({error.strerror}): {folder} is not a model folder") from error
    return decode_json(content, DetectorCard, str(path), remedy="train again or take another model")


def write_detector_card(folder: Path, card: DetectorCard) -> None:
    """Write the card of a detector's folder."""
    (folder / CARD_NAME).write_bytes(indented_json(card))
