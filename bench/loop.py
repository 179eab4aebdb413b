"""The baseline: read, detect, classify and write one frame after the other in one process.

    python -m bench.loop SOURCE LINES.jsonl [THREADS]

It uses the same source, detector, crops, classifier and JSON lines as the pipeline.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import msgspec
import numpy as np

from models.classifier import mask_classifier
from models.classifier.mask_classifier import MaskClassifier
from models.detector import face_detector
from models.detector.face_detector import FaceDetector, Faces
from pipeline.runtime.memory import keep_memory
from pipeline.vision.arrays import Image
from pipeline.vision.faces import Face
from pipeline.vision.tracks import FaceTracker
from producer.sources.source_spec import parse_source


def main(source_text: str, lines: Path, threads: int = 1) -> None:
    """Label a video frame by frame."""
    cv2.setNumThreads(threads)
    keep_memory()
    detector = face_detector.load_detector(threads=threads)
    classifier = mask_classifier.load_classifier(threads=threads)
    tracks = FaceTracker()
    with lines.open("wb") as file:
        for source_frame in parse_source(source_text).open():
            _, faces = label_image(np.asarray(source_frame.image), detector, classifier)
            tracked = tracks.update(faces, source_frame.at_s or 0.0)
            line = {"frame": source_frame.index, "faces": faces, "tracks": [face.track for face in tracked]}
            file.write(msgspec.json.encode(line) + b"\n")


def label_image(image: Image, detector: FaceDetector, classifier: MaskClassifier) -> tuple[Faces, list[Face]]:
    """Return the faces of an image as they are found, and as they are labelled. image: uint8 H x W x 3, BGR."""
    card, found = classifier.card, detector.find(image)
    crops = mask_classifier.crop_faces(image, found.boxes, card.size_px, card.margin)
    labels, confidences = mask_classifier.label_of(classifier.mask_probability(crops), card.threshold)
    rows = zip(found.outlines.tolist(), found.scores.tolist(), labels, confidences.tolist(), strict=True)
    return found, [
        Face(box=tuple(box), score=score, label=label, confidence=confidence) for box, score, label, confidence in rows
    ]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1)
