"""A peer's loop, to compare with: AIZOO's released detector of faces with and without a mask, frame by frame.

    python -m bench.peer_loop MODEL.tflite SOURCE LINES.jsonl [THREADS]

It reads the same source and writes lines of the same kind as the baseline (loop.py), and prints how many seconds the
loop took. Anchors, variances and thresholds
are those of its release (AIZOOTech/FaceMaskDetection). The model is not part of maskwatch: it lies beside the data.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import cv2
import msgspec
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.runtime.memory import keep_memory
from producer.sources.source_spec import parse_source

INPUT_PX = 260
GRIDS = (33, 17, 9, 5, 3)
SIZES = ((0.04, 0.056), (0.08, 0.11), (0.16, 0.22), (0.32, 0.45), (0.64, 0.72))
RATIOS = (1.0, 0.62, 0.42)
VARIANCES = (0.1, 0.1, 0.2, 0.2)
MIN_CONFIDENCE, MAX_IOU = 0.5, 0.5  # the latter for video


def anchors() -> NDArray[np.float32]:
    """Return the anchors, float32 n x 4: centre x and y, width, height, as shares of the image."""
    found = []
    for grid, (small, large) in zip(GRIDS, SIZES, strict=True):
        shapes = [(small, small), (large, large)]
        shapes += [(small * ratio**0.5, small / ratio**0.5) for ratio in RATIOS[1:]]
        centres = (np.arange(grid) + 0.5) / grid
        for y in centres:
            for x in centres:
                found += [(x, y, width, height) for width, height in shapes]
    return np.asarray(found, np.float32)


def main(model: Path, source_text: str, lines: Path, threads: int = 1) -> None:
    """Label a video frame by frame."""
    cv2.setNumThreads(threads)
    keep_memory()
    interpreter = tf.lite.Interpreter(str(model), num_threads=threads)
    interpreter.allocate_tensors()
    input_index = interpreter.get_input_details()[0]["index"]
    boxes_index, scores_index = _outputs(interpreter)
    priors, begun = anchors(), time.monotonic()
    with lines.open("wb") as file:
        for source_frame in parse_source(source_text).open():
            frame = np.asarray(source_frame.image)
            small = cv2.cvtColor(cv2.resize(frame, (INPUT_PX, INPUT_PX)), cv2.COLOR_BGR2RGB)
            interpreter.set_tensor(input_index, (small.astype(np.float32) / 255)[None])
            interpreter.invoke()
            deltas, scores = interpreter.get_tensor(boxes_index)[0], interpreter.get_tensor(scores_index)[0]
            faces = _faces(deltas, scores, priors, frame.shape[1], frame.shape[0])
            file.write(msgspec.json.encode({"frame": source_frame.index, "faces": faces}) + b"\n")
    print(time.monotonic() - begun)


def _outputs(interpreter: tf.lite.Interpreter) -> tuple[int, int]:
    """Return the indices of the boxes and of the scores."""
    details = sorted(interpreter.get_output_details(), key=lambda one: -int(one["shape"][-1]))
    return details[0]["index"], details[1]["index"]


def _faces(
    deltas: NDArray[np.float32], scores: NDArray[np.float32], priors: NDArray[np.float32], width: int, height: int
) -> list[dict[str, object]]:
    best = scores.max(axis=1)
    seen = best >= MIN_CONFIDENCE
    deltas, priors, best, label = deltas[seen] * VARIANCES, priors[seen], best[seen], scores[seen].argmax(axis=1)
    centre = priors[:, :2] + deltas[:, :2] * priors[:, 2:]
    half = priors[:, 2:] * np.exp(deltas[:, 2:]) / 2
    corner = (centre - half) * (width, height)
    size = 2 * half * (width, height)
    kept = cv2.dnn.NMSBoxes(np.concatenate([corner, size], axis=1).tolist(), best.tolist(), MIN_CONFIDENCE, MAX_IOU)
    return [
        {
            "box": [*corner[one].tolist(), *(corner[one] + size[one]).tolist()],
            "label": "no_mask" if label[one] else "mask",
            "confidence": float(best[one]),
        }
        for one in np.asarray(kept, int).reshape(-1)
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 1)
