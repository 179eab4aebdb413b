"""The losses of a face detector: predictions and targets in, a number for each cell out. Pure, in Keras operations."""

from __future__ import annotations

import keras
from keras import ops

SMALLEST = 1e-7


def overlap(first: keras.KerasTensor, second: keras.KerasTensor) -> keras.KerasTensor:
    """Return the intersection over union of boxes (... x 4, x1, y1, x2, y2), pair by pair; 0 for two empty ones."""
    sides = ops.minimum(first[..., 2:], second[..., 2:]) - ops.maximum(first[..., :2], second[..., :2])
    sides = ops.maximum(sides, 0.0)
    intersection = sides[..., 0] * sides[..., 1]
    return intersection / (_area(first) + _area(second) - intersection + SMALLEST)


def box_loss(predicted: keras.KerasTensor, target: keras.KerasTensor) -> keras.KerasTensor:
    """Return the EIoU loss of boxes (... x 4), pair by pair; 0 where they are equal.

    Zhang et al., "Focal and Efficient IOU Loss for Accurate Bounding Box Regression": 1 - IoU, plus the squared
    differences of centres, widths and heights, each as a share of the box that encloses both.
    """
    enclosing = ops.maximum(predicted[..., 2:], target[..., 2:]) - ops.minimum(predicted[..., :2], target[..., :2])
    squares = ops.square(enclosing) + SMALLEST
    apart = (predicted[..., :2] + predicted[..., 2:] - target[..., :2] - target[..., 2:]) / 2
    sizes = (predicted[..., 2:] - predicted[..., :2]) - (target[..., 2:] - target[..., :2])
    centres = ops.sum(ops.square(apart), axis=-1) / ops.sum(squares, axis=-1)
    return 1 - overlap(predicted, target) + centres + ops.sum(ops.square(sizes) / squares, axis=-1)


def log_loss(logits: keras.KerasTensor, targets: keras.KerasTensor) -> keras.KerasTensor:
    """Return the binary cross-entropy of logits with targets 0..1, without overflow."""
    return ops.softplus(logits) - logits * targets


def _area(boxes: keras.KerasTensor) -> keras.KerasTensor:
    sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return sides[..., 0] * sides[..., 1]
