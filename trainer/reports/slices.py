"""Slice test results by data set and face size: scored test sets in, shares by slice and the worst mistakes out.

Pure. All sets are joined, then sliced by source, by face size, and by copies as worse cameras show them. Each share has
its Wilson interval, because many slices are small. A share of no faces is None.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.classifier.mask_classifier import label_of
from pipeline.vision.faces import Label
from trainer.reports.evaluate import THRESHOLD, ScoredTestSet
from trainer.reports.shares import CorrectShare, wilson_share

Truth = NDArray[np.bool_]

# The shorter side of a face's box in pixels: from, up to but not including.
SIZES_PX = ((0.0, 16.0), (16.0, 32.0), (32.0, 64.0), (64.0, inf))


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceSlice:
    """Some of the faces: all of them, those with a mask and those without."""

    cut_by: str
    name: str
    accuracy: CorrectShare | None
    mask_recall: CorrectShare | None
    no_mask_recall: CorrectShare | None


class Mistake(msgspec.Struct, frozen=True, kw_only=True):
    """A mislabelled face: its index in its set, its true and its predicted label, and the confidence (0.5..1).

    picture: the file of its crop in the report.
    """

    picture: str
    set_name: str
    index: int = msgspec.field(name="place")  # the key in reports of earlier versions, too
    name: str
    source: str
    side_px: float
    truth: Label
    predicted: Label = msgspec.field(name="said")
    confidence: float


def slices(tests: Sequence[ScoredTestSet]) -> tuple[FaceSlice, ...]:
    """Slice the faces of all test sets by source, by size and by copy; leave out empty slices."""
    has_mask = np.concatenate([test.faces.has_mask for test in tests])
    right = (np.concatenate([test.served for test in tests]) >= THRESHOLD) == has_mask
    all_faces = np.ones(len(has_mask), bool)
    sides = np.concatenate([test.faces.side_px for test in tests])
    sources = np.array([source for test in tests for source in test.faces.sources])
    by_source = (("source", str(source), sources == source) for source in np.unique(sources))
    by_size = (("face size", _size(low, high), (sides >= low) & (sides < high)) for low, high in SIZES_PX)
    cuts = [(cut_by, name, right, chosen) for cut_by, name, chosen in (*by_source, *by_size)]
    cuts += [
        ("copies", name, right_on_copies, all_faces) for name, right_on_copies in _right_on_copies(tests, has_mask)
    ]
    return tuple(
        FaceSlice(
            cut_by=cut_by,
            name=name,
            accuracy=_share(is_right[chosen]),
            mask_recall=_share(is_right[chosen & has_mask]),
            no_mask_recall=_share(is_right[chosen & ~has_mask]),
        )
        for cut_by, name, is_right, chosen in cuts
        if chosen.any()
    )


def _right_on_copies(tests: Sequence[ScoredTestSet], has_mask: Truth) -> Iterator[tuple[str, Truth]]:
    """Yield each kind of copy that all sets have, and which of them get the right label."""
    for name in tests[0].of_copies:
        if all(name in test.of_copies for test in tests):
            yield name, (np.concatenate([test.of_copies[name] for test in tests]) >= THRESHOLD) == has_mask


def worst_mistakes(tests: Sequence[ScoredTestSet], count: int) -> tuple[Mistake, ...]:
    """Return the serving network's mistakes with the highest confidence, the highest first."""
    mistakes = [mistake for test in tests for mistake in _mistakes(test)]
    mistakes.sort(key=lambda one: (-one.confidence, one.set_name, one.index))
    return tuple(
        msgspec.structs.replace(one, picture=f"mistake-{rank:02}.png")
        for rank, one in enumerate(mistakes[:count], start=1)
    )


def _share(right: Truth) -> CorrectShare | None:
    return wilson_share(int(right.sum()), len(right)) if len(right) else None


def _size(low: float, high: float) -> str:
    if low == 0:
        return f"below {high:g} px"
    return f"{low:g} px and more" if high == inf else f"{low:g} to {high:g} px"


def _mistakes(test: ScoredTestSet) -> Iterable[Mistake]:
    labels, confidences = label_of(test.served, THRESHOLD)
    for index, (predicted, masked) in enumerate(zip(labels, test.faces.has_mask, strict=True)):
        truth: Label = "mask" if masked else "no_mask"
        if predicted != truth:
            yield Mistake(
                picture="",
                set_name=test.set_name,
                index=index,
                name=test.faces.names[index],
                source=test.faces.sources[index],
                side_px=round(float(test.faces.side_px[index]), 1),
                truth=truth,
                predicted=predicted,
                confidence=round(float(confidences[index]), 4),
            )
