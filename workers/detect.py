"""Find faces: frames in; faces with their crops out, or a result at once when a frame has none.

A frame whose picture cannot be decoded is dead-lettered with what is wrong with it; one whose pixels are gone is
dropped. Losing Redis only makes it wait.
"""

from __future__ import annotations

import logging
import time

import cv2
import redis

from models import face_detector, mask_classifier
from models.face_detector import FaceDetector
from models.named import model_card
from pipeline import messages, metrics, pixels
from pipeline.messages import BadMessage, FaceCrops, Frame, FrameResult, Model
from pipeline.pixels import BadPicture, Picture
from pipeline.process import Running, running
from pipeline.settings import Settings
from pipeline.streams import Entry, Reader

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
    wanted = _named_model(settings)
    with running(
        "detector",
        settings.redis_url or "",
        parent_fd=settings.parent_fd,
        metrics_port=settings.metrics_port,
        metrics_token=settings.metrics_token,
    ) as run:
        reader = Reader(run.client, run.clock, stream=messages.FRAMES, record_type=Frame, consumer=run.id)
        metrics.settled.follow(messages.FRAMES, reader.outcomes)
        looked_at = float("-inf")
        while run.going():
            with run.reconnecting():
                if time.monotonic() - looked_at > MODEL_S:
                    wanted, looked_at = announced_model(run) or wanted, time.monotonic()
                for entry in reader.read(1):
                    with run.busy(), reader.guard(entry):
                        detect(run, reader, entry, detector, wanted, settings.detector_px)
        with run.reconnecting():
            reader.retire()
    return 0


def detect(
    run: Running, reader: Reader[Frame], entry: Entry[Frame], detector: FaceDetector, wanted: Model, input_px: int
) -> None:
    """Work on one frame and settle it.

    Raises:
        BadPicture: its picture cannot be decoded, or is not what its record says.
        PixelsGone: its picture has expired.
    """
    started, frame = run.clock.now(), entry.record
    jpeg = pixels.fetch(run.client, frame.pixels_key)
    size = pixels.jpeg_size(jpeg)
    if size != (frame.width, frame.height):
        raise BadPicture(f"the JPEG is {size[0]}x{size[1]}, its record says {frame.width}x{frame.height}")
    picture, scale = _decode_for(jpeg, input_px, max(size))
    faces = detector.find(picture)
    seconds = {"detect_wait": max(0.0, started - frame.captured_at)}
    metrics.detect_wait_s.observe(seconds["detect_wait"])
    if len(faces.boxes) == 0:
        seconds["detect"] = run.clock.now() - started
        result = FrameResult(**frame.identity(), outcome="labelled", model=wanted.version, seconds=seconds)  # type: ignore[arg-type]
        settled = reader.finish(entry, result)
    else:
        full = pixels.decode_jpeg(jpeg) if scale != 1 else picture
        boxes = faces.boxes * scale
        crops = mask_classifier.crop_faces(full, boxes, wanted.crop_px, wanted.margin)
        seconds["detect"] = run.clock.now() - started
        found = FaceCrops(
            **frame.identity(),  # type: ignore[arg-type]
            boxes=[tuple(outline) for outline in (faces.outlines * scale).tolist()],
            scores=faces.scores.tolist(),
            left_out=faces.left_out,
            crop_px=wanted.crop_px,
            seconds=seconds,
        )
        settled = reader.forward(entry, found, crops.tobytes())
    metrics.detect_s.observe(run.clock.now() - started)
    if settled:
        run.count("frames")


def announced_model(run: Running) -> Model | None:
    """Return the model that classifiers have announced, None when none has."""
    try:
        packed = run.client.get(messages.MODEL)
        if packed is None:
            return None
        return messages.decode(Model, packed)  # type: ignore[arg-type]  # redis-py types sync and async as one
    except (BadMessage, redis.ResponseError) as error:
        log.warning("key %s is left out: %s", messages.MODEL, error)
        return None


def _decode_for(jpeg: bytes, input_px: int, longer_px: int) -> tuple[Picture, float]:
    """Return a picture to find faces in, and what its coordinates are to be multiplied by."""
    if longer_px < REDUCE_FROM * input_px:
        return pixels.decode_jpeg(jpeg), 1
    picture = pixels.decode_jpeg(jpeg, at_least_px=input_px)
    return picture, longer_px / max(picture.shape[:2])


def _named_model(settings: Settings) -> Model:
    """Return which crops to cut until a classifier announces what it wants."""
    card = model_card(settings.models)
    return Model(version=card.version, crop_px=card.size_px, margin=card.margin)
