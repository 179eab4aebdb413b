"""Publish a run: a run folder in, a small model folder out that serves.

    python -m trainer.serving_copy runs/mine models/default

It holds the network that serves (a classifier's int8 file, a detector's file), the card, and held_back.txt, which lists
the files that were kept for reporting by the first digits of their SHA-256, so that a user who has the data can measure
on these alone. A damaged run raises ModelUnusable.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from models.card import CARD_NAME, read_card_as, read_card_header
from models.classifier.card import Card
from models.detector.card import DetectorCard
from models.files import ModelUnusable, decode_json, indented_json, read_checked
from models.registry.kinds import kind_of
from trainer.data.manifest import HELD_BACK_NAME, MANIFEST_NAME, ManifestRow, held_back_list

REMEDY = "train again"


def copy_for_serving(run: Path, folder: Path) -> Card | DetectorCard:
    """Copy what serves from a run folder to a model folder; return its card."""
    kind = kind_of(read_card_header(run))
    card: Card | DetectorCard = read_card_as(kind.card_type, run)
    content = read_checked(run / kind.network, card.files[kind.network], remedy=REMEDY)
    served = msgspec.structs.replace(card, files={kind.network: card.files[kind.network]})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / kind.network).write_bytes(content)
    (folder / HELD_BACK_NAME).write_text(held_back_list(_manifest(run)))
    (folder / CARD_NAME).write_bytes(indented_json(served))
    return served


def _manifest(run: Path) -> list[ManifestRow]:
    path = run / MANIFEST_NAME
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ModelUnusable(f"{path} cannot be read ({error.strerror}): {REMEDY}") from error
    return [decode_json(line, ManifestRow, str(path), remedy=REMEDY) for line in lines]


if __name__ == "__main__":
    copy_for_serving(Path(sys.argv[1]), Path(sys.argv[2]))
