"""Recognize faces that were labelled a moment ago: they keep their labels, and are not classified again. Pure.

A face is known if the camera's known faces hold one whose box was nearby when it was seen last, that looks nearly the
same, and was labelled less than `every_s` ago by the same version of the classifier, and with confidence. What a face
looks like is its thumbnail: its crop as 8 x 8 grey values. It is compared with that of the face which was classified,
so that small changes add up.

Of a live camera the classifier notes known faces, with their labels. Of a file the detector does when it passes a frame
on, because many frames are on their way: the label is found later, by who sends the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from models.classifier.mask_classifier import crop_faces
from pipeline.bus import messages
from pipeline.bus.messages import BadMessage, FaceCrops, KnownFace, KnownFaces, Relabel, SameFace
from pipeline.vision.arrays import Floats, Image
from pipeline.vision.boxes import pairs_by_overlap
from pipeline.vision.faces import Box, Face

MIN_CONFIDENCE = 0.9  # an unsure face is classified in every frame
MIN_IOU = 0.5  # of its box here and where it was seen last
# The mean difference of two thumbnails' values, 0 to 255, is at most this share of their mean, since dark pictures
# differ less; the limit is never below or above the numbers after it.
MAX_CHANGE_SHARE = 0.18
MIN_LIMIT, MAX_LIMIT = 2.0, 18.0
THUMBNAIL_PX = 8

Thumbnails = NDArray[np.uint8]


def thumbnails_of(image: Image, boxes: Floats, margin: float) -> Thumbnails:
    """Return the thumbnails of faces.

    Args:
        image: uint8 H x W x 3, BGR.
        boxes: float32 n x 4, of the crops, in pixels of the image.
        margin: of the crops.

    Returns:
        uint8 n x 64, grey.
    """
    thumbnails = np.empty((len(boxes), THUMBNAIL_PX**2), np.uint8)
    for thumbnail, crop in zip(thumbnails, crop_faces(image, boxes, THUMBNAIL_PX, margin), strict=True):
        thumbnail[:] = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).ravel()
    return thumbnails


def unpack_known(packed: bytes) -> list[KnownFace]:
    """Return the known faces; none when there are none, or what is stored is invalid."""
    try:
        known = messages.decode(KnownFaces, packed) if packed else None
    except BadMessage:  # what is stored is only a shortcut, and the next labelled frame replaces it
        return []
    return known.faces if known else []


def recognize(
    known: list[KnownFace], boxes: Sequence[Box], thumbnails: Thumbnails, relabel: Relabel, model: str
) -> list[KnownFace | None]:
    """Return for each box the face that it is known as, with this box, or None if it must be classified.

    Args:
        boxes: n, of the frame.
        thumbnails: uint8 n x 64, of the boxes.
        relabel: of the frame.
        model: the version of the classifier that is in use.
    """
    found: list[KnownFace | None] = [None] * len(boxes)
    for earlier, number in pairs_by_overlap([face.box for face in known], boxes, MIN_IOU):
        face = known[earlier]
        is_recent = abs(relabel.at_s - face.labelled_at_s) < relabel.every_s
        if (
            is_recent
            and _may_keep(face, model)
            and _is_unchanged(np.frombuffer(face.thumbnail, np.uint8), thumbnails[number])
        ):
            found[number] = msgspec.structs.replace(face, box=boxes[number])
    return found


def _may_keep(face: KnownFace, model: str) -> bool:
    """Return whether a label may be kept. That of a file's face is not known yet, and is kept whatever it will be."""
    return face.confidence is None or (face.confidence >= MIN_CONFIDENCE and face.model == model)


def _is_unchanged(classified: Thumbnails, thumbnail: Thumbnails) -> bool:
    limit = min(max(MAX_CHANGE_SHARE * classified.mean(), MIN_LIMIT), MAX_LIMIT)
    return bool(np.abs(classified.astype(int) - thumbnail).mean() <= limit)


def kept_faces(known: Sequence[KnownFace | None], boxes: Sequence[Box], scores: Sequence[float]) -> dict[int, Face]:
    """Return the faces that keep labels, by their numbers. known: of each box; empty when none is known."""
    return {
        number: Face(box=boxes[number], score=scores[number], label=face.label, confidence=face.confidence, fresh=False)
        for number, face in enumerate(known)
        if face is not None and face.label is not None and face.confidence is not None
    }


def same_faces(known: Sequence[KnownFace | None], boxes: Sequence[Box], scores: Sequence[float]) -> list[SameFace]:
    """Return the faces that will have the labels of earlier ones."""
    return [
        SameFace(number=number, box=boxes[number], score=scores[number], same_seq=face.seq, same_number=face.number)
        for number, face in enumerate(known)
        if face is not None and (face.label is None or face.confidence is None)
    ]


def known_when_kept(known: Sequence[KnownFace | None]) -> KnownFaces | None:
    """Return what is known of a camera's faces after a frame in which all keep their labels; None without a face."""
    return KnownFaces(faces=[face for face in known if face is not None]) if known else None


def known_when_passed_on(record: FaceCrops, thumbnails: Thumbnails) -> KnownFaces | None:
    """Return what is known of a file's faces once a frame is passed on; None for other frames.

    thumbnails: of all its boxes.
    """
    if record.relabel is None or record.deadline_at is not None:
        return None
    known = [*record.known] or [None] * len(record.boxes)
    for number in record.to_classify:
        known[number] = KnownFace(
            box=record.boxes[number],
            seq=record.seq,
            number=number,
            labelled_at_s=record.relabel.at_s,
            thumbnail=thumbnails[number].tobytes(),
        )
    return KnownFaces(faces=[face for face in known if face is not None])


def known_when_labelled(record: FaceCrops, faces: Mapping[int, Face], model: str) -> KnownFaces | None:
    """Return what is known of a live camera's faces once a frame is labelled; None for other frames.

    Args:
        faces: at least those that were classified, by their numbers.
        model: the version that classified them.
    """
    if record.relabel is None or not record.thumbnails:
        return None
    known = [*record.known] or [None] * len(record.boxes)
    for number in record.to_classify:
        face = faces[number]
        known[number] = KnownFace(
            box=face.box,
            label=face.label,
            confidence=face.confidence,
            model=model,
            seq=record.seq,
            number=number,
            labelled_at_s=record.relabel.at_s,
            thumbnail=record.thumbnails[number],
        )
    return KnownFaces(faces=[face for face in known if face is not None])
