"""Export a trained network: network in, .keras, float and int8 ONNX out; publish them.

The int8 file keeps the uint8 input and a float head; between them weights are quantized per channel and
activations with ranges measured on training pictures (static QDQ).
"""

from __future__ import annotations

import warnings
from collections import Counter
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

from trainer.data.augment import augment, plain
from trainer.data.faces import Patches
from trainer.networks.architectures import HEAD
from trainer.settings import Recipe

INPUT_NAME = "crops"
# Opset 13 is the first with per-channel QuantizeLinear, and what ONNX Runtime's quantizer is tested with.
OPSET = 17
CALIBRATION_PICTURES = 512
CALIBRATION_BATCH = 32
# The quantizer holds what every layer makes of a batch: of crops with more pixels than this, fewer make one.
CALIBRATION_PX = 112


def fold_temperature(network: keras.Model, temperature: float) -> None:
    """Divide a network's logits by a temperature for good: its last layer's kernel and bias are changed in place."""
    head = network.get_layer(HEAD)
    head.set_weights([weight / temperature for weight in head.get_weights()])


def to_keras(network: keras.Model, keras_file: Path) -> None:
    """Write the .keras file of a network, without its optimizer's state, which is twice the network's size."""
    keras.Model(network.inputs, network.outputs, name=network.name).save(keras_file)


def to_float_onnx(keras_file: Path, onnx_file: Path) -> None:
    """Write the ONNX file of a .keras file, with a free batch size."""
    model = keras.saving.load_model(keras_file, compile=False, safe_mode=True)
    crops = keras.InputSpec(shape=(None, *model.input_shape[1:]), dtype="uint8", name=INPUT_NAME)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Keras looks whether numpy still has `object`
        model.export(onnx_file, format="onnx", opset_version=OPSET, input_signature=[crops], verbose=False)
    name_by_place(onnx_file)


def to_int8_onnx(float_file: Path, int8_file: Path, crops: NDArray[np.uint8]) -> None:
    """Quantize an ONNX file.

    Args:
        float_file: of to_float_onnx.
        int8_file: is written.
        crops: uint8 n x S x S x 3 RGB, of calibration_crops(): what serving will see. Never test pictures.
    """
    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(float_file, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            int8_file,
            _Calibration(crops),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            # The mean of the batches' ranges: one strange picture does not coarsen the steps of all others.
            extra_options={"CalibMovingAverage": True},
            nodes_to_exclude=_head(prepared),
        )
    name_by_place(int8_file)


def name_by_place(onnx_file: Path) -> None:
    """Name all that an ONNX file holds by its place, but its inputs and outputs.

    Exporters number by what their process did before; the same network shall give the same file to the last byte,
    because a version is named by that file's hash. For graphs without graphs in them (no If, no Loop).
    """
    model = onnx.load(onnx_file)
    graph = model.graph
    kept = {value.name for value in (*graph.input, *graph.output)}
    values = dict.fromkeys(name for node in graph.node for name in (*node.input, *node.output))  # in order of use
    names = {name: name if name in kept or not name else f"value_{place}" for place, name in enumerate(values)}
    for place, node in enumerate(graph.node):
        node.name, node.doc_string = f"{node.op_type}_{place}", ""
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    constants = {one.name: one for one in graph.initializer}
    used = [constants[name] for name in values if name in constants]
    for constant in used:
        constant.name = names[constant.name]
    graph.ClearField("initializer")
    graph.initializer.extend(used)
    graph.ClearField("value_info")  # shapes of what lies between, which readers work out themselves
    free = [one for value in (*graph.input, *graph.output) for one in value.type.tensor_type.shape.dim if one.dim_param]
    sides = {name: f"free_{place}" for place, name in enumerate(dict.fromkeys(one.dim_param for one in free))}
    for side in free:
        side.dim_param = sides[side.dim_param]
    graph.name, graph.doc_string = "classifier", ""  # it held a count of this process
    onnx.save(model, onnx_file)


def calibration_crops(patches: Patches, recipe: Recipe, seed: int) -> NDArray[np.uint8]:
    """Draw training pictures to quantize with, each data set and label as often: half as served, half varied."""
    rng = np.random.default_rng([seed, 3])  # training draws with [seed, epoch, place]
    strata = list(zip(patches.sources, patches.has_mask.tolist(), strict=True))
    sizes = Counter(strata)
    chances = np.array([1 / (sizes[stratum] * len(sizes)) for stratum in strata])
    places = rng.choice(len(patches), CALIBRATION_PICTURES, p=chances)
    half = CALIBRATION_PICTURES // 2
    clean = plain(patches, places[:half], recipe.size_px, recipe.margin)
    varied = augment(patches, places[half:], recipe.size_px, recipe.margin, rng)
    return np.concatenate([clean, varied])


def calibration_batches(crops: NDArray[np.uint8]) -> Iterator[dict[str, NDArray[np.uint8]]]:
    """Yield crops (uint8 n x S x S x 3) as the quantizer takes them, the fewer at a time the larger they are."""
    batch = min(CALIBRATION_BATCH, max(1, CALIBRATION_BATCH * CALIBRATION_PX**2 // crops.shape[1] ** 2))
    for start in range(0, len(crops), batch):
        yield {INPUT_NAME: crops[start : start + batch]}


def _head(onnx_file: Path) -> list[str]:
    """Name the nodes from the last dense layer on: in float they cost nothing, in int8 they blur probabilities."""
    nodes = onnx.load(onnx_file).graph.node
    start = max(place for place, node in enumerate(nodes) if node.op_type in ("Gemm", "MatMul"))
    return [node.name for node in nodes[start:]]


class _Calibration(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is untyped
    """Feed pictures to the quantizer, a batch a call, None at the end."""

    def __init__(self, crops: NDArray[np.uint8]) -> None:
        self._batches = calibration_batches(crops)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(self._batches, None)
