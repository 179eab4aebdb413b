"""Label faces: crops in, in batches; one result per frame out.

The model is the one of `--models`. If that is a registry, its current version is used, and replaced between two batches
(model_reloader.py). A frame whose crops are gone is dropped. When a batch fails, its frames are tried one by one, and
only those that fail are dead-lettered. A lost Redis is waited for.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from functools import partial

import cv2
import numpy as np
import redis
from numpy.typing import NDArray

from models.classifier import mask_classifier
from models.classifier.mask_classifier import ClassifierFailed, MaskClassifier
from models.registry.kinds import CLASSIFIER
from models.registry.resolve import resolve_models
from pipeline.bus import messages
from pipeline.bus.cluster import STALE
from pipeline.bus.keys import MODEL
from pipeline.bus.messages import AnnouncedModel, FaceCrops, FrameResult
from pipeline.bus.reader import Entry, Reader
from pipeline.runtime import metrics
from pipeline.runtime.settings import Settings
from pipeline.runtime.worker_context import WorkerContext, worker_context
from pipeline.vision.arrays import Image
from pipeline.vision.faces import Face
from workers.batcher import Batcher
from workers.face_crops import CropSource
from workers.known_faces import kept_faces, known_when_labelled, same_faces
from workers.model_reloader import ModelReloader, report_model, report_state
from workers.warm_classifier import WarmClassifier, load_warm

log = logging.getLogger(__name__)

ANNOUNCE_INTERVAL_S = 5.0  # how often the model is announced to detectors; Redis may have lost its memory
RETRY_INTERVAL_S = 1.0  # ... and when it did not answer

Work = tuple[Entry[FaceCrops], Image]


def main(settings: Settings) -> int:
    """Run one classification worker until it is asked to stop."""
    cv2.setNumThreads(settings.threads)
    reloader = ModelReloader(resolve_models(settings.models, CLASSIFIER), partial(load_warm, settings))
    model = reloader.first.model
    with worker_context("classifier", settings) as context, reloader.polling():
        report_model(context, reloader.first.version)
        reader = Reader(context.bus, stage="faces", record_type=FaceCrops, consumer=context.id, pipelined=True)
        metrics.settled.add_reader("faces", reader.outcomes)
        announce_at = 0.0
        source = CropSource()
        while context.should_run():
            source.let_go()
            if (newer := reloader.take()) is not None:
                model, announce_at = newer.model, 0.0
                report_model(context, newer.version)
                log.info("%s labels with %s from now on", context.id, context.model)
            report_state(context, reloader.state)
            with context.reconnecting():
                if time.monotonic() >= announce_at:
                    announced = announce(context, model.classifier)
                    announce_at = time.monotonic() + (ANNOUNCE_INTERVAL_S if announced else RETRY_INTERVAL_S)
                entries = read_batch(reader, model.batcher)
                if entries:
                    with context.busy():
                        classify(context, reader, model, entries, source)
        with context.reconnecting():
            reader.leave_group()
    return 0


def announce(context: WorkerContext, classifier: MaskClassifier) -> bool:
    """Announce to detectors which crops the current model takes; return whether Redis answered."""
    card = classifier.card
    model = AnnouncedModel(version=card.version, crop_px=card.size_px, margin=card.margin)
    try:
        with contextlib.suppress(redis.OutOfMemoryError):  # detectors know it by now, and settling needs no memory
            context.client.set(MODEL, messages.encode(model))
    except STALE:  # the frames may be on other nodes of the cluster
        return False
    return True


def read_batch(reader: Reader[FaceCrops], batcher: Batcher) -> list[Entry[FaceCrops]]:
    """Return what waits, up to about one batch; wait for more only as long as the batcher allows."""
    entries = reader.read(batcher.entries_to_read)
    if any(entry.alone for entry in entries):
        return entries
    while wait_s := batcher.wait_s(
        sum(len(entry.record.to_classify) for entry in entries),
        [entry.record.deadline_at for entry in entries],
        entries[0].at.shard.clock.now() if entries else 0.0,
    ):
        more = reader.read_new(batcher.entries_to_read, block_ms=max(1, int(wait_s * 1000)))
        entries += more
        if not more:
            break
    return entries


def classify(
    context: WorkerContext,
    reader: Reader[FaceCrops],
    model: WarmClassifier,
    entries: Sequence[Entry[FaceCrops]],
    source: CropSource,
) -> None:
    """Label the faces of some frames and settle each of them."""
    started = time.monotonic()
    work: list[Work] = []
    for entry in entries:
        with reader.guard(entry):
            crops = source.crops(reader, entry, model.classifier.card)
            work.append((entry, crops))
            model.batcher.learn_entry(len(crops))
            metrics.classify_wait_s.observe(_waited_s(entry, started))
    try:
        _classify_all(context, reader, model, work, started)
    except (ClassifierFailed, ValueError) as error:  # ValueError: crops of two sizes, while the model changes
        if len(work) > 1:
            log.warning("a batch of %d frames failed, trying them one by one: %s", len(work), error)
        for one in work:
            with reader.guard(one[0]):
                _classify_all(context, reader, model, [one], started)


def _classify_all(
    context: WorkerContext, reader: Reader[FaceCrops], model: WarmClassifier, work: list[Work], started: float
) -> None:
    """Call the model as often as needed; settle each frame as soon as its last crop is labelled.

    Between two calls, frames that have expired meanwhile are dropped, and the others are renewed, also one of which
    some faces are still to be labelled.
    """
    expired: set[int] = set()
    probabilities: list[list[NDArray[np.float32]]] = [[] for _ in work]
    for planned in model.batcher.plan([len(crops) for _, crops in work]):
        call = [part for part in planned if part.entry not in expired]
        if not call:
            continue
        parts = [work[part.entry][1][part.start : part.stop] for part in call]
        before = time.monotonic()
        found = model.classifier.mask_probability(np.concatenate(parts))
        model.batcher.learn_call(len(found), time.monotonic() - before)
        metrics.batch_crops.observe(len(found))
        context.watchdog.kick()  # a batch of many faces takes several calls
        ends = np.cumsum([len(part) for part in parts])[:-1]
        for part, share in zip(call, np.split(found, ends), strict=True):
            probabilities[part.entry].append(share)
            if part.stop == len(work[part.entry][1]):
                mask_probability = np.concatenate(probabilities[part.entry])
                _finish(context, reader, model.classifier, work[part.entry], mask_probability, started)
        last = call[-1]
        first_waiting = last.entry if last.stop < len(work[last.entry][1]) else last.entry + 1
        waiting = [number for number in range(first_waiting, len(work)) if number not in expired]
        kept = reader.drop_expired([work[number][0] for number in waiting])
        expired |= {number for number in waiting if work[number][0] not in kept}
        reader.renew(kept)


def _finish(
    context: WorkerContext,
    reader: Reader[FaceCrops],
    classifier: MaskClassifier,
    work: Work,
    mask_probability: NDArray[np.float32],
    started: float,
) -> None:
    """Settle a frame with the labels of its faces, new ones and those that known faces keep."""
    entry, crops = work
    record = entry.record
    labels, confidences = mask_classifier.label_of(mask_probability, classifier.card.threshold)
    labelled = kept_faces(record.known, record.boxes, record.scores)
    for number, label, confidence in zip(record.to_classify, labels, confidences.tolist(), strict=True):
        box, score = record.boxes[number], record.scores[number]
        labelled[number] = Face(box=box, score=score, label=label, confidence=confidence)
    faces = [labelled[number] for number in sorted(labelled)]
    classify_s = time.monotonic() - started
    metrics.classify_s.observe(classify_s)
    seconds = record.seconds | {"classify_wait": _waited_s(entry, started), "classify": classify_s}
    model = classifier.card.version
    result = FrameResult.for_frame(
        record,
        faces=faces,
        same_faces=same_faces(record.known, record.boxes, record.scores),
        model=model,
        seconds=seconds,
        left_out=record.left_out,
    )
    if reader.finish(entry, result, known_when_labelled(record, labelled, model)):
        context.count("frames")
        context.count("faces", len(crops))


def _waited_s(entry: Entry[FaceCrops], started: float) -> float:
    """Return how long a frame's faces waited for this batch. started: on the monotonic clock."""
    record = entry.record
    started_at = entry.at.shard.clock.now() - (time.monotonic() - started)
    return max(0.0, started_at - record.captured_at - sum(record.seconds.values()))
