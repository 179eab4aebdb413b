"""Prepare data sets: faces to train on and faces to report on: names of data sets in, Prepared out.

    found = prepare(["face-mask-12k/Train", "no_mask=clips"], tests=["face-mask-12k/Test"], size_px=112, margin=0.05)

Every file is looked at (faces.py), copies are found across all data sets (copies.py), groups are parted (split.py), and
each face's side is written down in a manifest. Files that cannot be used are said, one line each, and counted. A split
that leaks, or a data set without anything usable, raises DatasetUnusable.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.classifier.mask_classifier import Pixels
from trainer.data.annotations import DatasetUnusable
from trainer.data.dataset import Dataset
from trainer.data.faces import FoundFace, Patches, cut_as_served, cut_patches
from trainer.data.sources import read_source
from trainer.data.split import CLIP_VALIDATION_SHARE, VALIDATION_SHARE, Group, Side, connected, drawn, leaks

__all__ = ["DatasetUnusable", "Faces", "Patches", "Prepared", "prepare"]

# Patches are larger than crops, so that a crop drawn from the middle of one is as sharp as one cut while serving.
PATCH_SCALE = 1.4
# So many leaking pairs are named; the rest is counted.
NAMED_LEAKS = 10
MANIFEST_NAME = "manifest.jsonl"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Faces:
    """Faces to measure with, cut as serving does.

    crops: uint8 n x S x S x 3 RGB. has_mask: bool n. side_px: float32 n, the shorter side of the face's box in pixels
    of its picture. sources: n short names of data sets. names: n, file and face for people.
    """

    crops: Pixels
    has_mask: NDArray[np.bool_]
    side_px: NDArray[np.float32]
    sources: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.crops)

    def of_source(self, source: str) -> Faces:
        """Return those of one data set."""
        places = [place for place, name in enumerate(self.sources) if name == source]
        return Faces(
            crops=self.crops[places],
            has_mask=self.has_mask[places],
            side_px=self.side_px[places],
            sources=tuple(self.sources[place] for place in places),
            names=tuple(self.names[place] for place in places),
        )


def cut_faces(found: Sequence[FoundFace], size_px: int, margin: float) -> Faces:
    """Cut faces as serving does: size_px is the side S of a crop, margin its share of a box."""
    return Faces(
        crops=cut_as_served(found, size_px, margin),
        has_mask=np.array([face.label == "mask" for face in found], bool),
        side_px=np.array([face.side_px for face in found], np.float32),
        sources=tuple(face.source for face in found),
        names=tuple(face.name for face in found),
    )


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One face of the manifest. group: what stays together, the least SHA-256 of its files, shortened."""

    source: str
    file: str
    sha256: str
    frame: int
    number: int
    label: str
    box: tuple[float, float, float, float]
    group: str
    side: Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """All that training needs.

    validation: what was kept for reporting of the data sets trained on, or the folder named for it. tests: by short
    name. counts: faces by data set and side, and files left out. digests: of the content of each measured set, by name.
    """

    training: Patches
    calibration: Faces
    validation: Faces
    tests: dict[str, Faces]
    counts: dict[str, int]
    digests: dict[str, str]
    manifest: tuple[Row, ...]

    @property
    def digest(self) -> str:
        """The hash of the manifest: the same data, split and boxes give the same one, wherever they lie."""
        return _hash_of(self.manifest)

    def write_manifest(self, folder: Path) -> None:
        """Write the manifest, one line a face."""
        (folder / MANIFEST_NAME).write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in self.manifest))


def prepare(
    datasets: Sequence[str],
    *,
    tests: Sequence[str] = (),
    validation: str | None = None,
    size_px: int,
    margin: float,
    seed: int = 0,
    leave_out_copies: bool = False,
    say: Callable[[str], None] = log.warning,
) -> Prepared:
    """Read, group, split and cut data sets.

    Args:
        datasets: to train on; a fifth of each is kept for validation, of clips half.
        tests: kept for reporting only.
        validation: kept for reporting in place of that fifth; None keeps the fifth.
        size_px: side S of crops. margin: of crops, as a share of the face's box.
        seed: draws the split.
        leave_out_copies: leave out what is a copy of a picture in `validation` or `tests`; else it is an error.
        say: gets a line for each file that is left out.

    Raises:
        DatasetUnusable: a data set cannot be used, or copies stand on both sides.
    """
    looked = Dataset(say)
    for text in datasets:
        looked.add(read_source(text), None)
    for text in (validation,) if validation else ():
        looked.add(read_source(text), "validation")
    for text in tests:
        looked.add(read_source(text), "test")
    looked.leave_out_contradictions()
    pairs = looked.pairs()
    numbers = connected(len(looked.faces), pairs)
    names = _group_names(looked.faces, numbers)
    sides = _sides(looked, numbers, names, seed, with_validation=validation is None)
    if not leave_out_copies:
        _refuse_leaks(looked, sides, numbers)
    if leaking := list(leaks(sides, pairs)):
        raise DatasetUnusable(_leak_text(looked.faces, leaking))
    rows = tuple(
        Row(
            source=face.source, file=face.file.name, sha256=face.sha256, frame=face.frame, number=face.number,
            label=face.label, box=face.box, group=names[number][:16], side=side,
        )
        for face, number, side in zip(looked.faces, numbers, sides, strict=True)
    )  # fmt: skip
    return _cut(looked, sides, rows, size_px, margin)


