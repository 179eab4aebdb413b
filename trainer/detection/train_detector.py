"""Train a face detector: a checked plan in, a model folder out.

The folder gets detector.onnx, manifest.jsonl (the split of each face), report/ and, last, card.json. Until then it
holds a checkpoint, from which the same plan continues. The ONNX file differs from the published one only in its
weights, so that every runtime and models/detector/yunet_decode.py read it alike.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import keras
import msgspec
import numpy as np

from models.detector.card import DETECTOR_NAME, DetectorCard, OutlineGeometry, write_detector_card
from models.files import sha256_of
from trainer.checks import TrainingPlan
from trainer.data.annotations import DatasetUnusable
from trainer.data.decoding import decode_picture
from trainer.data.manifest import hash_of, write_manifest
from trainer.data.prepare import TOO_FEW_TO_VALIDATE
from trainer.data.published_detector import published_detector
from trainer.detection.canvases import SERVED_PX
from trainer.detection.fit import KEPT_SHARE, DetectorEpoch, find_all, fit_detector, second_faces, trained_detector
from trainer.detection.geometry import measure_geometry, pair_boxes
from trainer.detection.pictures import DetectionData, MeasuredPicture, prepare_pictures
from trainer.detection.precision import SERVED_SCORE, detection_figures
from trainer.detection.report import DetectorReport, MeasuredSet, write_detector_report
from trainer.fitting.checkpoint import Checkpoint, RunOrigin
from trainer.fitting.progress import Progress
from trainer.fitting.repeatable import make_repeatable
from trainer.model_folder import training_command

log = logging.getLogger(__name__)


def train_detector(plan: TrainingPlan, report: Callable[[Progress], None], job: str) -> None:
    """Train, export and measure in the plan's folder, which the caller has locked; arguments: see trainer.train."""
    settings, recipe = plan.settings, plan.recipe
    checkpoint = Checkpoint(plan.out, DetectorEpoch)
    make_repeatable(settings.seed, settings.threads)
    data = _prepared(plan)
    origin = RunOrigin(arch=settings.arch, recipe=recipe, seed=settings.seed, data=data.digest)
    if epochs := checkpoint.epochs_of(origin):
        log.info("%s: continuing after epoch %d of %d", settings.out, len(epochs), recipe.epochs)
    content, epochs = fit_detector(data, origin, checkpoint, report)
    _write_folder(plan, data, content, epochs, job)
    checkpoint.remove()


def _prepared(plan: TrainingPlan) -> DetectionData:
    data = prepare_pictures(
        plan.training,
        tests=plan.tests,
        validation=plan.validation,
        seed=plan.settings.seed,
        leave_out_copies=plan.settings.leave_out_copies,
        leave_out=plan.left_out,
        hold_back=plan.held_back,
    )
    if not data.validation:
        raise DatasetUnusable(TOO_FEW_TO_VALIDATE)
    return data


def _write_folder(
    plan: TrainingPlan, data: DetectionData, content: bytes, epochs: tuple[DetectorEpoch, ...], job: str
) -> None:
    """Measure the network and write its folder. Test pictures are used only here, once."""
    out = plan.out
    (out / DETECTOR_NAME).write_bytes(content)
    write_manifest(out, data.manifest + data.left_out)
    sets = _measured_sets(data, content)
    card = DetectorCard(
        version=f"{plan.settings.arch}-{sha256_of(content)[:8]}",
        arch=plan.settings.arch,
        input_px=SERVED_PX,
        score_threshold=SERVED_SCORE,
        outlines=_outlines(data, content),
        data=data.counts,
        settings=_settings_on_card(plan),
        measured={one.name: one.figures for one in sets} | _second_faces(data, content),
        tests={one.name: pictures_digest(one.pictures) for one in sets},
        last_epoch=msgspec.to_builtins(epochs[-1]),
        files={DETECTOR_NAME: sha256_of(content)},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        job=job,
    )
    write_detector_report(
        out, DetectorReport(card=card, command=training_command(plan), epochs=epochs, sets=sets), content
    )
    write_detector_card(out, card)


def pictures_digest(pictures: Sequence[MeasuredPicture]) -> str:
    """Return the hash of a measured set's pictures and annotations; their order and names do not matter."""
    return hash_of(
        (sha256_of(one.path.read_bytes()), one.boxes.tolist(), one.is_bare.tolist(), one.neither.tolist())
        for one in pictures
    )


def _outlines(data: DetectionData, content: bytes) -> OutlineGeometry:
    """Measure the network's outlines against the published boxes: blended weights draw a little of both."""
    published, trained = published_detector(), trained_detector(content, score_threshold=SERVED_SCORE)
    pairs = []
    for picture in data.validation:
        image = decode_picture(picture.path.read_bytes())
        boxes, outlines = published.find(image).boxes, trained.find(image).outlines
        indices = pair_boxes(boxes, outlines)
        pairs.append((boxes[indices[:, 0]], outlines[indices[:, 1]]))
    measured = measure_geometry(*(np.concatenate(part) for part in zip(*pairs, strict=True)))
    return measured or data.geometry  # too few faces to measure with


def _measured_sets(data: DetectionData, content: bytes) -> tuple[MeasuredSet, ...]:
    detector = trained_detector(content)
    sets = []
    measured = (*data.validation, *data.tests)
    for name in dict.fromkeys(picture.source for picture in measured):
        pictures = tuple(picture for picture in measured if picture.source == name)
        found = tuple(find_all(detector, pictures))
        sets.append(
            MeasuredSet(name=name, pictures=pictures, found=found, figures=_rounded(detection_figures(pictures, found)))
        )
    return tuple(sets)


def _second_faces(data: DetectionData, content: bytes) -> dict[str, dict[str, float]]:
    """Count the frames of kept clips, which show one person each, and those with a second, false face."""
    detector = trained_detector(content)
    found = {
        name: [seen for clip in clips for seen in second_faces(detector, clip)] for name, clips in data.clips.items()
    }
    return {name: {"frames": len(seen), "frames_with_second_face": sum(seen)} for name, seen in found.items()}


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in figures.items()}


def _settings_on_card(plan: TrainingPlan) -> dict[str, Any]:
    """Return the settings that influence the weights."""
    fields: dict[str, Any] = msgspec.to_builtins(plan.recipe)
    for name in ("about", "margin", "label_smoothing"):
        del fields[name]
    return fields | {"kept_share": KEPT_SHARE, "seed": plan.settings.seed, "keras": keras.__version__}
