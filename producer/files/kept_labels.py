"""Give faces of a file the labels of earlier faces that they are the same as: results in, results with all labels out.

A detector that finds a face unchanged does not wait for the label of the earlier one: its frame's result says which
face that is (`SameFace`). The label is here when that frame's result is. Pure; for one run of `label`.
"""

from __future__ import annotations

import msgspec

from pipeline.bus.messages import FrameResult
from pipeline.vision.faces import Face

MAX_RESULTS = 2_000  # that are remembered; more than there are frames in the longest time that labels are kept for


class LabelGone(Exception):
    """The earlier face was not classified after all, or its frame is forgotten: classify all faces of this frame."""


class KeptLabels:
    """The classified faces of the newest frames."""

    def __init__(self) -> None:
        self._classified: dict[int, dict[int, Face]] = {}  # by frame, by the face's number in it

    def add(self, result: FrameResult) -> None:
        """Remember the faces that were classified in a frame."""
        same = {face.number for face in result.same_faces}
        numbers = [number for number in range(len(same) + len(result.faces)) if number not in same]
        self._classified[result.seq] = dict(zip(numbers, result.faces, strict=True))
        if len(self._classified) > MAX_RESULTS:
            del self._classified[next(iter(self._classified))]

    def missing(self, result: FrameResult) -> set[int]:
        """Return the frames whose results this one waits for."""
        return {face.same_seq for face in result.same_faces if face.same_seq not in self._classified}

    def complete(self, result: FrameResult) -> FrameResult:
        """Return a result with the labels of all its faces, in their order. Nothing may be missing.

        Raises:
            LabelGone: a label does not exist.
        """
        if not result.same_faces:
            return result
        faces = dict(self._classified[result.seq])
        for face in result.same_faces:
            label = self._classified.get(face.same_seq, {}).get(face.same_number)
            if label is None:
                raise LabelGone(f"frame {face.same_seq} has no classified face {face.same_number}")
            faces[face.number] = msgspec.structs.replace(label, box=face.box, score=face.score, fresh=False)
        return msgspec.structs.replace(result, faces=[faces[number] for number in sorted(faces)], same_faces=[])
