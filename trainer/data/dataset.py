"""Gather the faces of all data sets: sources in; faces in one row, and which of them must stay together, out.

Whatever cannot be used is said, one line each, and counted; what is given twice is read once. A data set of which
nothing can be used raises DatasetUnusable.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.vision.faces import Label
from trainer.data.annotations import DatasetUnusable
from trainer.data.copies.finder import near_copies
from trainer.data.copies.perceptual_hash import PerceptualHash
from trainer.data.faces import FoundFace, look_at
from trainer.data.listing import shown
from trainer.data.names import is_marked, original_name
from trainer.data.sources import Item, Source
from trainer.data.split import Side, connected


class Dataset:
    """The faces of all data sets in one row, with their prints and the sides that the user gave them."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.faces: list[FoundFace] = []
        self.given: list[Side | None] = []
        self.counts: Counter[str] = Counter()
        self._prints: list[PerceptualHash] = []
        self._read: set[tuple[Path, Label | None, Side | None]] = set()
        self._said: set[str] = set()
        self._say = say
        self._contradicting: set[str] = set()

    def add(self, source: Source, side: Side | None) -> None:
        """Look at a data set.

        Raises:
            DatasetUnusable: nothing of it can be used.
        """
        for problem in source.problems:
            self._leave_out(problem)
        items = self._not_read_before(source, side)
        before = len(self.faces)
        for look in look_at(items, source.name, source.family):
            for problem in look.problems:
                self._leave_out(problem)
            self.faces += look.faces
            self.given += [side] * len(look.faces)
            self._prints += look.prints
        if items and len(self.faces) == before:
            raise DatasetUnusable(f"{source.name}: none of its {len(items)} files can be used")

    def leave_out_contradictions(self) -> None:
        """Leave out files that stand in the data sets with both labels: one of the two folders is wrong."""
        labels: dict[tuple[str, int, int], set[str]] = defaultdict(set)
        for face in self.faces:
            labels[face.sha256, face.frame, face.number].add(face.label)
        wrong = {key[0] for key, found in labels.items() if len(found) > 1}
        for face in self.faces:
            if face.sha256 in wrong and face.number == face.frame == 0:
                where = shown(face.file)
                self._leave_out(f"{where} is labelled {face.label}, the same picture elsewhere is not: left out")
        self._contradicting = wrong

    def pairs(self) -> list[tuple[int, int]]:
        """Pair the faces that must stay together; leave out the files of those whose looks say: with both labels."""
        known = self._pairs_by_name()
        labels = [face.label for face in self.faces]
        found = near_copies(self._prints, connected(len(self.faces), known), labels)
        self._leave_out_contradicting_copies(found)
        return known + found

    def is_contradicting(self, face: FoundFace) -> bool:
        """Return whether a face's file, or a copy of it, stands in the data sets with both labels."""
        return face.sha256 in self._contradicting

    def _leave_out_contradicting_copies(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Leave out both files of each pair of copies with different labels: nothing tells which folder is wrong.

        Right pictures are not lost by it: among 18,590 faces of four public data sets, some with drawn masks, there is
        no such pair, and the nearest to one show different people. A mask hides too much detail for a copy.
        """
        copies: dict[str, tuple[FoundFace, FoundFace]] = {}
        for one, other in pairs:
            face, copy = self.faces[one], self.faces[other]
            if face.label != copy.label and face.sha256 != copy.sha256:
                copies.setdefault(face.sha256, (face, copy))
                copies.setdefault(copy.sha256, (copy, face))
        for sha256, where in dict.fromkeys((face.sha256, shown(face.file)) for face in self.faces):
            if sha256 in copies and sha256 not in self._contradicting:
                face, copy = copies[sha256]
                what = f"labels a face {face.label} that its copy {shown(copy.file)} labels {copy.label}"
                self._leave_out(f"{where} {what}: left out")
        self._contradicting |= copies.keys()

    def _not_read_before(self, source: Source, side: Side | None) -> list[Item]:
        """Return a data set's files without those that were read before, for the same side and with the same label."""
        fresh: list[Item] = []
        again: list[Item] = []
        for item in source.items:
            key = (item.path.resolve(), item.label, side)
            (again if key in self._read else fresh).append(item)
            self._read.add(key)
        if again:
            self.counts["given twice"] += len(again)
            which = shown(again[0].path) + (f" and {len(again) - 1} more files" if len(again) > 1 else "")
            self._say(f"{source.name}: {which} had been read before: counted once")
        return fresh

    def _pairs_by_name(self) -> list[tuple[int, int]]:
        """Pair the faces of one file, of files of one content, and of files whose names say they are copies."""
        pairs: list[tuple[int, int]] = []
        first: dict[tuple[str, ...], int] = {}
        marked = {_name_key(face) for face in self.faces if is_marked(face.file)}
        for place, face in enumerate(self.faces):
            pairs.append((first.setdefault(("sha256", face.sha256), place), place))
            if (key := _name_key(face)) in marked:  # else files are only numbered alike
                pairs.append((first.setdefault(key, place), place))
        return [pair for pair in pairs if pair[0] != pair[1]]

    def _leave_out(self, line: str) -> None:
        if line not in self._said:
            self.counts["left out"] += 1
            self._said.add(line)
            self._say(line)


def _name_key(face: FoundFace) -> tuple[str, ...]:
    """Return what a face shares with the copies of its photograph, as far as names tell."""
    return "name", face.family, face.label, original_name(face.file)
