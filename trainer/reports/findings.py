"""Compute every number of a training report: scored test sets in, one record for JSON and page out.

Pure: the page shows nothing that is not in these records. A figure that is not defined for a set (balanced accuracy
where one label is missing) is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
from sklearn.metrics import confusion_matrix

from models.classifier.card import INT8_NAME, Card
from trainer.reports.calibrate import Reliability, at_temperature, reliability
from trainer.reports.evaluate import THRESHOLD, Agreement, ScoredTestSet, agreement, card_figures
from trainer.reports.latency import Latency
from trainer.reports.slices import FaceSlice, Mistake, slices, worst_mistakes

MISTAKES = 16

Unit = Literal["share", "ms", "MB"]
# How pictures that were trained on are related to a test set: from the same folder, from another folder of the same
# collection (its Train and Test), or neither.
Relation = Literal["same folder", "same collection", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One epoch of training. Losses are means, accuracies 0..1."""

    epoch: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The input of a report.

    card: the model's; its settings and data are shown unchanged. command: the command that trained it.
    epochs: all that were trained, in order. temperature: by which the exported networks divide their logits.
    tests: one or more, of different names; the first network of each is the one that serves.
    relations: by name of a test set; missing ones have none.
    latencies: of latency.measure_run_latency(), empty when not measured. size_bytes: by file of the run folder.
    """

    card: Card
    command: str
    epochs: tuple[Epoch, ...]
    temperature: float
    tests: tuple[ScoredTestSet, ...]
    relations: Mapping[str, Relation]
    latencies: tuple[Latency, ...]
    size_bytes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """One of the few most important numbers."""

    title: str
    value: float
    unit: Unit
    about: str


@dataclass(frozen=True, slots=True)
class Confusion:
    """Numbers of faces by truth and predicted label."""

    mask_called_mask: int
    mask_called_no_mask: int
    no_mask_called_mask: int
    no_mask_called_no_mask: int


class SetFindings(msgspec.Struct, frozen=True, kw_only=True):
    """The findings of one test set. All but `figures` and `agreements` are of the network that serves.

    relation: see Relation. figures: evaluate.card_figures().
    before, after: without and with the temperature. agreements: of each other network with the one that serves.
    """

    name: str
    faces: int
    relation: Relation = msgspec.field(name="kinship")  # the key in reports of earlier versions, too
    figures: dict[str, float]
    confusion: Confusion
    before: Reliability
    after: Reliability
    agreements: dict[str, Agreement]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The content of a report."""

    card: Card
    command: str
    served: str
    temperature: float
    headlines: tuple[Headline, ...]
    epochs: tuple[Epoch, ...]
    tests: tuple[SetFindings, ...]
    slices: tuple[FaceSlice, ...]
    mistakes: tuple[Mistake, ...]
    latencies: tuple[Latency, ...]
    size_mb: dict[str, float]


def compute_findings(report: Report) -> Findings:
    """Compute all numbers of a report."""
    tests = tuple(
        _set_findings(scored, report.temperature, report.relations.get(scored.set_name, "none"))
        for scored in report.tests
    )
    size_mb = {name: round(size / 1e6, 2) for name, size in report.size_bytes.items()}
    served = next(iter(report.tests[0].probabilities))
    return Findings(
        card=report.card,
        command=report.command,
        served=served,
        temperature=report.temperature,
        headlines=tuple(_headlines(tests, served, report.latencies, size_mb)),
        epochs=report.epochs,
        tests=tests,
        slices=slices(report.tests),
        mistakes=worst_mistakes(report.tests, MISTAKES),
        latencies=report.latencies,
        size_mb=size_mb,
    )


def _set_findings(scored: ScoredTestSet, temperature: float, relation: Relation) -> SetFindings:
    has_mask = scored.faces.has_mask
    counts = confusion_matrix(has_mask, scored.served >= THRESHOLD, labels=[True, False])
    others = list(scored.probabilities.items())[1:]
    return SetFindings(
        name=scored.set_name,
        faces=len(scored.faces),
        relation=relation,
        figures=card_figures(scored),
        confusion=Confusion(*counts.ravel().tolist()),
        # The exported networks include the temperature; its inverse removes it.
        before=reliability(at_temperature(scored.served, 1 / temperature), has_mask),
        after=reliability(scored.served, has_mask),
        agreements={name: agreement(scored.served, probabilities) for name, probabilities in others},
    )


def _headlines(
    tests: Sequence[SetFindings], served: str, latencies: Iterable[Latency], size_mb: Mapping[str, float]
) -> Iterator[Headline]:
    """Choose the worst of all sets for each figure: an average over sets hides the one that fails."""
    for title, figure, worst in (
        ("Balanced accuracy", "balanced_accuracy", min),
        ("Mask recall", "mask_recall", min),
        ("No-mask recall", "no_mask_recall", min),
        ("Calibration error", "ece", max),
    ):
        key = f"{figure}_{served}"
        found = {test.name: test.figures[key] for test in tests if key in test.figures}
        if found:
            name = worst(found, key=lambda one: found[one])
            about = f"{name}, the {'lowest' if worst is min else 'highest'} of {len(found)} test sets"
            yield Headline(title=title, value=found[name], unit="share", about=about if len(found) > 1 else name)
    for latency in latencies:
        if latency.batch == 1 and latency.threads == 1:
            about = f"{latency.runtime}, one thread, batch of 1"
            yield Headline(title="Time a face", value=latency.ms_a_face, unit="ms", about=about)
            break
    if INT8_NAME in size_mb:
        yield Headline(title="Size", value=size_mb[INT8_NAME], unit="MB", about=INT8_NAME)
