"""Turn the int8 network of a classifier into a float one: the bytes of an ONNX file in, the bytes of another one out.

QuantizeLinear and its DequantizeLinear do two things: they round a value to one of 256 steps, and they limit it to the
range of these steps. The pair becomes a Clip to this range, which rounds nothing. The limits have to stay, because the
quantizer leaves out each ReLU whose limits the range has. Weights become float numbers. The last dense layer and all
that follows is float32, as in the int8 file; inputs and outputs keep their types. The same bytes give the same bytes.

A network with anything else than the exporter writes (trainer/networks/export.py) raises ModelUnusable.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from models.files import ModelUnusable

QUANTIZE, DEQUANTIZE, CAST = "QuantizeLinear", "DequantizeLinear", "Cast"
DENSE = ("Gemm", "MatMul")
LAYERS = ("Add", "Clip", "Conv", "GlobalAveragePool", "MaxPool", "Mul", "Relu", "Sigmoid", "Sub", *DENSE)
SHAPING = ("Expand", "Flatten", "Gather", "Pad", "Reshape", "ReverseSequence", "Shape", "Slice", "Squeeze", "Transpose")
# Their float outputs have the type of their float inputs, and ONNX Runtime has kernels of each of them for CUDA.
OPERATORS = frozenset((*LAYERS, *SHAPING))
MAX_FLOAT16 = float(np.finfo(np.float16).max)

Constants = dict[str, NDArray[np.generic]]
FloatType = type[np.float16] | type[np.float32]


def to_float(content: bytes, where: str, float_type: FloatType) -> bytes:
    """Return an int8 network as a float one.

    Args:
        content: an ONNX file with static quantization in the format QDQ.
        where: names the file in the error.
        float_type: of weights and activations.

    Raises:
        ModelUnusable: the network has a part that this function does not know.
    """
    model = onnx.load_from_string(content)
    graph = model.graph
    constants: Constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    try:
        if any(one.type.tensor_type.elem_type != TensorProto.UINT8 for one in graph.input):
            raise _Unknown("an input that is not uint8")
        nodes = _without_quantization(graph.node, constants)
        if not {one.name for one in graph.output} <= {name for node in nodes for name in node.output}:
            raise _Unknown("an output that is quantized")
        if float_type is np.float16:
            nodes = _in_float16(nodes, constants)
    except _Unknown as error:
        raise ModelUnusable(f"{where} cannot be turned into a float network: it has {error}") from error
    graph.ClearField("node")
    graph.node.extend(nodes)
    graph.ClearField("value_info")
    graph.ClearField("initializer")
    used = dict.fromkeys(name for node in nodes for name in node.input if name in constants)
    graph.initializer.extend(numpy_helper.from_array(constants[name], name) for name in used)
    return bytes(model.SerializeToString())


class _Unknown(Exception):
    """A part of a network that cannot be turned into float; the message names it."""


def _without_quantization(nodes: Sequence[NodeProto], constants: Constants) -> list[NodeProto]:
    """Return the nodes of a float32 network; its weights and limits are added to the constants."""
    renamed: dict[str, str] = {}
    ranges: dict[str, tuple[str, ...]] = {}  # scale and zero point by the output of a QuantizeLinear
    kept = []
    for node in nodes:
        if node.op_type == DEQUANTIZE and node.input[0] in constants:
            constants[node.output[0]] = _dequantized(node, constants)
        elif node.op_type == DEQUANTIZE:
            if ranges.get(node.input[0]) != tuple(node.input[1:]):
                raise _Unknown(f"a {DEQUANTIZE} ({node.name}) that does not undo a {QUANTIZE}")
            renamed[node.output[0]] = node.input[0]
        elif node.op_type == QUANTIZE:
            ranges[node.output[0]] = tuple(node.input[1:])
            kept.append(_limits(node, renamed, constants))
        elif node.op_type in OPERATORS or _is_cast_to_float(node):
            kept.append(_with_inputs(node, renamed))
        else:
            raise _Unknown(f"the operator {node.op_type} ({node.name})")
    return kept


def _dequantized(node: NodeProto, constants: Constants) -> NDArray[np.float32]:
    """Return the weights or biases that a DequantizeLinear gives: float32, (quantized - zero point) * scale."""
    if not set(node.input) <= constants.keys():
        raise _Unknown(f"a {DEQUANTIZE} ({node.name}) whose scale is not constant")
    quantized, scale, *zero_point = (constants[name] for name in node.input)
    zero = zero_point[0] if zero_point else np.zeros_like(scale)
    if scale.ndim > 0:  # a scale for each channel
        axis = next((one.i for one in node.attribute if one.name == "axis"), 1)
        shape = [-1 if dim == axis % quantized.ndim else 1 for dim in range(quantized.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return ((quantized.astype(np.float64) - zero.astype(np.float64)) * scale.astype(np.float64)).astype(np.float32)


def _limits(node: NodeProto, renamed: dict[str, str], constants: Constants) -> NodeProto:
    """Return a Clip to the range of the steps of a QuantizeLinear."""
    found = [constants[name] for name in node.input[1:] if name in constants]
    if len(found) != 2 or any(one.ndim > 0 for one in found) or found[1].dtype.kind not in "iu":
        raise _Unknown(f"a {QUANTIZE} ({node.name}) without one constant scale and zero point")
    scale, zero_point = found
    steps = np.iinfo(zero_point.dtype.name)
    output = node.output[0]
    for name, step in (("min", steps.min), ("max", steps.max)):
        constants[f"{output}_{name}"] = np.array((step - int(zero_point)) * float(scale), np.float32)
    inputs = [renamed.get(node.input[0], node.input[0]), f"{output}_min", f"{output}_max"]
    return helper.make_node("Clip", inputs, [output], name=f"Clip_{output}")


def _in_float16(nodes: list[NodeProto], constants: Constants) -> list[NodeProto]:
    """Return the nodes of a network that computes in float16 up to its last dense layer; adds to the constants."""
    dense = [index for index, node in enumerate(nodes) if node.op_type in DENSE]
    if not dense:
        raise _Unknown("no dense layer")
    body, head = nodes[: dense[-1]], nodes[dense[-1] :]
    of_body = {name for node in body for name in node.output}
    halves = {
        name: f"{name}_float16"
        for node in body
        for name in node.input
        if name in constants and constants[name].dtype == np.float32
    }
    for name, half in halves.items():
        constants[half] = np.clip(constants[name], -MAX_FLOAT16, MAX_FLOAT16).astype(np.float16)
    body = [_with_inputs(node, halves) for node in body]
    for node in body:
        if node.op_type == CAST:
            node.attribute[0].i = TensorProto.FLOAT16
    floats = {name: f"{name}_float32" for node in head for name in node.input if name in of_body}
    casts = [
        helper.make_node(CAST, [name], [float32], name=f"{CAST}_{float32}", to=TensorProto.FLOAT)
        for name, float32 in floats.items()
    ]
    return [*body, *casts, *(_with_inputs(node, floats) for node in head)]


def _is_cast_to_float(node: NodeProto) -> bool:
    return node.op_type == CAST and [one.i for one in node.attribute if one.name == "to"] == [TensorProto.FLOAT]


def _with_inputs(node: NodeProto, renamed: dict[str, str]) -> NodeProto:
    """Return a copy of a node whose inputs have their new names."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [renamed.get(name, name) for name in node.input]
    return copy
