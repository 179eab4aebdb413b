"""Find faces with OpenCV's frontal-face cascade of 2001, for comparison: BGR image in, boxes and scores out.

A cascade file that is missing or damaged raises ModelUnusable.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import cv2.data
import numpy as np
from numpy.typing import NDArray

from models.files import ModelUnusable
from pipeline.vision.arrays import Floats

# The step between the sizes searched, and how many hits must agree (OpenCV's defaults).
SCALE_STEP = 1.1
MIN_NEIGHBOURS = 3


def load_haar(score_threshold: float) -> Callable[[NDArray[np.uint8]], tuple[Floats, Floats]]:
    """Load the cascade; return a function from an image (uint8 H x W x 3, BGR) to boxes (n x 4) and scores (n).

    A score is the logistic function of the last stage's weight (its margin, about -1 to 8), not a probability.
    """
    path = Path(cv2.data.haarcascades) / "haarcascade_frontalface_default.xml"
    cascade = cv2.CascadeClassifier(str(path))
    if cascade.empty():
        raise ModelUnusable(f"{path} is missing or damaged: install opencv-python-headless again")

    def find_candidates(image: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        grey = cv2.equalizeHist(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
        found, _, weights = cascade.detectMultiScale3(grey, SCALE_STEP, MIN_NEIGHBOURS, outputRejectLevels=True)
        boxes = np.asarray(found, np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        margins = np.asarray(weights, np.float32).reshape(-1)
        scores = (1 / (1 + np.exp(-margins))).astype(np.float32)
        passing = scores >= score_threshold
        return boxes[passing], scores[passing]

    return find_candidates
