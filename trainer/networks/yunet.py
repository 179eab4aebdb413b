"""Build YuNet, the face detector: pictures in, raw outputs for each stride out; exchange its weights with ONNX files.

Wu, Peng & Yu, "YuNet: A Tiny Millisecond-level Face Detector", as published in OpenCV's model zoo. The published ONNX
file, whose batch normalization is merged into the convolutions, gives the weights and takes trained ones back: only its
numbers change, so every runtime and models/detector/yunet_decode.py read the result like the original. An ONNX file of
another network raises ModelUnusable.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import onnx
from keras import layers
from onnx import numpy_helper

from models.detector.yunet_decode import STRIDES
from models.files import ModelUnusable
from pipeline.vision.arrays import Floats

# The published first convolution takes 0..255, so its weights are 0.001 on average, less than a step of training
# changes them by. The network scales its input, and these weights the other way; a power of two does so exactly.
INPUT_SCALE = 1 / 256
STEM = "stem"
STEM_CHANNELS = 16
# Channels of the two units of each stage, and whether half the resolution follows.
STAGES = (
    ("stage1", (16, 32), False),
    ("stage2", (32, 64), True),
    ("stage3", (64, 64), True),
    ("stage4", (64, 64), True),
    ("stage5", (64, 64), False),
)
NECK_CHANNELS = 64
# Outputs of each cell: a face's score, its box, whether there is an object, five landmarks.
HEADS = (("cls", 1), ("bbox", 4), ("obj", 1), ("kps", 10))
PROBABILITIES = ("cls", "obj")
LANDMARKS = "kps"


def build_yunet(*, as_logits: bool = False) -> keras.Model:
    """Build the network with random weights.

    Args:
        as_logits: return cls and obj before their sigmoid, for a loss.

    Returns:
        A model from float32 n x h x w x 3 (BGR, 0..255; h and w multiples of 32) to a dictionary of float32
        n x cells x 1 (cls_*, obj_*), x 4 (bbox_*) and x 10 (kps_*), as yunet_decode.py describes them.
    """
    picture = keras.Input((None, None, 3), dtype="float32", name="picture")
    x = layers.Rescaling(INPUT_SCALE)(picture)
    x = layers.ZeroPadding2D(1)(x)  # "same" would pad an even side at its end only
    x = layers.ReLU()(layers.Conv2D(STEM_CHANNELS, 3, strides=2, name=STEM)(x))
    x = layers.ReLU()(_unit(x, STEM_CHANNELS, "stage0_unit2"))
    x = layers.MaxPooling2D(2)(x)
    by_stage = {}
    for name, channels, is_halved in STAGES:
        for number, width in enumerate(channels, start=1):
            x = layers.ReLU()(_unit(x, width, f"{name}_unit{number}"))
        by_stage[name] = x
        if is_halved:
            x = layers.MaxPooling2D(2)(x)
    features = _neck([by_stage["stage3"], by_stage["stage4"], by_stage["stage5"]])
    outputs = {}
    for kind, values in HEADS:
        for stride, feature in zip(STRIDES, features, strict=True):
            output = layers.Reshape((-1, values))(_unit(feature, values, f"{kind}_{stride}"))
            is_probability = kind in PROBABILITIES and not as_logits
            outputs[f"{kind}_{stride}"] = layers.Activation("sigmoid")(output) if is_probability else output
    return keras.Model(picture, outputs, name="yunet")


def load_weights(network: keras.Model, onnx_bytes: bytes) -> None:
    """Load the weights of an ONNX file of YuNet."""
    model = _parsed(onnx_bytes)
    for layer, kernel, bias in _convolutions(network, model.graph):
        values = numpy_helper.to_array(kernel).transpose(_axes(layer)) / _scale(layer)
        layer.set_weights([values, numpy_helper.to_array(bias)])


def with_weights(onnx_bytes: bytes, network: keras.Model) -> bytes:
    """Return an ONNX file of YuNet with the weights of a network; the same weights give the same bytes."""
    model = _parsed(onnx_bytes)
    for layer, kernel, bias in _convolutions(network, model.graph):
        values = [np.asarray(value, np.float32) for value in layer.get_weights()]
        _replace(kernel, (values[0] * _scale(layer)).transpose(np.argsort(_axes(layer))))
        _replace(bias, values[1])
    changed: bytes = model.SerializeToString(deterministic=True)
    return changed


def blend(trained: bytes, published: bytes, kept_share: float) -> bytes:
    """Return an ONNX file of YuNet whose weights are means of two files'; kept_share: of the published ones, 0..1.

    Wortsman et al., "Robust fine-tuning of zero-shot models": weights that were trained on from others can be averaged
    with them, and keep much of what was learned and of what was known before.
    """
    model = _parsed(trained)
    before = {constant.name: numpy_helper.to_array(constant) for constant in _parsed(published).graph.initializer}
    for constant in model.graph.initializer:
        values = numpy_helper.to_array(constant)
        if values.dtype == np.float32:
            _replace(constant, (1 - kept_share) * values + kept_share * before[constant.name])
    blended: bytes = model.SerializeToString(deterministic=True)
    return blended


def _unit(x: keras.KerasTensor, channels: int, name: str) -> keras.KerasTensor:
    """Convolve each pixel by itself, then each channel by itself."""
    x = layers.Conv2D(channels, 1, name=f"{name}_point")(x)
    return layers.DepthwiseConv2D(3, padding="same", name=f"{name}_depth")(x)


def _neck(features: list[keras.KerasTensor]) -> list[keras.KerasTensor]:
    """Add to the features of each stride those of the next coarser one; finest first."""
    merged: list[keras.KerasTensor] = []
    for stride, feature in reversed(list(zip(STRIDES, features, strict=True))):
        if merged:
            feature = layers.Add()([feature, layers.UpSampling2D(2, interpolation="nearest")(merged[0])])
        merged.insert(0, layers.ReLU()(_unit(feature, NECK_CHANNELS, f"neck_{stride}")))
    return merged


def _names() -> Iterator[str]:
    """Yield the names of the convolutions in the order of the published graph."""
    yield STEM
    units = ["stage0_unit2", *(f"{name}_unit{number}" for name, _, _ in STAGES for number in (1, 2))]
    units += [f"neck_{stride}" for stride in reversed(STRIDES)]
    units += [f"{kind}_{stride}" for kind, _ in HEADS for stride in STRIDES]
    for unit in units:
        yield f"{unit}_point"
        yield f"{unit}_depth"


def _convolutions(network: keras.Model, graph: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Yield each convolution's layer with its kernel and bias in an ONNX graph; raise ModelUnusable if one differs."""
    constants = {constant.name: constant for constant in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == "Conv"]
    names = list(_names())
    if len(nodes) != len(names):
        raise ModelUnusable(f"the ONNX file is not YuNet: it has {len(nodes)} convolutions instead of {len(names)}")
    for name, node in zip(names, nodes, strict=True):
        layer = network.get_layer(name)
        kernel, bias = (constants.get(constant) for constant in node.input[1:3])
        shapes = [tuple(layer.weights[0].shape[axis] for axis in np.argsort(_axes(layer))), layer.weights[1].shape]
        if kernel is None or bias is None or [tuple(kernel.dims), tuple(bias.dims)] != shapes:
            raise ModelUnusable(f"the ONNX file is not YuNet: its convolution {node.name} is not {name}")
        yield layer, kernel, bias


def _axes(layer: Any) -> tuple[int, int, int, int]:
    """Return the axes of an ONNX kernel (out, in, height, width) in the order of the layer's kernel."""
    return (2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (2, 3, 1, 0)


def _scale(layer: Any) -> float:
    return INPUT_SCALE if layer.name == STEM else 1.0


def _replace(constant: Any, values: Floats) -> None:
    constant.raw_data = np.ascontiguousarray(values, "<f4").tobytes()
    constant.ClearField("float_data")


def _parsed(onnx_bytes: bytes) -> Any:
    return onnx.load_from_string(onnx_bytes)