def _group_names(faces: Sequence[FoundFace], numbers: Sequence[int]) -> dict[int, str]:
    names: dict[int, str] = {}
    for face, number in zip(faces, numbers, strict=True):
        names[number] = min(names.get(number, face.sha256), face.sha256)
    return names


def _sides(
    looked: Dataset, numbers: Sequence[int], names: dict[int, str], seed: int, *, with_validation: bool
) -> list[Side]:
    """Give each face its side; of a group that holds given faces, those that were not given are out."""
    members: dict[int, list[int]] = defaultdict(list)
    for place, number in enumerate(numbers):
        members[number].append(place)
    groups = [_group(looked, names[number], places) for number, places in members.items()]
    by_group = drawn(groups, seed, with_validation=with_validation)
    sides: list[Side] = []
    for face, number, given in zip(looked.faces, numbers, looked.given, strict=True):
        side = by_group[names[number]]
        held = side in ("test", "validation") and any(looked.given[place] for place in members[number])
        sides.append("out" if (held and given != side) or looked.is_contradicting(face) else side)
    return sides


def _group(looked: Dataset, name: str, places: Sequence[int]) -> Group:
    faces = [looked.faces[place] for place in places]
    given = {looked.given[place] for place in places}
    bare = any(face.label == "no_mask" for face in faces)
    clips = {face.file for face in faces if face.is_clip}
    return Group(
        name=name,
        stratum=f"{faces[0].source} {'no_mask' if bare else 'mask'}",
        share=CLIP_VALIDATION_SHARE if clips else VALIDATION_SHARE,
        weight=max(1, len(clips)),
        fixed="test" if "test" in given else "validation" if "validation" in given else None,
    )


def _refuse_leaks(looked: Dataset, sides: Sequence[Side], numbers: Sequence[int]) -> None:
    """Raise DatasetUnusable if something to be trained on is a copy of something kept for reporting."""
    kept = {number: place for place, number in enumerate(numbers) if looked.given[place]}
    leaking = [
        (place, kept[number])
        for place, number in enumerate(numbers)
        if sides[place] == "out" and not looked.is_contradicting(looked.faces[place])
    ]
    if leaking:
        raise DatasetUnusable(_leak_text(looked.faces, leaking) + "; --leave-out-copies trains without them")


def _leak_text(faces: Sequence[FoundFace], leaking: Sequence[tuple[int, int]]) -> str:
    named = ", ".join(
        f"{faces[one].source}/{faces[one].name} and {faces[other].source}/{faces[other].name}"
        for one, other in leaking[:NAMED_LEAKS]
    )
    more = f" and {len(leaking) - NAMED_LEAKS} more" if len(leaking) > NAMED_LEAKS else ""
    return f"the split leaks, {len(leaking)} faces to train on are copies of faces kept for reporting: {named}{more}"


def _cut(looked: Dataset, sides: Sequence[Side], rows: tuple[Row, ...], size_px: int, margin: float) -> Prepared:
    def places(side: Side) -> list[int]:
        return [place for place, given in enumerate(sides) if given == side]

    def faces(chosen: Sequence[int]) -> Faces:
        return cut_faces([looked.faces[place] for place in chosen], size_px, margin)

    tests: dict[str, list[int]] = defaultdict(list)
    for place in places("test"):
        tests[looked.faces[place].source].append(place)
    training = [looked.faces[place] for place in places("training")]
    if {face.label for face in training} != {"mask", "no_mask"}:
        raise DatasetUnusable("training needs faces with a mask and faces without")
    kept = defaultdict(list)
    for row in rows:
        if row.side in ("validation", "test"):
            kept[row.source].append(row)
    counts = Counter(f"{row.source}: {row.side}" for row in rows) + looked.counts
    return Prepared(
        training=cut_patches(training, round(PATCH_SCALE * size_px)),
        calibration=faces(places("calibration")),
        validation=faces(places("validation")),
        tests={name: faces(chosen) for name, chosen in tests.items()},
        counts=dict(sorted(counts.items())),
        digests={name: content_digest(of_source) for name, of_source in kept.items()},
        manifest=rows,
    )


def content_digest(rows: Sequence[Row]) -> str:
    """Return the hash of which faces with which labels a set holds, whatever else was trained on beside them."""
    return _hash_of((row.sha256, row.frame, row.number, row.label) for row in rows)


def _hash_of(things: Iterable[object]) -> str:
    return hashlib.sha256(b"".join(sorted(msgspec.json.encode(thing) for thing in things))).hexdigest()
