"""Recognize faces that were labelled a moment ago: they keep their labels, and are not classified again. Pure.

A face is known if the camera's known faces hold one with nearly the same box that looks nearly the same, was labelled
less than `every_s` ago by the same version of the classifier, and with confidence. The look of a face is its crop as
8 x 8 grey values. It is compared with that of the crop which was classified, so that small changes add up.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.bus import messages
from pipeline.bus.messages import BadMessage, FaceCrops, KnownFace, KnownFaces, Relabel
from pipeline.vision.arrays import Image
from pipeline.vision.boxes import pairs_by_overlap
from pipeline.vision.faces import Box, Face

MIN_CONFIDENCE = 0.9  # an unsure face is classified in every frame
MIN_IOU = 0.7  # of the boxes
# Mean difference of the grey values, as a share of their mean, since dark pictures differ less; between these numbers.
MAX_LOOK_CHANGE = 0.12
LEAST_CHANGE, MOST_CHANGE = 2.0, 12.0
LOOK_PX = 8

Looks = NDArray[np.uint8]


def looks_of(crops: Image) -> Looks:
    """Return how faces look. crops: uint8 n x S x S x 3, RGB. Returns uint8 n x 64, grey."""
    looks = np.empty((len(crops), LOOK_PX * LOOK_PX), np.uint8)
    for look, crop in zip(looks, crops, strict=True):
        small = cv2.resize(crop, (LOOK_PX, LOOK_PX), interpolation=cv2.INTER_AREA)
        look[:] = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).ravel()
    return looks


def unpack_known(packed: bytes | None) -> list[KnownFace]:
    """Return the known faces; none when there are none, or what is stored is invalid."""
    try:
        known = messages.decode(KnownFaces, packed) if packed else None
    except BadMessage:  # what is stored is only a shortcut, and the next labelled frame replaces it
        return []
    return known.faces if known else []


def recognize(
    known: list[KnownFace], boxes: Sequence[Box], looks: Looks, relabel: Relabel, model: str
) -> list[KnownFace | None]:
    """Return for each box the face that it is known as, or None if it must be classified.

    Args:
        boxes: n, of the frame.
        looks: uint8 n x 64, of the boxes.
        relabel: of the frame.
        model: the version of the classifier that is in use.
    """
    found: list[KnownFace | None] = [None] * len(boxes)
    for earlier, box in pairs_by_overlap([face.box for face in known], boxes, MIN_IOU):
        face = known[earlier]
        is_recent = abs(relabel.at_s - face.labelled_at_s) < relabel.every_s
        is_sure = face.model == model and face.confidence >= MIN_CONFIDENCE
        if is_recent and is_sure and _looks_alike(np.frombuffer(face.look, np.uint8), looks[box]):
            found[box] = face
    return found


def _looks_alike(classified: Looks, look: Looks) -> bool:
    limit = min(max(MAX_LOOK_CHANGE * classified.mean(), LEAST_CHANGE), MOST_CHANGE)
    return bool(np.abs(classified.astype(int) - look).mean() <= limit)


def kept_faces(known: Sequence[KnownFace | None], boxes: Sequence[Box], scores: Sequence[float]) -> dict[int, Face]:
    """Return the faces that keep their labels, by their numbers. known: of each box; empty when none is known."""
    return {
        number: Face(box=boxes[number], score=scores[number], label=face.label, confidence=face.confidence, fresh=False)
        for number, face in enumerate(known)
        if face is not None
    }


def known_after(record: FaceCrops, faces: Sequence[Face], crops: Image, model: str) -> KnownFaces | None:
    """Return what is known of a camera's faces once a frame is labelled; None when nobody will ask.

    Args:
        faces: all of the frame, in the order of its boxes.
        crops: uint8 n x S x S x 3, RGB, of the faces that were classified.
        model: the version that classified them.
    """
    if record.relabel is None:
        return None
    known = [*record.known] or [None] * len(faces)
    for number, look in zip(record.to_classify, looks_of(crops), strict=True):
        face = faces[number]
        known[number] = KnownFace(
            box=face.box,
            label=face.label,
            confidence=face.confidence,
            model=model,
            labelled_at_s=record.relabel.at_s,
            look=look.tobytes(),
        )
    return KnownFaces(faces=[face for face in known if face is not None])
