"""Write the model folder of a fitted network: network and faces in; files, figures, report and, last, card.json out.

Test faces are used only here, once, after everything is decided. A folder without a card is an unfinished run.
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
from models.classifier.onnx_runtime import load_onnx
from models.files import sha256_of
from pipeline.vision.arrays import Floats, Image
from trainer.checks import TrainingPlan
from trainer.data.prepare import EvaluationFaces, PreparedData
from trainer.networks import export
from trainer.reports import report
from trainer.reports.calibrate import fit_temperature
from trainer.reports.evaluate import THRESHOLD, ScoredTestSet, card_figures, score_test_set
from trainer.reports.findings import Epoch, Relation, Report
from trainer.reports.latency import measure_run_latency
from trainer.settings import Recipe

EVALUATION_THREADS = 2  # for measuring only; TensorFlow trains on all processors
MIN_CALIBRATION_FACES = 20  # a temperature fitted to fewer would describe these faces rather than the network
TOLERATED_LOSS = 0.005  # of accuracy, as a share, by quantization to int8; more is reported

log = logging.getLogger(__name__)


def write_model_folder(
    network: keras.Model, prepared: PreparedData, plan: TrainingPlan, epochs: tuple[Epoch, ...], job: str
) -> None:
    """Calibrate, export and measure a network with its final weights, and write the model folder.

    epochs: all that were trained. job: the ID of the training job, for the card; empty when there is none.
    """
    out, recipe = plan.out, plan.recipe
    temperature = _temperature(network, prepared.calibration)
    export.fold_temperature(network, temperature)
    network.save(out / KERAS_NAME)
    export.to_float_onnx(out / KERAS_NAME, out / FLOAT_NAME)
    crops = export.quantization_crops(prepared.training, recipe, plan.settings.seed)
    export.to_int8_onnx(out / FLOAT_NAME, out / INT8_NAME, crops)
    tests = _scored(out, prepared)
    measured = {test.set_name: card_figures(test) for test in tests}
    _warn_of_int8(measured)
    card = _card(plan, prepared, measured, epochs[-1], temperature, job)
    prepared.write_manifest(out)
    page = Report(
        card=card,
        command=training_command(plan),
        epochs=epochs,
        temperature=temperature,
        tests=tests,
        relations=_relations(plan),
        latencies=measure_run_latency(out, recipe.size_px, with_keras=True),
        size_bytes={name: (out / name).stat().st_size for name in card.files},
    )
    report.write_report(out, page)
    write_card(out, card)


def training_command(plan: TrainingPlan) -> str:
    """Return the command that repeats a run; it names data sets without their locations."""
    settings = plan.settings
    flags: list[tuple[str, object]] = [("--arch", settings.arch), ("--seed", settings.seed)]
    flags += [("--test", source.dataset.without_location()) for source in plan.tests]
    flags += [("--validation", plan.validation and plan.validation.dataset.without_location())]
    flags += [("--weights", settings.weights and Path(settings.weights).name)]
    flags += [("--leave-out", settings.leave_out and Path(settings.leave_out).name)]
    flags += [("--hold-back", settings.hold_back and Path(settings.hold_back).name)]
    flags += [("--map", choice) for choice in settings.class_names]
    flags += [("--teacher", Path(folder).name) for folder in settings.teachers]
    for name in ("size_px", "margin", "epochs", "batch", "learning_rate", "threads"):
        flags += [(f"--{name.replace('_', '-')}", getattr(settings, name))]
    words = ["maskwatch", "train", *(source.dataset.without_location() for source in plan.training)]
    words += [word for flag, value in flags if value is not None for word in (flag, str(value))]
    words += ["--leave-out-copies"] * settings.leave_out_copies + ["--mixed-precision"] * settings.mixed_precision
    return shlex.join(words)


def _temperature(network: keras.Model, calibration: EvaluationFaces) -> float:
    if len(calibration) < MIN_CALIBRATION_FACES:
        log.warning("only %d pictures could be kept for calibration: confidences are not calibrated", len(calibration))
        return 1.0

    def classify(crops: Image) -> Floats:
        probabilities: Floats = keras.ops.convert_to_numpy(network(crops, training=False))
        return probabilities.reshape(-1)

    return fit_temperature(score_test_set({"float": classify}, calibration, "calibration").served, calibration.has_mask)


def _scored(out: Path, prepared: PreparedData) -> tuple[ScoredTestSet, ...]:
    """Measure the exported networks on each data set's validation faces and on each test set."""
    networks = {
        name: load_onnx((out / file).read_bytes(), EVALUATION_THREADS)
        for name, file in (("int8", INT8_NAME), ("float", FLOAT_NAME))
    }
    kept = {name: prepared.validation.of_source(name) for name in dict.fromkeys(prepared.validation.sources)}
    return tuple(score_test_set(networks, faces, name) for name, faces in (kept | prepared.tests).items())


def _card(
    plan: TrainingPlan,
    prepared: PreparedData,
    measured: dict[str, dict[str, float]],
    last: Epoch,
    temperature: float,
    job: str,
) -> Card:
    out, arch, recipe = plan.out, plan.settings.arch, plan.recipe
    files = {name: sha256_of((out / name).read_bytes()) for name in (INT8_NAME, FLOAT_NAME, KERAS_NAME)}
    return Card(
        version=f"{arch}-{files[INT8_NAME][:8]}",
        arch=arch,
        size_px=recipe.size_px,
        margin=recipe.margin,
        threshold=THRESHOLD,
        data=prepared.counts,
        settings=_settings_on_card(recipe, plan.settings.seed),
        measured=measured,
        tests=prepared.digests,
        files=files,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        job=job,
        last_epoch={
            "epoch": last.epoch,
            "validation_loss": round(last.validation_loss, 4),
            "validation_accuracy": round(last.validation_accuracy, 4),
        },
        calibration={"faces": len(prepared.calibration), "temperature": round(temperature, 4)},
    )


def _relations(plan: TrainingPlan) -> dict[str, Relation]:
    """Return for each measured set how closely related the pictures are that were trained on."""
    collections = {source.collection for source in plan.training}
    measured = (*plan.tests, plan.validation) if plan.validation else plan.tests
    found: dict[str, Relation] = {
        source.name: "same collection" if source.collection in collections else "none" for source in measured
    }
    return found | dict.fromkeys((source.name for source in plan.training), "same folder")


def _warn_of_int8(measured: Mapping[str, Mapping[str, float]]) -> None:
    for name, found in measured.items():
        lost = found.get("accuracy_float", 0.0) - found.get("accuracy_int8", 0.0)
        if lost > TOLERATED_LOSS:
            log.warning(
                "%s: the int8 network, which serves, has a %.2f %% lower accuracy than the float one",
                name,
                100 * lost,
            )


def _settings_on_card(recipe: Recipe, seed: int) -> dict[str, Any]:
    """Return the settings that influence the weights; size and margin have fields of their own on the card."""
    fields: dict[str, Any] = msgspec.to_builtins(recipe)
    for name in ("about", "size_px", "margin"):
        del fields[name]
    return fields | {"weights": Path(recipe.weights).name, "seed": seed, "keras": keras.__version__}
