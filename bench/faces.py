"""Measure a classifier on the faces of data sets, cropped as workers crop them: a model and data sets in, a table out.

    python -m bench.faces MODEL DATASET... [--only HASHES] [--map NAME=mask|no_mask|ignore]

Data sets are given as for `maskwatch train` (trainer/data/sources.py). Each unusable file gets a line on stderr; a data
set without any face, or a damaged model, fails with status 1. Below each data set: its faces of 16 px and more; below
both: grey, dark and blurred copies of these faces.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from bench.accuracy import map_option, only_option
from models.classifier.mask_classifier import ClassifierFailed, MaskClassifier, load_classifier
from models.files import ModelUnusable
from pipeline.vision.arrays import Image
from trainer.data.annotations import DatasetUnusable
from trainer.data.class_names import ClassNames
from trainer.data.faces import find_faces
from trainer.data.hash_list import HASH_DIGITS, read_hashes
from trainer.data.prepare import EvaluationFaces, cut_faces
from trainer.data.sources import DatasetSource, read_source
from trainer.reports.camera_copies import COPIES
from trainer.reports.evaluate import CLEAR_FACE_PX, classification_figures

COLUMNS = ("accuracy", "mask_recall", "no_mask_recall", "ece")


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("datasets", nargs=-1, required=True)
@only_option
@map_option
def main(model: Path, datasets: tuple[str, ...], only: Path | None, class_names: tuple[str, ...]) -> None:
    """Print the accuracy of MODEL on the faces of each data set."""
    click.echo("".ljust(36) + "faces".rjust(8) + "".join(name.rjust(16) for name in COLUMNS))
    try:
        classifier = load_classifier(model)
        wanted = None if only is None else read_hashes(only)
        for source in [read_source(dataset, ClassNames(class_names)) for dataset in datasets]:
            faces = faces_of(source, classifier, wanted)
            _print_with_copies(faces.sources[0], faces.crops, faces.has_mask, classifier)
            clear = faces.side_px >= CLEAR_FACE_PX
            if 0 < clear.sum() < len(faces):
                clear_name = f"  {CLEAR_FACE_PX} px and more"
                _print_with_copies(clear_name, faces.crops[clear], faces.has_mask[clear], classifier)
    except (DatasetUnusable, ModelUnusable, ClassifierFailed, ValueError) as error:
        raise click.ClickException(str(error)) from error


def faces_of(source: DatasetSource, classifier: MaskClassifier, only: Collection[str] | None) -> EvaluationFaces:
    """Return the cropped faces of a data set, or of the files whose hashes are in `only`.

    Raises:
        DatasetUnusable: there are none.
    """
    found = []
    problems = list(source.problems)
    for of_file in find_faces(source.items, source.name, source.collection):
        problems += of_file.problems
        found += [face for face in of_file.faces if only is None or face.sha256[:HASH_DIGITS] in only]
    for problem in problems:
        click.echo(problem, err=True)
    if not found:
        raise DatasetUnusable(f"{source.name} has no face to measure")
    return cut_faces(found, classifier.card.size_px, classifier.card.margin)


def _print_with_copies(name: str, crops: Image, has_mask: NDArray[np.bool_], classifier: MaskClassifier) -> None:
    _print(name, crops, has_mask, classifier)
    for kind, copy in COPIES.items():
        _print(f"{' ' * (len(name) - len(name.lstrip()))}  {kind} copies", copy(crops), has_mask, classifier)


def _print(name: str, crops: Image, has_mask: NDArray[np.bool_], classifier: MaskClassifier) -> None:
    shares = classification_figures(classifier.mask_probability(crops), has_mask)
    cells = (f"{shares[column]:.2%}".rjust(16) if column in shares else "".rjust(16) for column in COLUMNS)
    click.echo(name.ljust(36) + str(len(crops)).rjust(8) + "".join(cells))


if __name__ == "__main__":
    main()
