"""Measure networks on test faces: functions and EvaluationFaces in, probabilities and named figures out.

No setting is chosen by these figures. A set with only one label gets the figures that are defined for it. A network
that does not give one probability per face raises ValueError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.classifier.mask_classifier import MAX_BATCH
from models.classifier.onnx_runtime import Classify
from pipeline.vision.arrays import Floats, Image
from trainer.data.prepare import EvaluationFaces
from trainer.reports.calibrate import log_loss, reliability
from trainer.reports.camera_copies import COPIES
from trainer.reports.ranking import precision_recall, roc

Truth = NDArray[np.bool_]

CLEAR_FACE_PX = 16  # faces whose shorter side is at least this are also counted apart: below it people disagree too
SHARES = ("accuracy", "mask_recall", "no_mask_recall")  # of copies, which are measured by nothing else
THRESHOLD = 0.5  # the probability of a mask from which on a face is labelled mask


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredTestSet:
    """A test set and the probabilities of each network.

    set_name: "face-mask-12k/Test". faces: one or more.
    probabilities: float32 n of a mask, by network; the first network is the one that serves.
    of_copies: float32 n of the network that serves, by the name of the copy (camera_copies.py); may be empty.
    """

    set_name: str
    faces: EvaluationFaces
    probabilities: Mapping[str, Floats]
    of_copies: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def served(self) -> Floats:
        """The probabilities of the network that serves."""
        return next(iter(self.probabilities.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The agreement of two networks: the share of labels that differ, and differences of probabilities."""

    labels_differ: float
    mean_difference: float
    max_difference: float


def score_test_set(networks: Mapping[str, Classify], faces: EvaluationFaces, set_name: str) -> ScoredTestSet:
    """Run networks over the faces of a test set; set_name is for the card and the report.

    Args:
        networks: by name, the one that serves first; each from uint8 n x S x S x 3 RGB to float32 n.

    Raises:
        ValueError: there are no faces or networks, or a network does not return probabilities.
    """
    if len(faces) == 0 or not networks:
        raise ValueError(f"{set_name} cannot be measured: it needs faces and a network, one or more of each")
    probabilities = {name: _run(classify, faces.crops) for name, classify in networks.items()}
    for name, answers in probabilities.items():
        if answers.shape != (len(faces),) or not np.all((answers >= 0) & (answers <= 1)):
            raise ValueError(f"network {name} does not give one probability per face on {set_name}: train it again")
    serving = next(iter(networks.values()))
    return ScoredTestSet(
        set_name=set_name,
        faces=faces,
        probabilities=probabilities,
        of_copies={name: _run(serving, copy(faces.crops)) for name, copy in COPIES.items()},
    )


def card_figures(scored: ScoredTestSet) -> dict[str, float]:
    """Return the figures of a test set for the model's card.

    Returns:
        By name, counts and shares 0..1 (log_loss: nats): faces, and per network accuracy_int8, mask_recall_int8 and so
        on. When the faces' sizes differ, also for faces of CLEAR_FACE_PX and more: faces_16px, accuracy_16px_int8. Of
        grey, dark and blurred copies the shares that the serving network gets right: accuracy_grey_int8.
    """
    sides = scored.faces.side_px
    groups = {"": np.ones(len(sides), bool)}
    if (sides != sides[0]).any():
        groups["_16px"] = sides >= CLEAR_FACE_PX
    found: dict[str, float] = {f"faces{group}": int(chosen.sum()) for group, chosen in groups.items()}
    for network, probabilities in scored.probabilities.items():
        for group, chosen in groups.items():
            for name, value in classification_figures(probabilities[chosen], scored.faces.has_mask[chosen]).items():
                found[f"{name}{group}_{network}"] = round(value, 4)
    serving = next(iter(scored.probabilities))
    for copy, probabilities in scored.of_copies.items():
        figures = classification_figures(probabilities, scored.faces.has_mask)
        found |= {f"{name}_{copy}_{serving}": round(figures[name], 4) for name in SHARES if name in figures}
    return found


def classification_figures(probabilities: Floats, has_mask: Truth) -> dict[str, float]:
    """Return the figures of one network's probabilities (float32 n of a mask) by name; none for no faces.

    With both labels: accuracy, balanced_accuracy, mask_recall, no_mask_recall, roc_auc, mask_average_precision and
    no_mask_average_precision (each label in turn is the positive one), log_loss and ece. With one label: its recall,
    log_loss and ece; for the label no_mask also false_mask_share, the share of faces labelled mask.
    """
    if len(has_mask) == 0:
        return {}
    right = (probabilities >= THRESHOLD) == has_mask
    confidence = {"log_loss": log_loss(probabilities, has_mask), "ece": reliability(probabilities, has_mask).ece}
    if has_mask.all():
        return {"mask_recall": float(right.mean())} | confidence
    if not has_mask.any():
        return {"no_mask_recall": float(right.mean()), "false_mask_share": float((~right).mean())} | confidence
    mask_recall, no_mask_recall = float(right[has_mask].mean()), float(right[~has_mask].mean())
    ranked = {
        "roc_auc": roc(probabilities, has_mask).area,
        "mask_average_precision": precision_recall(probabilities, has_mask).area,
        "no_mask_average_precision": precision_recall(-probabilities, ~has_mask).area,
    }
    recalls = {"mask_recall": mask_recall, "no_mask_recall": no_mask_recall}
    accuracies = {"accuracy": float(right.mean()), "balanced_accuracy": (mask_recall + no_mask_recall) / 2}
    return accuracies | recalls | ranked | confidence


def agreement(one: Floats, other: Floats) -> Agreement:
    """Compare two networks' probabilities of the same faces, float32 n each, n from 1 on."""
    distances = np.abs(one.astype(np.float64) - other)
    return Agreement(
        labels_differ=float(np.mean((one >= THRESHOLD) != (other >= THRESHOLD))),
        mean_difference=float(distances.mean()),
        max_difference=float(distances.max()),
    )


def _run(classify: Classify, crops: Image) -> Floats:
    return np.concatenate([classify(crops[start : start + MAX_BATCH]) for start in range(0, len(crops), MAX_BATCH)])
