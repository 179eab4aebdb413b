"""Assign faces to the cells that shall find them, by SimOTA: predictions and faces in, a face for each cell out. Pure.

Ge et al., "YOLOX: Exceeding YOLO Series in 2021", section 2.1, as YuNet was trained: each face takes the cells around
its centre whose predictions fit it best, as many as its ten best candidates overlap it together; a cell that several
faces take gets the one that costs least.
"""

from __future__ import annotations

import keras
from keras import ops

IOU_WEIGHT = 3.0  # of the logarithm of the overlap in the cost; that of the score has 1
# A cell outside the face's box is taken only if there are too few inside. More than any cost below (4 x 16), but not so
# much that float32 cannot tell two such cells apart.
OUTSIDE_COST = 100.0
INVALID_COST = 1000.0
TOP_CANDIDATES = 10  # whose overlaps add up to the number of cells
SMALLEST = 1e-7
NO_FACE = -1


def assign_faces(
    scores: keras.KerasTensor,
    overlaps: keras.KerasTensor,
    cells: keras.KerasTensor,
    is_valid: keras.KerasTensor,
    is_inside: keras.KerasTensor,
    cell_count: int,
) -> keras.KerasTensor:
    """Return the number of the face that each cell shall find, or NO_FACE: int32 b x n.

    Args:
        scores: float32 b x m x c, of each face's candidates, 0..1.
        overlaps: float32 b x m x c, intersection over union of the face and the candidate's box.
        cells: int32 b x m x c, numbers of the candidates' cells.
        is_valid: bool b x m x c, false for all candidates of a face that is padding.
        is_inside: bool b x m x c, whether the cell's centre is in the face's box.
        cell_count: n.
    """
    cost = -ops.log(scores + SMALLEST) - IOU_WEIGHT * ops.log(overlaps + SMALLEST)
    cost = cost + ops.where(is_inside, 0.0, OUTSIDE_COST)
    cost = ops.where(is_valid, cost, INVALID_COST)
    best = ops.top_k(ops.where(is_valid, overlaps, 0.0), TOP_CANDIDATES)[0]
    wanted = ops.maximum(ops.cast(ops.sum(best, axis=-1, keepdims=True), "int32"), 1)
    rank = ops.argsort(ops.argsort(cost, axis=-1), axis=-1)
    is_taken = ops.logical_and(ops.cast(rank, "int32") < wanted, is_valid)
    batch, faces = ops.shape(cost)[:2]
    segments = ops.reshape(cells + ops.reshape(ops.arange(batch) * cell_count, (batch, 1, 1)), (-1,))
    offers = ops.reshape(ops.where(is_taken, -cost, -2 * INVALID_COST), (-1,))
    best_offer = ops.segment_max(offers, segments, num_segments=batch * cell_count)
    is_best = ops.logical_and(ops.reshape(is_taken, (-1,)), offers == ops.take(best_offer, segments))
    # Counted from the end, so that the first of two faces with equal costs gets the cell, and 0 means none.
    from_end = ops.zeros_like(cells) + faces - ops.reshape(ops.arange(faces), (1, faces, 1))
    found = ops.where(is_best, ops.reshape(from_end, (-1,)), 0)
    best_face = ops.maximum(ops.segment_max(found, segments, num_segments=batch * cell_count), 0)
    return ops.reshape(ops.where(best_face > 0, faces - best_face, NO_FACE), (batch, cell_count))
