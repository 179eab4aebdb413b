"""The manifest of a run: which faces there were, and where each went.

It is a file with a line of JSON for each face. Its hash does not depend on the order of faces, nor on where the data
sets are. Beside it is the list of files that were kept for reporting, by which another run can keep the same ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from models.files import sha256_of
from pipeline.vision.faces import Box
from trainer.data.annotations import LeftOutBox
from trainer.data.hash_list import HASH_DIGITS
from trainer.data.split import Split

MANIFEST_NAME = "manifest.jsonl"
HELD_BACK_NAME = "held_back.txt"
GROUP_DIGITS = 16  # of the hash that names a group


class ManifestRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One face of the manifest.

    group: the lowest SHA-256 of the files that belong together, shortened. problem: why a face is left out because of
    its box, which is None if it has no numbers that can be used, and whose label is the data set's own name for it.
    """

    source: str
    file: str
    sha256: str
    frame: int
    number: int
    label: str
    box: Box | None
    group: str
    split: Split = msgspec.field(name="side")  # the key in manifests of earlier versions, too
    problem: str = ""


def left_out_rows(boxes: Iterable[tuple[str, LeftOutBox]]) -> tuple[ManifestRow, ...]:
    """Return a row for each face that is left out because of its box, given with the short name of its data set."""
    return tuple(_left_out_row(source, box) for source, box in boxes)


def content_digest(rows: Sequence[ManifestRow]) -> str:
    """Return the hash of a set's faces and labels; it does not depend on what else was trained on."""
    return hash_of((row.sha256, row.frame, row.number, row.label) for row in rows)


def write_manifest(folder: Path, rows: Sequence[ManifestRow]) -> None:
    """Write a run's manifest, one line for each face, and its list of held-back files."""
    (folder / MANIFEST_NAME).write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    (folder / HELD_BACK_NAME).write_text(held_back_list(rows))


def held_back_list(rows: Iterable[ManifestRow]) -> str:
    """Return the files that were kept for reporting: the first digits of each one's SHA-256 on a line."""
    kept = {row.sha256[:HASH_DIGITS] for row in rows if row.split in ("validation", "test")}
    return "".join(f"{digits}\n" for digits in sorted(kept))


def read_manifest(path: Path) -> list[ManifestRow]:
    """Return the rows of a manifest; OSError if it cannot be read, ValueError if it is damaged."""
    try:
        return msgspec.json.Decoder(ManifestRow).decode_lines(path.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}): restore it, or remove it to do without it") from error


def digest_of(manifest: Iterable[ManifestRow]) -> str:
    """Return the hash of a manifest."""
    return hash_of(manifest)


def hash_of(things: Iterable[object]) -> str:
    """Return the hash of some things, in any order, that JSON can represent."""
    return hashlib.sha256(b"".join(sorted(msgspec.json.encode(thing) for thing in things))).hexdigest()


def _left_out_row(source: str, left_out: LeftOutBox) -> ManifestRow:
    try:
        sha256 = sha256_of(left_out.picture.read_bytes())
    except OSError:  # it is reported where it is decoded
        sha256 = ""
    return ManifestRow(
        source=source, file=left_out.picture.name, sha256=sha256, frame=left_out.frame, number=left_out.number,
        label=left_out.label, box=left_out.box, group=sha256[:GROUP_DIGITS], split="out", problem=left_out.problem,
    )  # fmt: skip
