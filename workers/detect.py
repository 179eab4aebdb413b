"""Detect faces: frames in; faces with the crops of new ones out, or a result at once for a frame without new faces.

The detector is that of `--models`. If that is a registry, its current version is used, and replaced between two frames
(model_reloader.py). A frame whose image cannot be decoded is dead-lettered with the reason; one whose pixels are gone
is dropped. A lost Redis is waited for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import redis

from models.classifier import mask_classifier
from models.detector.face_detector import FaceDetector
from models.detector.self_test import load_with_self_test
from models.registry.kinds import CLASSIFIER, DETECTOR
from models.registry.resolve import current_card, resolve_models
from pipeline.bus import messages
from pipeline.bus.cluster import STALE
from pipeline.bus.keys import MODEL
from pipeline.bus.messages import AnnouncedModel, BadMessage, FaceCrops, Frame, FrameResult, KnownFace, KnownFaces
from pipeline.bus.reader import Entry, Reader
from pipeline.runtime import metrics
from pipeline.runtime.settings import Settings
from pipeline.runtime.worker_context import WorkerContext, worker_context
from pipeline.vision.faces import Box
from workers.frame_pixels import PixelSource
from workers.known_faces import (
    THUMBNAIL_PX,
    kept_faces,
    known_when_kept,
    known_when_passed_on,
    recognize,
    same_faces,
    thumbnails_of,
    unpack_known,
)
from workers.model_reloader import ModelReloader, report_model, report_state

log = logging.getLogger(__name__)

RUN_FRAMES = 8  # of a file; at 30 frames/s those of 0.25 s
RUN_S = 0.1  # about the longest time that a run takes, after which a live frame has its turn
QUIET_S = 1.0  # without a live frame, before a run is taken
RENEW_INTERVAL_S = 0.3  # how often the rest of a run is renewed; each frame takes milliseconds
MODEL_POLL_INTERVAL_S = 1.0  # how often the announced model is read
NO_CROPS = np.empty((0, 0, 0, 3), np.uint8)
NO_THUMBNAILS = np.empty((0, THUMBNAIL_PX**2), np.uint8)


def main(settings: Settings) -> int:
    """Run one detection worker until it is asked to stop."""
    cv2.setNumThreads(settings.threads)
    reloader = reloader_for(settings)
    detector = reloader.first.model
    card = current_card(settings.models, CLASSIFIER)  # its crops are cut until a classifier announces its model
    active_model = ActiveModelCache(AnnouncedModel(version=card.version, crop_px=card.size_px, margin=card.margin))
    with worker_context("detector", settings) as context, reloader.polling():
        if settings.detector != "haar":
            report_model(context, reloader.first.version)
        reader = Reader(context.bus, stage="frames", record_type=Frame, consumer=context.id, pipelined=True)
        metrics.settled.add_reader("frames", reader.outcomes)
        source, runs = PixelSource(), FileRuns()
        while context.should_run():
            source.let_go()
            if (newer := reloader.take()) is not None:
                detector = newer.model
                report_model(context, newer.version)
                log.info("%s finds faces with %s from now on", context.id, context.model)
            report_state(context, reloader.state)
            with context.reconnecting():
                model = active_model.get(context)
                entries = reader.read(1, runs.length())
                runs.begin(entries)
                renewed_at = time.monotonic()
                for number, entry in enumerate(entries, start=1):
                    with context.busy(), reader.guard(entry):
                        detect(context, reader, entry, detector, model, source, runs)
                    # Renewing sends what was settled, too, for which the classifiers of a live frame wait.
                    if not entry.record.keeps_pixels or time.monotonic() - renewed_at > RENEW_INTERVAL_S:
                        reader.renew(entries[number:])
                        renewed_at = time.monotonic()
                    if not context.should_run() and runs.is_late():
                        break  # another worker takes the rest when their lease has run out
        with context.reconnecting():
            reader.leave_group()
    return 0


def reloader_for(settings: Settings) -> ModelReloader[FaceDetector]:
    """Return what loads the detector that the settings name, and its next versions; haar has none."""

    def load(folder: Path) -> FaceDetector:
        return load_with_self_test(
            settings.detector,
            folder=folder,
            input_px=settings.detector_px,
            score_threshold=settings.score_threshold,
            threads=settings.threads,
        )

    if settings.detector == "haar":
        return ModelReloader(DETECTOR.built_in, load)
    return ModelReloader(resolve_models(settings.models, DETECTOR), load)


def detect(
    context: WorkerContext,
    reader: Reader[Frame],
    entry: Entry[Frame],
    detector: FaceDetector,
    model: AnnouncedModel,
    source: PixelSource,
    runs: FileRuns,
) -> None:
    """Detect the faces of one frame and settle it.

    Raises:
        BadImage: its image cannot be decoded, or differs in size from its record.
        PixelsGone: its pixels have expired, were overwritten, or are in the memory of another machine.
    """
    frame, clock = entry.record, entry.at.shard.clock
    started = clock.now()
    pixels = source.pixels(reader, entry, detector.input_px)
    faces = detector.find(pixels.image)
    seconds = {"detect_wait": max(0.0, started - frame.captured_at)}
    metrics.detect_wait_s.observe(seconds["detect_wait"])
    boxes: list[Box] = [tuple(outline) for outline in (faces.outlines * pixels.scale).tolist()]
    scores: list[float] = faces.scores.tolist()
    known: list[KnownFace | None] = [None] * len(boxes)
    thumbnails = NO_THUMBNAILS
    if frame.relabel is not None:
        thumbnails = thumbnails_of(pixels.image, faces.boxes, model.margin)
        known = recognize(runs.known_faces(reader, entry), boxes, thumbnails, frame.relabel, model.version)
    is_new = np.array([face is None for face in known], bool)
    crops, crop_boxes = NO_CROPS, None
    if frame.keeps_pixels and pixels.are_shared and not reader.needs_crops(entry):
        crop_boxes = [tuple(box) for box in faces.boxes.tolist()]
    elif is_new.any():
        new_boxes = faces.boxes[is_new] * pixels.scale
        crops = mask_classifier.crop_faces(pixels.full(), new_boxes, model.crop_px, model.margin)
    pixels.check()
    seconds["detect"] = clock.now() - started
    if not is_new.any():
        result = FrameResult.for_frame(
            frame,
            faces=list(kept_faces(known, boxes, scores).values()),
            same_faces=same_faces(known, boxes, scores),
            model=model.version,
            seconds=seconds,
            left_out=faces.left_out,
        )
        known_next = known_when_kept(known)
        settled = reader.finish(entry, result, known_next)
    else:
        found = FaceCrops.for_frame(
            frame,
            boxes=boxes,
            scores=scores,
            known=known,
            crop_boxes=crop_boxes,
            thumbnails=[] if frame.keeps_pixels else [one.tobytes() for one in thumbnails],
            left_out=faces.left_out,
            crop_px=model.crop_px,
            seconds=seconds,
        )
        known_next = known_when_passed_on(found, thumbnails)
        settled = reader.forward(entry, found, crops.tobytes(), known_next)
    runs.note(frame, known_next)
    metrics.detect_s.observe(clock.now() - started)
    if settled:
        context.count("frames")
        metrics.kept_labels.inc(int(np.count_nonzero(~is_new)))


class FileRuns:
    """Take several frames of a file that follow one another: in one round trip, and so that faces keep their labels.

    Detectors that take them one by one are each a frame or more behind the others, and classify a face that has changed
    once each. A worker that gets live frames takes no runs, since these would wait for the rest of a run.

    monotonic: the clock of this process, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._live_at = float("-inf")
        self._begun_at: float | None = None  # of a run of frames of files
        self._taken = 0
        self._length = 1
        self._known: dict[str, KnownFaces] = {}

    def length(self) -> int:
        """Return how many frames of files to take at once."""
        now = self._monotonic()
        if self._begun_at is not None:
            self._length = self._next_length(now - self._begun_at)
            self._begun_at = None
        return self._length if now - self._live_at > QUIET_S else 1

    def begin(self, entries: Sequence[Entry[Frame]]) -> None:
        """Note which frames were taken together."""
        self._known = {}
        if any(not entry.record.keeps_pixels for entry in entries):
            self._live_at = self._monotonic()
        elif entries:
            self._begun_at, self._taken = self._monotonic(), len(entries)

    def is_late(self) -> bool:
        """Return whether the present run has taken longer than a run should."""
        return self._begun_at is not None and self._monotonic() - self._begun_at > RUN_S

    def _next_length(self, took_s: float) -> int:
        """Return the length of the next run, at most twice that of the last one, which took this long."""
        return max(1, min(RUN_FRAMES, 2 * self._taken, int(RUN_S * self._taken / max(took_s, 1e-6))))

    def known_faces(self, reader: Reader[Frame], entry: Entry[Frame]) -> list[KnownFace]:
        """Return the faces that are known of an entry's camera: those of the frame before in this run, or of Redis."""
        here = self._known.get(entry.record.camera)
        return here.faces if here else unpack_known(reader.known_faces(entry))

    def note(self, frame: Frame, known: KnownFaces | None) -> None:
        """Note the faces that are known after a frame; None when that is not the detector's to say."""
        if known is not None:
            self._known[frame.camera] = known


