"""Collect the faces of all data sets: sources in; one list of faces, and which of them belong together, out.

Each file that cannot be used is reported in one line and counted; a file that is given twice is read once. A data set
without any usable file raises DatasetUnusable.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from pipeline.vision.boxes import iou
from pipeline.vision.faces import Label
from trainer.data.annotations import DatasetUnusable, LeftOutBox
from trainer.data.copies.finder import find_copies
from trainer.data.copies.perceptual_hash import PerceptualHash
from trainer.data.copy_names import is_marked_copy, original_name
from trainer.data.faces import FoundFace, find_faces
from trainer.data.file_listing import printable
from trainer.data.hash_list import HASH_DIGITS
from trainer.data.sources import DatasetFile, DatasetSource
from trainer.data.split import Split, connected_components

SAME_FACE_IOU = 0.5  # of the boxes of one face in two data sets


class Dataset:
    """The faces of all data sets in one list, with their perceptual hashes and the splits that the user asked for.

    faces: n. requested: n, None where the split is to be drawn. boxes: the faces left out because of their boxes, each
    with the short name of its data set. counts: of files that are left out or given twice, of these boxes, and of what
    tools left behind.
    """

    def __init__(self, warn: Callable[[str], None], incorrect: Label | None = None) -> None:
        """Collect nothing yet. incorrect: the label of faces whose mask is worn so; None leaves them out."""
        self.faces: list[FoundFace] = []
        self.requested: list[Split | None] = []
        self.boxes: dict[tuple[str, LeftOutBox], None] = {}  # in order, each once
        self.counts: Counter[str] = Counter()
        self._hashes: list[PerceptualHash] = []
        self._read: set[tuple[Path, Label | None, Split | None]] = set()
        self._warned: set[str] = set()
        self._leftovers: set[Path] = set()
        self._warn = warn
        self._incorrect = incorrect
        self._contradicting: set[str] = set()

    def add(self, source: DatasetSource, split: Split | None) -> None:
        """Find the faces of a data set; raise DatasetUnusable if none of its files can be used."""
        for problem in source.problems:
            self._leave_out(problem)
        self._leave_out_boxes(source.name, source.boxes)
        self._count_leftovers(source)
        items = self._not_read_before(source, split)
        before = len(self.faces)
        for found in find_faces(items, source.name, source.collection, self._incorrect):
            for problem in found.problems:
                self._leave_out(problem)
            self._leave_out_boxes(source.name, found.boxes)
            self.faces += found.faces
            self.requested += [split] * len(found.faces)
            self._hashes += found.hashes
        if items and len(self.faces) == before:
            raise DatasetUnusable(f"{source.name}: none of its {len(items)} files can be used")

    def leave_out(self, hashes: Collection[str]) -> None:
        """Leave out the files with these hashes (the first HASH_DIGITS digits), unless the user asked for a split."""
        for index, face in enumerate(self.faces):
            if self.requested[index] is None and face.sha256[:HASH_DIGITS] in hashes:
                self.requested[index] = "out"

    def hold_back(self, hashes: Collection[str]) -> None:
        """Keep the files with these hashes (the first HASH_DIGITS digits) for reporting, unless asked for otherwise."""
        for index, face in enumerate(self.faces):
            if self.requested[index] is None and face.sha256[:HASH_DIGITS] in hashes:
                self.requested[index] = "validation"

    def train_on(self, hashes: Collection[str]) -> None:
        """Give the files with these SHA-256 to training, unless the user asked for a split."""
        for index, face in enumerate(self.faces):
            if self.requested[index] is None and face.sha256 in hashes:
                self.requested[index] = "training"

    def leave_out_contradictions(self) -> None:
        """Leave out files that are in the data sets with both labels: one of the two folders is wrong."""
        labelled: dict[tuple[str, int], dict[Label, list[FoundFace]]] = defaultdict(lambda: defaultdict(list))
        for face in self.faces:
            labelled[face.sha256, face.frame][face.label].append(face)
        wrong = {sha256 for (sha256, _), found in labelled.items() if _contradict(found["mask"], found["no_mask"])}
        for face in self.faces:
            if face.sha256 in wrong and face.number == face.frame == 0:
                where = printable(face.file)
                self._leave_out(f"{where} is labelled {face.label}, the same picture elsewhere is not: left out")
        self._contradicting = wrong

    def pairs(self) -> list[tuple[int, int]]:
        """Return pairs of indices of faces that belong together; leave out copies that have different labels."""
        known = self._pairs_by_name()
        labels = [face.label for face in self.faces]
        found = find_copies(self._hashes, connected_components(len(self.faces), known), labels)
        self._leave_out_contradicting_copies(found)
        return known + found

    def is_contradicting(self, face: FoundFace) -> bool:
        """Return whether a face's file, or a copy of it, is in the data sets with both labels."""
        return face.sha256 in self._contradicting

    def _leave_out_contradicting_copies(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Leave out both files of each pair of copies with different labels: either folder may be the wrong one.

        No correct pictures are lost by this: among 18,590 faces of four public data sets, some with drawn masks, there
        is no such pair, and the closest candidate shows different people. A mask hides too much detail for a copy.
        """
        copies: dict[str, tuple[FoundFace, FoundFace]] = {}
        for one, other in pairs:
            face, copy = self.faces[one], self.faces[other]
            if face.label != copy.label and face.sha256 != copy.sha256:
                copies.setdefault(face.sha256, (face, copy))
                copies.setdefault(copy.sha256, (copy, face))
        for sha256, where in dict.fromkeys((face.sha256, printable(face.file)) for face in self.faces):
            if sha256 in copies and sha256 not in self._contradicting:
                face, copy = copies[sha256]
                what = f"labels a face {face.label} that its copy {printable(copy.file)} labels {copy.label}"
                self._leave_out(f"{where} {what}: left out")
        self._contradicting |= copies.keys()

    def _not_read_before(self, source: DatasetSource, split: Split | None) -> list[DatasetFile]:
        """Return a data set's files without those that were read before for the same split and with the same label."""
        fresh: list[DatasetFile] = []
        again: list[DatasetFile] = []
        for item in source.items:
            key = (item.path.resolve(), item.label, split)
            (again if key in self._read else fresh).append(item)
            self._read.add(key)
        if again:
            self.counts["given twice"] += len(again)
            which = printable(again[0].path) + (f" and {len(again) - 1} more files" if len(again) > 1 else "")
            self._warn(f"{source.name}: {which} had been read before: counted once")
        return fresh

    def _pairs_by_name(self) -> list[tuple[int, int]]:
        """Pair the faces of one file, of files with the same content, and of files whose names mark them as copies."""
        pairs: list[tuple[int, int]] = []
        first: dict[tuple[str, ...], int] = {}
        marked = {_name_key(face) for face in self.faces if is_marked_copy(face.file)}
        for index, face in enumerate(self.faces):
            pairs.append((first.setdefault(("sha256", face.sha256), index), index))
            if (key := _name_key(face)) in marked:  # unmarked files may only happen to have the same number
                pairs.append((first.setdefault(key, index), index))
        return [pair for pair in pairs if pair[0] != pair[1]]

    def _leave_out_boxes(self, source: str, boxes: Sequence[LeftOutBox]) -> None:
        """Remember faces that are left out because of their boxes; their lines are among the problems."""
        self.boxes |= dict.fromkeys((source, box) for box in boxes)
        self.counts["boxes left out"] = len(self.boxes)

    def _count_leftovers(self, source: DatasetSource) -> None:
        if fresh := [path for path in source.leftovers if path.resolve() not in self._leftovers]:
            self._leftovers |= {path.resolve() for path in fresh}
            self.counts["leftovers of tools"] += len(fresh)
            which = printable(fresh[0]) + (f" and {len(fresh) - 1} more" if len(fresh) > 1 else "")
            self._warn(f"{source.name}: leftovers of tools are left out: {which}")

    def _leave_out(self, line: str) -> None:
        if line not in self._warned:
            self.counts["left out"] += 1
            self._warned.add(line)
            self._warn(line)


def _contradict(masked: Sequence[FoundFace], bare: Sequence[FoundFace]) -> bool:
    """Return whether a face of a picture has one label where it was read from, and the other elsewhere."""
    return any(
        (face.source, face.file) != (other.source, other.file) and iou([face.box], [other.box]).item() >= SAME_FACE_IOU
        for face in masked
        for other in bare
    )


def _name_key(face: FoundFace) -> tuple[str, ...]:
    """Return what a face shares with the copies of its photograph, judged by file names."""
    return "name", face.collection, face.label, original_name(face.file)
