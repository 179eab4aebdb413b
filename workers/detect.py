"""Find faces: frames in; faces with their crops out, or a result at once when a frame has none.

A frame whose picture cannot be decoded is dead-lettered with what is wrong with it; one whose pixels are gone is
dropped. Losing Redis only makes it wait.
"""

from __future__ import annotations

import logging
import time

import cv2
import redis

from models.classifier import mask_classifier
from models.detector import face_detector
from models.detector.face_detector import FaceDetector
from models.registry.resolve import current_card
from pipeline.bus import messages, pixels
from pipeline.bus.messages import BadMessage, FaceCrops, Frame, FrameResult, Model
from pipeline.bus.streams import Entry, Reader
from pipeline.runtime import metrics
from pipeline.runtime.settings import Settings
from pipeline.runtime.worker_context import WorkerContext, worker_context_from
from pipeline.vision.jpeg import BadImage, Image, decode_jpeg, jpeg_size

log = logging.getLogger(__name__)

MODEL_S = 1.0  # how often the announced model is looked up
REDUCE_FROM = 4  # a picture so many times the detector's input is first decoded at reduced size


def main(settings: Settings) -> int:
    """Run one detection worker until it is told to stop."""
    cv2.setNumThreads(settings.threads)
    threshold = {} if settings.score_threshold is None else {"score_threshold": settings.score_threshold}
    detector = face_detector.load(
        settings.detector, input_px=settings.detector_px, threads=settings.threads, **threshold
    )
    wanted = ActiveModelCache(_named_model(settings))
    with worker_context_from("detector", settings) as context:
        reader = Reader(context.client, context.clock, stream=messages.FRAMES, record_type=Frame, consumer=context.id)
        metrics.settled.follow(messages.FRAMES, reader.outcomes)
        while context.should_run():
            with context.reconnecting():
                model = wanted.look(context)
                for entry in reader.read(1):
                    with context.busy(), reader.guard(entry):
                        detect(context, reader, entry, detector, model, settings.detector_px)
        with context.reconnecting():
            reader.retire()
    return 0


def detect(
    context: WorkerContext,
    reader: Reader[Frame],
    entry: Entry[Frame],
    detector: FaceDetector,
    wanted: Model,
    input_px: int,
) -> None:
    """Work on one frame and settle it.

    Raises:
        BadImage: its picture cannot be decoded, or is not what its record says.
        PixelsGone: its picture has expired.
    """
    started, frame = context.clock.now(), entry.record
    jpeg = pixels.fetch(context.client, frame.pixels_key)
    size = jpeg_size(jpeg)
    if size != (frame.width, frame.height):
        raise BadImage(f"the JPEG is {size[0]}x{size[1]}, its record says {frame.width}x{frame.height}")
    picture, scale = _decode_for(jpeg, input_px, max(size))
    faces = detector.find(picture)
    seconds = {"detect_wait": max(0.0, started - frame.captured_at)}
    metrics.detect_wait_s.observe(seconds["detect_wait"])
    if len(faces.boxes) == 0:
        seconds["detect"] = context.clock.now() - started
        result = FrameResult(**frame.identity(), outcome="labelled", model=wanted.version, seconds=seconds)  # type: ignore[arg-type]
        settled = reader.finish(entry, result)
    else:
        full = decode_jpeg(jpeg) if scale != 1 else picture
        boxes = faces.boxes * scale
        crops = mask_classifier.crop_faces(full, boxes, wanted.crop_px, wanted.margin)
        seconds["detect"] = context.clock.now() - started
        found = FaceCrops(
            **frame.identity(),  # type: ignore[arg-type]
            boxes=[tuple(outline) for outline in (faces.outlines * scale).tolist()],
            scores=faces.scores.tolist(),
            left_out=faces.left_out,
            crop_px=wanted.crop_px,
            seconds=seconds,
        )
        settled = reader.forward(entry, found, crops.tobytes())
    metrics.detect_s.observe(context.clock.now() - started)
    if settled:
        context.count("frames")


class ActiveModelCache:
    """Which crops classifiers want: what they announce in Redis, looked up once a second.

    What stands there and is no announcement is told once, and so is its end; the model known last counts meanwhile.
    """

    def __init__(self, first: Model) -> None:
        self._model = first
        self._looked_at = float("-inf")
        self._wrong = False

    def look(self, context: WorkerContext) -> Model:
        """Return the model to cut crops for.

        Raises:
            redis.RedisError: Redis does not answer, or not this user.
        """
        if time.monotonic() - self._looked_at > MODEL_S:
            wrong = self._wrong_with(context)
            if wrong and not self._wrong:
                log.warning("key %s is left out until it is right again: %s", messages.MODEL, wrong)
            if self._wrong and not wrong:
                log.info("key %s is right again", messages.MODEL)
            self._wrong, self._looked_at = bool(wrong), time.monotonic()
        return self._model

    def _wrong_with(self, context: WorkerContext) -> str:
        """Look once; return what is wrong with the key, nothing where it is right or does not exist."""
        try:
            packed = context.client.get(messages.MODEL)
            if packed is not None:
                self._model = messages.decode(Model, packed)  # type: ignore[arg-type]  # redis-py types sync and async as one
        except BadMessage as error:
            return str(error)
        except redis.ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):  # busy, or not for this user: the loop's business
                raise
            return str(error)
        return ""


def _decode_for(jpeg: bytes, input_px: int, longer_px: int) -> tuple[Image, float]:
    """Return a picture to find faces in, and what its coordinates are to be multiplied by."""
    if longer_px < REDUCE_FROM * input_px:
        return decode_jpeg(jpeg), 1
    picture = decode_jpeg(jpeg, at_least_px=input_px)
    return picture, longer_px / max(picture.shape[:2])


def _named_model(settings: Settings) -> Model:
    """Return which crops to cut until a classifier announces what it wants."""
    card = current_card(settings.models)
    return Model(version=card.version, crop_px=card.size_px, margin=card.margin)
