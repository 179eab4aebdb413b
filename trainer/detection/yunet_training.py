"""YuNet with the loss that it is trained by: batches of canvases and their faces in, one number out.

The loss of a batch is the sum of three, each divided by the weight of the cells that shall find a face: of the score,
whose target is the overlap of the predicted box with the face; of the objectness, 1 where a face is assigned, over all
cells but the ignored ones; and of the box (EIoU), which counts BOX_WEIGHT times.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from models.detector.yunet_decode import STRIDES
from trainer.detection.assignment import NO_FACE, assign_faces
from trainer.detection.cells import cell_corners, decode_boxes
from trainer.detection.losses import box_loss, log_loss, overlap
from trainer.networks.yunet import LANDMARKS, build_yunet

BOX_WEIGHT = 5.0


class YunetTraining(keras.Model):
    """YuNet as a model to fit: its loss needs the predictions, to decide which cell shall find which face."""

    def __init__(self, size_px: int) -> None:
        """Build it with random weights for square canvases of size_px; `yunet` has the layers that YuNet has."""
        super().__init__(name="yunet_training")
        self.yunet = build_yunet(as_logits=True)
        for layer in self.yunet.layers:
            layer.trainable = not layer.name.startswith(LANDMARKS)  # nothing reads them, and no data set has them
        self._corners, self._strides = cell_corners(size_px)
        self.build((None, size_px, size_px, 3))

    def build(self, input_shape: Any) -> None:
        """Do nothing: the layers of `yunet` are built."""
        self.built = True

    def call(self, pictures: Any, training: bool | None = None) -> Any:
        """Return the outputs as logits for pictures uint8 n x size x size x 3 (BGR)."""
        return self.yunet(ops.cast(pictures, "float32"), training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Return the loss of a batch; y: see batches.Targets."""
        return detection_loss(y_pred, y, self._corners, self._strides)


def detection_loss(outputs: Any, targets: Any, corners: Any, strides: Any) -> Any:
    """Return the loss of a batch of b canvases with n cells and up to m faces.

    Args:
        outputs: by name, as YuNet returns them with logits.
        targets: by name, boxes (float32 b x m x 4, padded with zeros), their weights (float32 b x m), cells, is_valid
            and is_inside (b x m x c, see cells.Candidates) and is_ignored (bool b x n).
        corners, strides: of the cells, see cells.cell_corners().
    """
    score, objectness = (_joined(outputs, kind)[..., 0] for kind in ("cls", "obj"))
    boxes = decode_boxes(_joined(outputs, "bbox"), corners, strides)
    assigned = _assigned(score, objectness, boxes, targets)
    is_face = ops.cast(assigned != NO_FACE, "float32")
    weights = is_face * ops.take_along_axis(targets["weights"], ops.maximum(assigned, 0), axis=1)
    faces = ops.take_along_axis(targets["boxes"], ops.maximum(assigned, 0)[..., None], axis=1)
    # A cell without a face is compared with its own box: 0 / 0 would otherwise spoil the gradient of all others.
    faces = ops.where(is_face[..., None] > 0, faces, ops.stop_gradient(boxes))
    fits = ops.stop_gradient(overlap(boxes, faces))
    background = ops.where(targets["is_ignored"], 0.0, 1.0 - is_face)
    total = (
        ops.sum(weights * log_loss(score, fits))
        + ops.sum((weights + background) * log_loss(objectness, is_face))
        + BOX_WEIGHT * ops.sum(weights * box_loss(boxes, faces))
    )
    return total / ops.maximum(ops.sum(weights), 1.0)


def _assigned(score: Any, objectness: Any, boxes: Any, targets: Any) -> Any:
    """Return the face of each cell, as assignment.assign_faces()."""
    batch, faces, candidates = ops.shape(targets["cells"])
    flat = ops.reshape(targets["cells"], (batch, faces * candidates))
    scores = ops.sqrt(ops.sigmoid(score) * ops.sigmoid(objectness))
    of_candidates = ops.reshape(ops.take_along_axis(scores, flat, axis=1), (batch, faces, candidates))
    chosen = ops.reshape(ops.take_along_axis(boxes, flat[..., None], axis=1), (batch, faces, candidates, 4))
    overlaps = overlap(chosen, targets["boxes"][:, :, None])
    return assign_faces(
        ops.stop_gradient(of_candidates), ops.stop_gradient(overlaps), targets["cells"], targets["is_valid"],
        targets["is_inside"], score.shape[1],
    )  # fmt: skip


def _joined(outputs: Any, kind: str) -> Any:
    return ops.concatenate([outputs[f"{kind}_{stride}"] for stride in STRIDES], axis=1)
