"""As a float network the built-in int8 network gives the same answers, and networks of other kinds are refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from models.classifier.card import DEFAULT_FOLDER, INT8_NAME, read_card
from models.classifier.float_graph import to_float
from models.classifier.mask_classifier import crop_faces
from models.classifier.onnx_runtime import load_onnx
from models.files import ModelUnusable
from pipeline.vision.arrays import Floats, Image

INT8 = (DEFAULT_FOLDER / INT8_NAME).read_bytes()
THRESHOLD = read_card(DEFAULT_FOLDER).threshold
SIDE = 4  # of the crops of the small networks below


@pytest.fixture(scope="module")
def faces(pictures: Path) -> Image:
    """Real faces, the first with a mask, the others without."""
    card = read_card(DEFAULT_FOLDER)
    crops = []
    for name in ("WithMask", "WithoutMask"):
        for path in sorted((pictures / "face-mask-12k" / "Test" / name).iterdir())[:150]:
            image = cv2.imread(str(path))
            whole = np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32)
            crops.append(crop_faces(image, whole, card.size_px, card.margin)[0])
    return np.stack(crops)


@pytest.fixture(scope="module")
def by_int8(faces: Image) -> Floats:
    return answers(INT8, faces)


@pytest.fixture(scope="module")
def by_float32(faces: Image) -> Floats:
    return answers(to_float(INT8, "file", np.float32), faces)


def answers(content: bytes, crops: Image) -> Floats:
    classify = load_onnx(content, threads=2)
    return np.concatenate([classify(crops[start : start + 32]) for start in range(0, len(crops), 32)])


def small_network(*nodes: onnx.NodeProto, output: str = "probability", **constants: np.ndarray) -> bytes:
    """Return a network from uint8 crops that were cast to float ("x") to an output."""
    crops = helper.make_tensor_value_info("crops", TensorProto.UINT8, ["n", SIDE])
    found = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", 1])
    cast = helper.make_node("Cast", ["crops"], ["x"], to=TensorProto.FLOAT)
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([cast, *nodes], "small", [crops], [found], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def quantized(name: str, scale: str = "scale", zero: str = "zero") -> list[onnx.NodeProto]:
    """Return the two nodes that quantize a value `name` and give it as f"{name}_after"."""
    return [
        helper.make_node("QuantizeLinear", [name, scale, zero], [f"{name}_steps"], name="quantize"),
        helper.make_node("DequantizeLinear", [f"{name}_steps", scale, zero], [f"{name}_after"], name="dequantize"),
    ]


DENSE = partial(helper.make_node, "MatMul", outputs=["probability"], name="dense")
KERNEL = np.full((SIDE, 1), 0.25, np.float32)


def test_the_float_network_says_what_the_int8_network_says_of_real_faces(by_int8: Floats, by_float32: Floats) -> None:
    apart = np.abs(by_int8 - by_float32)

    assert apart.mean() < 0.01
    assert np.quantile(apart, 0.99) < 0.05
    assert ((by_int8 >= THRESHOLD) == (by_float32 >= THRESHOLD)).all()


def test_float16_says_what_float32_says(faces: Image, by_float32: Floats) -> None:
    by_float16 = answers(to_float(INT8, "file", np.float16), faces)

    assert by_float16.dtype == np.float32
    np.testing.assert_allclose(by_float16, by_float32, atol=0.01)


@pytest.mark.parametrize("float_type", [np.float32, np.float16])
def test_nothing_is_quantized_any_more_and_the_types_of_input_and_output_stay(
    float_type: type[np.float16] | type[np.float32],
) -> None:
    before, after = onnx.load_from_string(INT8).graph, onnx.load_from_string(to_float(INT8, "file", float_type))
    graph = after.graph

    onnx.checker.check_model(after, full_check=True)

    assert list(graph.input) == list(before.input)
    assert list(graph.output) == list(before.output)
    assert not any("Quantize" in node.op_type or "Dequantize" in node.op_type for node in graph.node)
    assert {one.data_type for one in graph.initializer} <= {
        helper.np_dtype_to_tensor_dtype(np.dtype(float_type)),
        TensorProto.FLOAT,  # the head's
        TensorProto.INT64,  # axes
    }
    used = {name for node in graph.node for name in node.input}
    assert {one.name for one in graph.initializer} <= used


def test_in_float16_the_last_dense_layer_stays_float32() -> None:
    graph = onnx.load_from_string(to_float(INT8, "file", np.float16)).graph
    types = {one.name: one.data_type for one in graph.initializer}
    by_output = {output: node for node in graph.node for output in node.output}
    (dense,) = (node for node in graph.node if node.op_type == "Gemm")

    before = by_output[dense.input[0]]

    assert [types[name] for name in dense.input[1:]] == [TensorProto.FLOAT] * 2
    assert (before.op_type, before.attribute[0].i) == ("Cast", TensorProto.FLOAT)
    assert len(INT8) < len(to_float(INT8, "file", np.float16)) < 2 * len(INT8)


def test_the_same_network_gives_the_same_bytes() -> None:
    assert to_float(INT8, "file", np.float16) == to_float(INT8, "file", np.float16)


@settings(max_examples=25, deadline=None)
@given(
    pixels=st.lists(st.integers(0, 255), min_size=SIDE, max_size=SIDE),
    top=st.floats(1, 300, width=32),
    zero=st.integers(0, 255),
)
def test_rounding_goes_and_limits_stay(pixels: list[int], top: float, zero: int) -> None:
    """A quantizer leaves out a ReLU6 whose limits are those of the steps."""
    scale = np.float32(top / 255)
    network = small_network(
        *quantized("x"),
        DENSE(["x_after", "kernel"]),
        scale=np.array(scale),
        zero=np.array(zero, np.uint8),
        kernel=KERNEL,
    )
    crops = np.array([pixels], np.uint8)

    found = answers(to_float(network, "file", np.float32), crops)

    limited = np.clip(crops.astype(np.float32), (0 - zero) * scale, (255 - zero) * scale)
    np.testing.assert_allclose(found, (limited @ KERNEL).reshape(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_weights_are_read_with_the_scale_of_each_channel(axis: int) -> None:
    weights = np.random.default_rng(0).integers(-128, 128, (SIDE, SIDE)).astype(np.int8)
    scales, zeros = np.array([0.5, 1, 2, 4], np.float32), np.array([0, 1, 2, 3], np.int8)
    network = small_network(
        helper.make_node("DequantizeLinear", ["weights", "scales", "zeros"], ["kernel"], axis=axis),
        helper.make_node("MatMul", ["x", "kernel"], ["hidden"]),
        DENSE(["hidden", "last"]),
        weights=weights,
        scales=scales,
        zeros=zeros,
        last=KERNEL,
    )
    crops = np.arange(2 * SIDE, dtype=np.uint8).reshape(2, SIDE)

    found = answers(to_float(network, "file", np.float32), crops)

    by_channel = np.moveaxis((np.moveaxis(weights.astype(np.float32), axis, -1) - zeros) * scales, -1, axis)
    np.testing.assert_allclose(found, (crops @ by_channel @ KERNEL).reshape(-1), rtol=1e-5)


def test_a_number_too_large_for_float16_becomes_its_largest() -> None:
    network = small_network(
        helper.make_node("Mul", ["x", "factor"], ["hidden"]),
        DENSE(["hidden", "kernel"]),
        factor=np.array(1e9, np.float32),
        kernel=KERNEL,
    )

    found = onnx.load_from_string(to_float(network, "file", np.float16)).graph.initializer

    assert [numpy_helper.to_array(one).item() for one in found if one.data_type == TensorProto.FLOAT16] == [65504.0]


ONE = np.array(1, np.float32)
ZERO = np.array(0, np.uint8)
REFUSED = {
    "the operator Erf": small_network(helper.make_node("Erf", ["x"], ["y"]), DENSE(["y", "kernel"]), kernel=KERNEL),
    "the operator Cast": small_network(
        helper.make_node("Cast", ["x"], ["y"], to=TensorProto.DOUBLE), DENSE(["y", "kernel"]), kernel=KERNEL
    ),
    "a DequantizeLinear .dequantize. that does not undo": small_network(
        quantized("x")[0],
        helper.make_node("DequantizeLinear", ["x_steps", "other", "zero"], ["y"], name="dequantize"),
        DENSE(["y", "kernel"]),
        scale=ONE,
        other=2 * ONE,
        zero=ZERO,
        kernel=KERNEL,
    ),
    "a DequantizeLinear .weights. whose scale is not constant": small_network(
        helper.make_node("DequantizeLinear", ["numbers", "x"], ["kernel"], name="weights"),
        DENSE(["x", "kernel"]),
        numbers=np.zeros((SIDE, 1), np.int8),
    ),
    "a QuantizeLinear .quantize. without one constant scale": small_network(
        *quantized("x", scale="x"), DENSE(["x_after", "kernel"]), zero=ZERO, kernel=KERNEL
    ),
    "an output that is quantized": small_network(*quantized("x"), scale=ONE, zero=ZERO, output="x_after"),
    "no dense layer": small_network(helper.make_node("Relu", ["x"], ["probability"])),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_network_with_an_unknown_part_is_refused_in_one_line(why: str) -> None:
    with pytest.raises(
        ModelUnusable, match=rf"^folder/file cannot be turned into a float network: it has {why}"
    ) as error:
        to_float(REFUSED[why], "folder/file", np.float16)

    assert "\n" not in str(error.value)


def test_a_network_that_takes_no_bytes_is_refused() -> None:
    model: ModelProto = onnx.load_from_string(INT8)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT

    with pytest.raises(ModelUnusable, match="it has an input that is not uint8"):
        to_float(model.SerializeToString(), "file", np.float32)