class ActiveModelCache:
    """The model that classifiers announce in Redis, which determines the crops; read once a second.

    An invalid announcement is logged once, and so is its end; meanwhile the last valid one is used.
    """

    def __init__(self, initial: AnnouncedModel) -> None:
        self._model = initial
        self._read_at = float("-inf")
        self._invalid = False

    def get(self, context: WorkerContext) -> AnnouncedModel:
        """Return the model to cut crops for.

        Raises:
            redis.RedisError: Redis denies this user the command.
        """
        if time.monotonic() - self._read_at > MODEL_POLL_INTERVAL_S:
            error = self._read(context)
            if error and not self._invalid:
                log.warning("key %s is ignored until it is valid again: %s", MODEL, error)
            if self._invalid and not error:
                log.info("key %s is valid again", MODEL)
            self._invalid, self._read_at = bool(error), time.monotonic()
        return self._model

    def _read(self, context: WorkerContext) -> str:
        """Read the key; return why it is invalid, or "" if it is valid or does not exist."""
        try:
            packed = cast(bytes | None, context.client.get(MODEL))
            if packed is not None:
                self._model = messages.decode(AnnouncedModel, packed)
        except BadMessage as error:
            return str(error)
        except STALE:  # the frames may be on other nodes of the cluster
            return ""
        except redis.ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):  # busy, or not permitted: the loop handles these
                raise
            return str(error)
        return ""
