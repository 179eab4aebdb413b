"""Make a fitted network a model folder: network and faces in, files, figures, report and, last of all, card.json out.

Test faces are looked at here and once, after everything is decided. A folder without a card is an unfinished run.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import msgspec

from models.classifier.card import FLOAT_NAME, INT8_NAME, KERAS_NAME, Card, write_card
from models.classifier.mask_classifier import Floats, Pixels, onnx_network
from models.files import sha256_of
from trainer.checks import label_of, path_of
from trainer.data.prepare import Faces, Prepared
from trainer.data.sources import family_name, short_name
from trainer.networks import export
from trainer.reports import report
from trainer.reports.calibrate import fit_temperature
from trainer.reports.evaluate import THRESHOLD, Scored, figures, score
from trainer.reports.findings import Epoch, Kinship
from trainer.reports.latency import measure_run
from trainer.settings import Recipe, TrainSettings

# For measuring only; TensorFlow trains on all processors.
EVALUATION_THREADS = 2
# A temperature that fewer faces tell of would say more of them than of the network.
FEWEST_TO_CALIBRATE = 20
# So much accuracy, as a share, may be lost by int8 before it is said.
TOLERATED_LOSS = 0.005

log = logging.getLogger(__name__)


def finish(
    network: keras.Model, found: Prepared, settings: TrainSettings, recipe: Recipe, epochs: tuple[Epoch, ...], job: str
) -> None:
    """Calibrate, export and measure a network with its final weights, and write all of the model folder.

    Args:
        network: with its final weights.
        found: .calibration and what was kept for reporting.
        settings: what was asked for. recipe: what was made of it.
        epochs: all that were trained.
        job: the id of the training job, for the card; empty when there is none.
    """
    out = Path(settings.out)
    temperature = _temperature(network, found.calibration)
    export.fold_temperature(network, temperature)
    export.to_keras(network, out / KERAS_NAME)
    export.to_float_onnx(out / KERAS_NAME, out / FLOAT_NAME)
    crops = export.calibration_crops(found.training, recipe, settings.seed)
    export.to_int8_onnx(out / FLOAT_NAME, out / INT8_NAME, crops)
    tests = _scored(out, found)
    measured = {test.set_name: figures(test) for test in tests}
    _warn_of_int8(measured)
    calibration = {"faces": len(found.calibration), "temperature": round(temperature, 4)}
    card = msgspec.structs.replace(
        _card(settings, recipe, found, measured, job), last_epoch=_figures_of(epochs[-1]), calibration=calibration
    )
    found.write_manifest(out)
    page = report.Report(
        card=card,
        command=command_of(settings),
        epochs=epochs,
        temperature=temperature,
        tests=tests,
        kinship=_kinship(settings),
        latencies=measure_run(out, recipe.size_px, with_keras=True),
        size_bytes={name: (out / name).stat().st_size for name in card.files},
    )
    report.write(out, page)
    write_card(out, card)


def command_of(settings: TrainSettings) -> str:
    """Return the line that trains with some settings, which names data sets but not where they lie."""
    given: list[tuple[str, object]] = [("--arch", settings.arch), ("--seed", settings.seed)]
    given += [("--test", _without_place(text)) for text in settings.tests]
    given += [("--validation", settings.validation and _without_place(settings.validation))]
    given += [("--weights", settings.weights and Path(settings.weights).name)]
    for name in ("size_px", "margin", "epochs", "batch", "learning_rate", "threads"):
        given += [(f"--{name.replace('_', '-')}", getattr(settings, name))]
    words = ["maskwatch", "train", *map(_without_place, settings.datasets)]
    words += [word for flag, value in given if value is not None for word in (flag, str(value))]
    return shlex.join(words + ["--leave-out-copies"] * settings.leave_out_copies)


def _without_place(dataset: str) -> str:
    label = label_of(dataset)
    return (f"{label}=" if label else "") + short_name(path_of(dataset))


def _temperature(network: keras.Model, calibration: Faces) -> float:
    if len(calibration) < FEWEST_TO_CALIBRATE:
        log.warning("only %d pictures could be kept for calibration: confidences stay as they are", len(calibration))
        return 1.0

    def classify(crops: Pixels) -> Floats:
        probabilities: Floats = keras.ops.convert_to_numpy(network(crops, training=False))
        return probabilities.reshape(-1)

    return fit_temperature(score({"float": classify}, calibration, "calibration").served, calibration.has_mask)


def _scored(out: Path, found: Prepared) -> tuple[Scored, ...]:
    """Measure the exported networks on each data set's validation faces and on each test set."""
    networks = {
        name: onnx_network((out / file).read_bytes(), EVALUATION_THREADS)
        for name, file in (("int8", INT8_NAME), ("float", FLOAT_NAME))
    }
    kept = {name: found.validation.of_source(name) for name in dict.fromkeys(found.validation.sources)}
    return tuple(score(networks, faces, name) for name, faces in (kept | found.tests).items())


def _card(
    settings: TrainSettings, recipe: Recipe, found: Prepared, measured: dict[str, dict[str, float]], job: str
) -> Card:
    out = Path(settings.out)
    files = {name: sha256_of((out / name).read_bytes()) for name in (INT8_NAME, FLOAT_NAME, KERAS_NAME)}
    return Card(
        version=f"{settings.arch}-{files[INT8_NAME][:8]}",
        arch=settings.arch,
        size_px=recipe.size_px,
        margin=recipe.margin,
        threshold=THRESHOLD,
        data=found.counts,
        settings=_for_the_card(settings, recipe),
        measured=measured,
        tests=found.digests,
        files=files,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        job=job,
    )


def _kinship(settings: TrainSettings) -> dict[str, Kinship]:
    """Say of each measured set how near to it the pictures lie that were trained on."""
    paths = [path_of(text) for text in settings.datasets]
    measured = [path_of(text) for text in (*settings.tests, settings.validation) if text]
    families = {family_name(path) for path in paths}
    found: dict[str, Kinship] = {
        short_name(path): "same collection" if family_name(path) in families else "none" for path in measured
    }
    return found | dict.fromkeys(map(short_name, paths), "same folder")


def _warn_of_int8(measured: Mapping[str, Mapping[str, float]]) -> None:
    for name, found in measured.items():
        lost = found.get("accuracy_float", 0.0) - found.get("accuracy_int8", 0.0)
        if lost > TOLERATED_LOSS:
            log.warning(
                "%s: the int8 network, which serves, is right %.2f %% less often than the float one", name, 100 * lost
            )


def _for_the_card(settings: TrainSettings, recipe: Recipe) -> dict[str, Any]:
    """Return the settings that make a difference; what else is one stands in fields of its own."""
    fields: dict[str, Any] = msgspec.to_builtins(recipe)
    own = ("about", "size_px", "margin")
    how = {name: value for name, value in fields.items() if name not in own}
    return how | {"weights": Path(recipe.weights).name, "seed": settings.seed, "keras": keras.__version__}


def _figures_of(last: Epoch) -> dict[str, float]:
    return {
        "epoch": last.epoch,
        "validation_loss": round(last.validation_loss, 4),
        "validation_accuracy": round(last.validation_accuracy, 4),
    }
