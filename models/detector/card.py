"""The card of a trained face detector: card.json beside its file.

It describes how its outlines are drawn, the training data and settings, the measured figures, and the hash of the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from models.card import CARD_NAME, FileName, Sha256, Version, read_card_as
from models.files import indented_json, replace_file
from pipeline.vision.arrays import Floats

DEFAULT_FOLDER = Path(__file__).parent.parent / "yunet"
DETECTOR_NAME = "detector.onnx"
MIN_INPUT_PX = 32  # the side of a cell of YuNet's coarsest grid

Shift = Annotated[float, msgspec.Meta(ge=-1, le=1)]
Factor = Annotated[float, msgspec.Meta(ge=0.5, le=2)]


class OutlineGeometry(msgspec.Struct, frozen=True, kw_only=True):
    """How outlines differ from the published detector's boxes around the same faces, by which crops are cut.

    right, down: of the centre, as shares of the published box's width and height. wider, higher: factors of its sides.
    """

    right: Shift = 0.0
    down: Shift = 0.0
    wider: Factor = 1.0
    higher: Factor = 1.0

    def outlines_of(self, boxes: Floats) -> Floats:
        """Convert the published detector's boxes (n x 4) to outlines."""
        sides = boxes[:, 2:] - boxes[:, :2]
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + sides * np.array([self.right, self.down], np.float32)
        halves = sides * np.array([self.wider, self.higher], np.float32) / 2
        return np.concatenate([centres - halves, centres + halves], axis=1)

    def boxes_of(self, outlines: Floats) -> Floats:
        """Convert outlines (n x 4) to the published detector's boxes."""
        sides = (outlines[:, 2:] - outlines[:, :2]) / np.array([self.wider, self.higher], np.float32)
        centres = (outlines[:, :2] + outlines[:, 2:]) / 2 - sides * np.array([self.right, self.down], np.float32)
        return np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)


class DetectorCard(msgspec.Struct, frozen=True, kw_only=True):
    """Describe a trained detector.

    version: arch and the first 8 digits of the file's hash. input_px: the long side that it was trained for.
    score_threshold: from which score on a box is a face. outlines: see OutlineGeometry.
    data: pictures and boxes by data set and use. settings: how it was trained.
    measured: figures by name for each set (trainer/detection/precision.py); shares 0..1.
    tests: for each set in measured, a digest of its pictures and boxes: two cards are compared where it is equal.
    last_epoch: the number of the last epoch and its figures. files: SHA-256 by file name.
    created: date and time in UTC, ISO 8601. job: the ID of its training job; empty when it was trained without one.
    """

    version: Version
    arch: str
    input_px: Annotated[int, msgspec.Meta(ge=MIN_INPUT_PX, le=4096)]
    score_threshold: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    outlines: OutlineGeometry
    data: dict[str, int]
    settings: dict[str, Any]
    measured: dict[str, dict[str, float]]
    tests: dict[str, str] = {}
    last_epoch: dict[str, float]
    files: dict[FileName, Sha256]
    created: str
    job: str = ""


def read_detector_card(folder: Path) -> DetectorCard:
    """Read the card of a detector's folder; raise ModelUnusable if it is missing or invalid."""
    return read_card_as(DetectorCard, folder)


def write_detector_card(folder: Path, card: DetectorCard) -> None:
    """Write the card of a detector's folder, whole or not at all: a folder with a card is finished."""
    replace_file(folder / CARD_NAME, indented_json(card))
