"""The cells of YuNet's grids: where each is, which may find a face, and what its outputs mean. Pure.

Cells are numbered as in the network's outputs: the grid of the smallest stride first, row by row.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from models.detector.yunet_decode import MAX_LOG_SIZE, STRIDES
from pipeline.vision.arrays import Floats

# How far from a face's centre a cell that finds it may be, in cells (Ge et al., "YOLOX", and YuNet's own training).
RADIUS = 2.5
CELLS_A_SIDE = 5
CANDIDATES = len(STRIDES) * CELLS_A_SIDE**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """For each of n faces the cells around its centre that may find it.

    cells: int32 n x CANDIDATES, numbers of cells; 0 where is_valid is not set. is_valid: bool, inside the picture.
    is_inside: bool, the cell's centre is inside the face's box.
    """

    cells: NDArray[np.int32]
    is_valid: NDArray[np.bool_]
    is_inside: NDArray[np.bool_]


def cell_corners(size_px: int) -> tuple[Floats, Floats]:
    """Return the upper left corners (float32 n x 2, x and y) and strides (float32 n) of a square picture's cells."""
    corners, strides = [], []
    for stride in STRIDES:
        y, x = np.mgrid[: size_px // stride, : size_px // stride]
        corners.append(np.stack([x.reshape(-1), y.reshape(-1)], axis=1) * stride)
        strides.append(np.full(x.size, stride))
    return np.concatenate(corners).astype(np.float32), np.concatenate(strides).astype(np.float32)


def find_candidates(boxes: Floats, size_px: int) -> Candidates:
    """Return the cells that may find each box (n x 4) of a square picture: RADIUS cells around it, in every grid."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    cells, is_valid, is_inside = [], [], []
    before = 0
    for stride in STRIDES:
        side = size_px // stride
        first = np.ceil(centres / stride - (RADIUS + 0.5)).astype(np.int32)
        y, x = np.mgrid[:CELLS_A_SIDE, :CELLS_A_SIDE]
        columns, rows = first[:, :1] + x.reshape(1, -1), first[:, 1:] + y.reshape(1, -1)
        valid = (columns >= 0) & (columns < side) & (rows >= 0) & (rows < side)
        cells.append(np.where(valid, before + rows * side + columns, 0))
        is_valid.append(valid)
        points = (np.stack([columns, rows], axis=-1) + 0.5) * stride
        inside = (points > boxes[:, None, :2]) & (points < boxes[:, None, 2:])
        is_inside.append(inside.all(axis=-1))
        before += side**2
    return Candidates(
        cells=np.concatenate(cells, axis=1).astype(np.int32),
        is_valid=np.concatenate(is_valid, axis=1),
        is_inside=np.concatenate(is_inside, axis=1),
    )


def is_covered(boxes: Floats, size_px: int) -> NDArray[np.bool_]:
    """Return for each cell of a square picture whether its centre is in one of the boxes (n x 4, n may be 0)."""
    corners, strides = cell_corners(size_px)
    points = (corners + strides[:, None] / 2)[:, None]
    inside = (points > boxes[None, :, :2]) & (points < boxes[None, :, 2:])
    return np.asarray(np.any(np.all(inside, axis=-1), axis=1))


def decode_boxes(offsets: keras.KerasTensor, corners: Floats, strides: Floats) -> keras.KerasTensor:
    """Return the boxes (b x n x 4, x1, y1, x2, y2 in pixels) that YuNet's bbox outputs (b x n x 4) mean."""
    centres = corners + offsets[..., :2] * strides[:, None]
    halves = ops.exp(ops.minimum(offsets[..., 2:], MAX_LOG_SIZE)) * (strides[:, None] / 2)
    return ops.concatenate([centres - halves, centres + halves], axis=-1)
