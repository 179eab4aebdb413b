"""The types of arrays that images and boxes are passed in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # H x W x 3, BGR unless a docstring says otherwise; crops are n x S x S x 3
Floats = NDArray[np.float32]
