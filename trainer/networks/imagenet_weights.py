"""Read the ImageNet weights of EfficientNet-Lite0, which set-up downloads and converts.

A file that is missing or damaged raises ModelUnusable.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.files import read_checked

WEIGHTS = Path(__file__).parent.parent / "assets" / "efficientnet_lite0.f32"
# Of the file that scripts/efficientnet_weights.py converts.
WEIGHTS_SHA256 = "c0bee34e755e1058b86ce5bfa5da52d460e7423c4c44248b41979f923791ab61"


def read_imagenet_weights() -> NDArray[np.float32]:
    """Return all weights of the body, layer by layer; raise ModelUnusable if their file is missing or damaged."""
    content = read_checked(WEIGHTS, WEIGHTS_SHA256, remedy="run `make setup`, or train with --weights none")
    return np.frombuffer(content, "<f4")
