"""Prepare data sets: listed sources in; crops to train on and to report on out.

    sources, tests = [read_source("face-mask-12k/Train")], [read_source("clips")]
    prepared = prepare_data(sources, tests=tests, size_px=112, margin=0.05)

The faces of every file are found (faces.py), copies are found across all data sets (copies/), groups of copies are
split (split.py), and each face's split is recorded in a manifest. Each file that cannot be used is reported in one line
and counted. A split that leaks, or a data set without any usable file, raises DatasetUnusable.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.vision.arrays import Image
from trainer.data.annotations import DatasetUnusable
from trainer.data.dataset import Dataset
from trainer.data.faces import FacePatches, FoundFace, cut_as_served, cut_patches
from trainer.data.manifest import ManifestRow, content_digest, digest_of, left_out_rows, write_manifest
from trainer.data.sources import DatasetSource
from trainer.data.split import (
    CLIP_VALIDATION_SHARE,
    VALIDATION_SHARE,
    CopyGroup,
    Split,
    assign_splits,
    connected_components,
    find_leaks,
)

# Patches are larger than crops, so that a crop drawn from the middle of one is as sharp as one cut while serving.
PATCH_SCALE = 1.4
MAX_NAMED_LEAKS = 10  # leaking pairs named in the error message; the rest are counted
TOO_FEW_TO_VALIDATE = "there are too few pictures to keep a fifth for validation: name others with --validation"
# Of a group whose faces were requested for several splits, the first of these gets its faces; the others are out.
_PRECEDENCE: tuple[Split, ...] = ("test", "validation", "out", "training")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationFaces:
    """Faces to measure with, cut as serving cuts them.

    crops: uint8 n x S x S x 3 RGB. has_mask: bool n. side_px: float32 n, the shorter side of the face's box in pixels
    of its picture. sources: n short names of data sets. names: n, file and face for people.
    """

    crops: Image
    has_mask: NDArray[np.bool_]
    side_px: NDArray[np.float32]
    sources: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.crops)

    def of_source(self, source: str) -> EvaluationFaces:
        """Return the faces of one data set."""
        indices = [index for index, name in enumerate(self.sources) if name == source]
        return EvaluationFaces(
            crops=self.crops[indices],
            has_mask=self.has_mask[indices],
            side_px=self.side_px[indices],
            sources=tuple(self.sources[index] for index in indices),
            names=tuple(self.names[index] for index in indices),
        )


def cut_faces(found: Sequence[FoundFace], size_px: int, margin: float) -> EvaluationFaces:
    """Cut faces as serving cuts them: size_px is the side S of a crop, margin a share of the face's box."""
    return EvaluationFaces(
        crops=cut_as_served(found, size_px, margin),
        has_mask=np.array([face.label == "mask" for face in found], bool),
        side_px=np.array([face.side_px for face in found], np.float32),
        sources=tuple(face.source for face in found),
        names=tuple(face.name for face in found),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedData:
    """All that training needs.

    validation: the part of the data sets trained on that was kept for reporting, or the validation data set. tests: by
    short name. counts: faces by data set and split, and files left out. digests: of the content of each measured set,
    by name. manifest: a row for each face. left_out: a row for each face that is left out because of its box.
    """

    training: FacePatches
    calibration: EvaluationFaces
    validation: EvaluationFaces
    tests: dict[str, EvaluationFaces]
    counts: dict[str, int]
    digests: dict[str, str]
    manifest: tuple[ManifestRow, ...]
    left_out: tuple[ManifestRow, ...]

    @property
    def digest(self) -> str:
        """The hash of the manifest; it depends on data, split and boxes, not on the folders' locations."""
        return digest_of(self.manifest)

    def write_manifest(self, folder: Path) -> None:
        """Write the manifest, one line for each face, those that are left out at the end."""
        write_manifest(folder, self.manifest + self.left_out)


def prepare_data(
    training: Sequence[DatasetSource],
    *,
    tests: Sequence[DatasetSource] = (),
    validation: DatasetSource | None = None,
    size_px: int,
    margin: float,
    seed: int = 0,
    leave_out_copies: bool = False,
    leave_out: Collection[str] = (),
    hold_back: Collection[str] = (),
    trained_on: Collection[str] = (),
    warn: Callable[[str], None] = log.warning,
) -> PreparedData:
    """Find faces, group and split them, and cut crops.

    Args:
        training: to train on; a fifth of each is kept for validation, half of clips.
        tests: kept for reporting only.
        validation: kept for reporting in place of that fifth; None keeps the fifth.
        size_px: side S of crops.
        margin: of crops, as a share of the face's box.
        seed: of the split.
        leave_out_copies: leave out copies of pictures in `validation` or `tests`; otherwise they are an error.
        leave_out: hashes (see hash_list.py) of pictures that are left out with their copies, unless they are in
            `validation` or `tests`.
        hold_back: such hashes of pictures that are kept for reporting in place of that fifth; none keeps the fifth.
        trained_on: SHA-256 of the files that the weights to start from were trained on: they stay on the training side.
        warn: gets a line for each file that is left out.

    Raises:
        DatasetUnusable: a data set cannot be used, copies are in two splits, or `trained_on` has files that are kept
            for reporting, or copies of them.
    """
    dataset = Dataset(warn)
    splits, rows = split_faces(
        dataset,
        training,
        tests=tests,
        validation=validation,
        seed=seed,
        leave_out_copies=leave_out_copies,
        leave_out=leave_out,
        hold_back=hold_back,
        trained_on=trained_on,
    )
    return _cut(dataset, splits, rows, size_px, margin)


def split_faces(
    dataset: Dataset,
    training: Sequence[DatasetSource],
    *,
    tests: Sequence[DatasetSource],
    validation: DatasetSource | None,
    seed: int,
    leave_out_copies: bool,
    leave_out: Collection[str],
    hold_back: Collection[str] = (),
    trained_on: Collection[str] = (),
) -> tuple[list[Split], tuple[ManifestRow, ...]]:
    """Add data sets to an empty one and split its faces; return each face's split and row of the manifest.

    The arguments and what is raised are as for prepare_data().
    """
    for source in training:
        dataset.add(source, None)
    if validation is not None:
        dataset.add(validation, "validation")
    for source in tests:
        dataset.add(source, "test")
    dataset.leave_out(leave_out)
    dataset.hold_back(hold_back)
    dataset.train_on(trained_on)
    dataset.leave_out_contradictions()
    pairs = dataset.pairs()
    groups = _groups(dataset.faces, pairs)
    _reject_seen(dataset, groups, trained_on)
    splits = _splits(dataset, groups, seed, with_validation=validation is None and not hold_back)
    if not leave_out_copies:
        _reject_leaks(dataset, splits, groups)
    if leaking := list(find_leaks(splits, pairs)):
        raise DatasetUnusable(_leak_text(dataset.faces, leaking))
    names = {index: name for name, indices in groups.items() for index in indices}
    rows = tuple(
        ManifestRow(
            source=face.source, file=face.file.name, sha256=face.sha256, frame=face.frame, number=face.number,
            label=face.label, box=face.box, group=names[index][:16], split=split,
        )
        for index, (face, split) in enumerate(zip(dataset.faces, splits, strict=True))
    )  # fmt: skip
    return splits, rows


def _groups(faces: Sequence[FoundFace], pairs: Iterable[tuple[int, int]]) -> dict[str, list[int]]:
    """Return the indices of the faces that belong together, by the lowest SHA-256 of their files."""
    members: dict[int, list[int]] = defaultdict(list)
    for index, component in enumerate(connected_components(len(faces), pairs)):
        members[component].append(index)
    return {min(faces[index].sha256 for index in indices): indices for indices in members.values()}


def _splits(dataset: Dataset, groups: dict[str, list[int]], seed: int, *, with_validation: bool) -> list[Split]:
    """Return each face's split; in a group with requested faces, the others are out."""
    by_group = assign_splits(
        [_group(dataset, name, indices) for name, indices in groups.items()], seed, with_validation=with_validation
    )
    splits: list[Split] = ["out"] * len(dataset.faces)
    for name, indices in groups.items():
        split = by_group[name]
        is_kept = split in ("test", "validation") and any(dataset.requested[index] for index in indices)
        for index in indices:
            is_out = is_kept and dataset.requested[index] != split
            if not is_out and not dataset.is_contradicting(dataset.faces[index]):
                splits[index] = split
    return splits


def _group(dataset: Dataset, name: str, indices: Sequence[int]) -> CopyGroup:
    faces = [dataset.faces[index] for index in indices]
    requested = {dataset.requested[index] for index in indices}
    bare = any(face.label == "no_mask" for face in faces)
    clips = {face.file for face in faces if face.is_clip}
    return CopyGroup(
        name=name,
        stratum=f"{faces[0].source} {'no_mask' if bare else 'mask'}",
        share=CLIP_VALIDATION_SHARE if clips else VALIDATION_SHARE,
        weight=max(1, len(clips)),
        fixed=next((split for split in _PRECEDENCE if split in requested), None),
    )


def _reject_seen(dataset: Dataset, groups: dict[str, list[int]], trained_on: Collection[str]) -> None:
    """Raise DatasetUnusable if a face that the user keeps for reporting, or a copy, has taught the weights before."""
    seen = sum(
        dataset.requested[index] in ("test", "validation")
        for indices in groups.values()
        if any(dataset.faces[index].sha256 in trained_on for index in indices)
        for index in indices
    )
    if seen:
        raise DatasetUnusable(
            f"the weights to start from were trained on {seen} of the faces kept for reporting, or on copies of them: "
            "name other data with --test and --validation, or start from other weights"
        )


def _reject_leaks(dataset: Dataset, splits: Sequence[Split], groups: dict[str, list[int]]) -> None:
    """Raise DatasetUnusable if a face to train on is a copy of a face kept for reporting."""
    leaking = sorted(
        (index, max(kept))
        for indices in groups.values()
        if (kept := [index for index in indices if dataset.requested[index] in ("test", "validation")])
        for index in indices
        if splits[index] == "out"
        and dataset.requested[index] != "out"
        and not dataset.is_contradicting(dataset.faces[index])
    )
    if leaking:
        raise DatasetUnusable(_leak_text(dataset.faces, leaking) + "; --leave-out-copies trains without them")


def _leak_text(faces: Sequence[FoundFace], leaking: Sequence[tuple[int, int]]) -> str:
    named = ", ".join(
        f"{faces[one].source}/{faces[one].name} and {faces[other].source}/{faces[other].name}"
        for one, other in leaking[:MAX_NAMED_LEAKS]
    )
    more = f" and {len(leaking) - MAX_NAMED_LEAKS} more" if len(leaking) > MAX_NAMED_LEAKS else ""
    return f"the split leaks, {len(leaking)} faces to train on are copies of faces kept for reporting: {named}{more}"


def _cut(
    dataset: Dataset, splits: Sequence[Split], rows: tuple[ManifestRow, ...], size_px: int, margin: float
) -> PreparedData:
    by_split: dict[Split, list[FoundFace]] = defaultdict(list)
    tests: dict[str, list[FoundFace]] = defaultdict(list)
    for face, split in zip(dataset.faces, splits, strict=True):
        by_split[split].append(face)
        if split == "test":
            tests[face.source].append(face)
    if {face.label for face in by_split["training"]} != {"mask", "no_mask"}:
        raise DatasetUnusable("training needs faces with a mask and faces without")
    kept = defaultdict(list)
    for row in rows:
        if row.split in ("validation", "test"):
            kept[row.source].append(row)
    counts = Counter(f"{row.source}: {row.split}" for row in rows) + dataset.counts
    return PreparedData(
        training=cut_patches(by_split["training"], round(PATCH_SCALE * size_px)),
        calibration=cut_faces(by_split["calibration"], size_px, margin),
        validation=cut_faces(by_split["validation"], size_px, margin),
        tests={name: cut_faces(faces, size_px, margin) for name, faces in tests.items()},
        counts=dict(sorted(counts.items())),
        digests={name: content_digest(of_source) for name, of_source in kept.items()},
        manifest=rows,
        left_out=left_out_rows(dataset.boxes),
    )
