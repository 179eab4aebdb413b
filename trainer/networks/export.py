"""Export a trained network: its .keras file in; float and int8 ONNX files out.

The int8 file keeps the uint8 input and a float head; in between weights are quantized per channel, and activations with
ranges measured on training pictures (static QDQ).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from trainer.data.augment import augmented_crops, plain_crops
from trainer.data.batches import sampling_chances
from trainer.data.faces import FacePatches
from trainer.networks.architectures import HEAD
from trainer.settings import Recipe

INPUT_NAME = "crops"
OPSET = 17  # at least 13, the first with per-channel QuantizeLinear
QUANTIZATION_PICTURES = 512
QUANTIZATION_BATCH = 32
QUANTIZATION_PX = 112  # batches of larger crops are smaller, because the quantizer holds the output of every layer


def fold_temperature(network: keras.Model, temperature: float) -> None:
    """Divide a network's logits by a temperature, by changing its last layer's kernel and bias in place."""
    head = network.get_layer(HEAD)
    head.set_weights([weight / temperature for weight in head.get_weights()])


def to_float_onnx(keras_file: Path, onnx_file: Path) -> None:
    """Write the ONNX file of a .keras file, with a free batch size."""
    model = keras.saving.load_model(keras_file, compile=False, safe_mode=True)
    crops = keras.InputSpec(shape=(None, *model.input_shape[1:]), dtype="uint8", name=INPUT_NAME)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Keras checks for the removed `numpy.object`
        model.export(onnx_file, format="onnx", opset_version=OPSET, input_signature=[crops], verbose=False)
    rename_nodes_by_position(onnx_file)


def to_int8_onnx(float_file: Path, int8_file: Path, crops: NDArray[np.uint8]) -> None:
    """Quantize an ONNX file with activations' ranges on crops of quantization_crops(), uint8 n x S x S x 3 RGB."""
    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(float_file, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            int8_file,
            _QuantizationReader(crops),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            # Use the mean of the batches' ranges: one outlier does not make the quantization of all others coarser.
            extra_options={"CalibMovingAverage": True},
            nodes_to_exclude=_head(prepared),
        )
    rename_nodes_by_position(int8_file)


def rename_nodes_by_position(onnx_file: Path) -> None:
    """Rename everything in an ONNX file by its position, except inputs and outputs.

    Exporters number names by what their process has exported before; the same network must give the same bytes, because
    a version is named by its file's hash. Only for graphs without subgraphs (no If, no Loop).
    """
    model = onnx.load(onnx_file)
    graph = model.graph
    kept = {value.name for value in (*graph.input, *graph.output)}
    values = dict.fromkeys(name for node in graph.node for name in (*node.input, *node.output))  # in order of use
    names = {name: name if name in kept or not name else f"value_{index}" for index, name in enumerate(values)}
    for index, node in enumerate(graph.node):
        node.name, node.doc_string = f"{node.op_type}_{index}", ""
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    constants = {one.name: one for one in graph.initializer}
    used = [constants[name] for name in values if name in constants]
    for constant in used:
        constant.name = names[constant.name]
    graph.ClearField("initializer")
    graph.initializer.extend(used)
    graph.ClearField("value_info")  # shapes of intermediate values, which readers infer
    free = [one for value in (*graph.input, *graph.output) for one in value.type.tensor_type.shape.dim if one.dim_param]
    dims = {name: f"free_{index}" for index, name in enumerate(dict.fromkeys(one.dim_param for one in free))}
    for dim in free:
        dim.dim_param = dims[dim.dim_param]
    graph.name, graph.doc_string = "classifier", ""  # the name contained a counter of this process
    onnx.save(model, onnx_file)


def quantization_crops(patches: FacePatches, recipe: Recipe, seed: int) -> NDArray[np.uint8]:
    """Draw pictures to quantize with, each data set and label equally often: half as served, half augmented."""
    rng = np.random.default_rng([seed, 3])  # training draws with [seed, epoch, index]
    indices = rng.choice(len(patches), QUANTIZATION_PICTURES, p=sampling_chances(patches, power=0))
    half = QUANTIZATION_PICTURES // 2
    as_served = plain_crops(patches, indices[:half], recipe.size_px, recipe.margin)
    augmented, _ = augmented_crops(patches, indices[half:], recipe.size_px, recipe.margin, rng)
    return np.concatenate([as_served, augmented])


def quantization_batches(crops: NDArray[np.uint8]) -> Iterator[dict[str, NDArray[np.uint8]]]:
    """Yield crops (uint8 n x S x S x 3) in the quantizer's format, in smaller batches the larger the crops are."""
    batch = min(QUANTIZATION_BATCH, max(1, QUANTIZATION_BATCH * QUANTIZATION_PX**2 // crops.shape[1] ** 2))
    for start in range(0, len(crops), batch):
        yield {INPUT_NAME: crops[start : start + batch]}


def _head(onnx_file: Path) -> list[str]:
    """Return the names of the nodes from the last dense layer on; they stay float, or probabilities would be coarse."""
    nodes = onnx.load(onnx_file).graph.node
    start = max(index for index, node in enumerate(nodes) if node.op_type in ("Gemm", "MatMul"))
    return [node.name for node in nodes[start:]]


class _QuantizationReader(CalibrationDataReader):
    """Feed pictures to the quantizer: a batch per call, None at the end."""

    def __init__(self, crops: NDArray[np.uint8]) -> None:
        self._batches = quantization_batches(crops)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(self._batches, None)
