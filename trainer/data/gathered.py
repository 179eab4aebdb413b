"""Gather the faces of all data sets: sources in; faces in one row, and which of them must stay together, out.

Whatever cannot be used is said, one line each, and counted. A data set of which nothing can be used raises
DatasetUnusable.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable

from trainer.data import copies
from trainer.data.annotations import DatasetUnusable
from trainer.data.copies import Fingerprints
from trainer.data.faces import MIN_PRINT_PX, FoundFace, look_at
from trainer.data.sources import Source
from trainer.data.split import Side


class Gathered:
    """The faces of all data sets in one row, with their fingerprints and the sides that the user gave them."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.faces: list[FoundFace] = []
        self.given: list[Side | None] = []
        self.counts: Counter[str] = Counter()
        self._prints: list[Fingerprints] = []
        self._say = say
        self._contradicting: set[str] = set()

    def add(self, source: Source, side: Side | None) -> None:
        """Look at a data set.

        Raises:
            DatasetUnusable: nothing of it can be used.
        """
        for problem in source.problems:
            self._leave_out(problem)
        before = len(self.faces)
        for look in look_at(source.items, source.name, source.family):
            if look.prints is None:
                self._leave_out(look.problem or "")
                continue
            self.faces += look.faces
            self.given += [side] * len(look.faces)
            self._prints.append(look.prints)
        if len(self.faces) == before:
            raise DatasetUnusable(f"{source.name}: none of its {len(source.items)} files can be used")

    def leave_out_contradictions(self) -> None:
        """Leave out files that stand in the data sets with both labels: one of the two folders is wrong."""
        labels: dict[tuple[str, int, int], set[str]] = defaultdict(set)
        for face in self.faces:
            labels[face.sha256, face.frame, face.number].add(face.label)
        wrong = {key[0] for key, found in labels.items() if len(found) > 1}
        for face in self.faces:
            if face.sha256 in wrong and face.number == face.frame == 0:
                self._leave_out(f"{face.file} is labelled {face.label}, the same picture elsewhere is not: left out")
        self._contradicting = wrong

    def pairs(self) -> list[tuple[int, int]]:
        """Pair the faces that must stay together."""
        found = list(copies.near_copies(self._clear_prints()))
        clear = self._clear_places()
        pairs = [(clear[one], clear[other]) for one, other in found]
        first: dict[tuple[str, ...], int] = {}
        marked = {_name_key(face) for face in self.faces if copies.is_marked(face.file)}
        for place, face in enumerate(self.faces):
            pairs.append((first.setdefault(("sha256", face.sha256), place), place))
            if (key := _name_key(face)) in marked:  # else files are only numbered alike
                pairs.append((first.setdefault(key, place), place))
        return [pair for pair in pairs if pair[0] != pair[1]]

    def is_contradicting(self, face: FoundFace) -> bool:
        """Tell whether a face's file stands in the data sets with both labels."""
        return face.sha256 in self._contradicting

    def _clear_places(self) -> list[int]:
        return [place for place, face in enumerate(self.faces) if face.side_px >= MIN_PRINT_PX]

    def _clear_prints(self) -> Fingerprints:
        prints, places = copies.joined(self._prints), self._clear_places()
        return Fingerprints(
            hashes=prints.hashes[places], mirrored=prints.mirrored[places], details=prints.details[places]
        )

    def _leave_out(self, line: str) -> None:
        self.counts["left out"] += 1
        self._say(line)


def _name_key(face: FoundFace) -> tuple[str, ...]:
    """Return what a face shares with the copies of its photograph, as far as names tell."""
    return "name", face.family, face.label, copies.original_name(face.file)
