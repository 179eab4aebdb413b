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
from models.detector import face_detector
from pipeline.runtime.memory import keep_memory
from pipeline.vision.faces import Face
from pipeline.vision.tracks import FaceTracker
from producer.sources.source_spec import parse_source


def main(source_text: str, lines: Path, threads: int = 1) -> None:
    """Label a video frame by frame."""
    cv2.setNumThreads(threads)
    keep_memory()
    detector = face_detector.load_detector(threads=threads)
    classifier = mask_classifier.load_classifier(threads=threads)
    card, tracks = classifier.card, FaceTracker()
    with lines.open("wb") as file:
        for source_frame in parse_source(source_text).open():
            frame = np.asarray(source_frame.image)
            found = detector.find(frame)
            crops = mask_classifier.crop_faces(frame, found.boxes, card.size_px, card.margin)
            labels, confidences = mask_classifier.label_of(classifier.mask_probability(crops), card.threshold)
            faces = [
                Face(box=tuple(box), score=score, label=label, confidence=confidence)
                for box, score, label, confidence in zip(
                    found.outlines.tolist(), found.scores.tolist(), labels, confidences.tolist(), strict=True
                )
            ]
            tracked = tracks.update(faces, source_frame.at_s or 0.0)
            line = {"frame": source_frame.index, "faces": faces, "tracks": [face.track for face in tracked]}
            file.write(msgspec.json.encode(line) + b"\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1)
