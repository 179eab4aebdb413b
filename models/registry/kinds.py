"""The kinds of models in a registry: what differs between classifiers and detectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from models.card import RESTORE, CardHeader, read_card_as
from models.classifier import card as classifier_card
from models.classifier.card import Card
from models.detector import card as detector_card
from models.detector.card import DetectorCard
from models.files import read_checked

AnyCard = TypeVar("AnyCard", bound=Card | DetectorCard)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelKind(Generic[AnyCard]):
    """A kind of models.

    name: in tables and JSON. subfolder: where a registry has its versions of this kind; "" or a path that ends with a
    slash. built_in: folder of the model that the program includes.
    files: those of a run folder that a version has; the first, which every version has, tells the kind.
    figures: versions are compared by the first of these that both cards have for a test. measured: these in words.
    self_test: raises ModelUnusable unless the model in a folder runs and answers as it must.
    promote: the command that makes a version current, the built-in one too.
    """

    name: str
    subfolder: str
    built_in: Path
    card_type: type[AnyCard]
    files: tuple[str, ...]
    figures: tuple[str, ...]
    measured: str
    self_test: Callable[[Path], None]
    promote: str

    @property
    def network(self) -> str:
        """The name of the file that every version has."""
        return self.files[0]

    def check_files(self, folder: Path) -> None:
        """Check a model folder's card and every file that it names; raise ModelUnusable if any is damaged."""
        for name, sha256 in read_card_as(self.card_type, folder).files.items():
            read_checked(folder / name, sha256, remedy=RESTORE)


# The runtimes are imported when a model is tested: they take a second, and a process that lists versions needs none.
def _test_classifier(folder: Path) -> None:
    from models.classifier.self_test import check_for_gpu, load_with_self_test

    load_with_self_test(folder, "onnx")
    check_for_gpu(folder)  # workers with a GPU use this version, too


def _test_detector(folder: Path) -> None:
    from models.detector.self_test import load_with_self_test

    load_with_self_test(folder=folder)


# A test without masks has no balanced accuracy. The float ONNX file of a run folder is not used for serving.
CLASSIFIER = ModelKind(
    name="classifier",
    subfolder="",
    built_in=classifier_card.DEFAULT_FOLDER,
    card_type=Card,
    files=(classifier_card.INT8_NAME, classifier_card.KERAS_NAME),
    figures=("balanced_accuracy_int8", "no_mask_recall_int8"),
    measured="balanced, or bare faces alone",
    self_test=_test_classifier,
    promote="maskwatch models promote",
)
DETECTOR = ModelKind(
    name="detector",
    subfolder="detectors/",
    built_in=detector_card.DEFAULT_FOLDER,
    card_type=DetectorCard,
    files=(detector_card.DETECTOR_NAME,),
    figures=("ap",),
    measured="average precision",
    self_test=_test_detector,
    promote="maskwatch models promote --detector",
)
KINDS: tuple[ModelKind[Any], ...] = (CLASSIFIER, DETECTOR)


def kind_of(header: CardHeader) -> ModelKind[Any]:
    """Return the kind of a model: that of the network file on its card, and classifier if there is none."""
    return next((kind for kind in KINDS if kind.network in header.files), CLASSIFIER)
