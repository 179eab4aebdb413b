"""YuNet in Keras computes what its published ONNX file computes, and gives its weights back to that file."""

from __future__ import annotations

from pathlib import Path

import cv2
import keras
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from models.detector.yunet_decode import STRIDES
from models.files import ModelUnusable
from pipeline.vision.arrays import Image
from trainer.data.published_detector import read_published
from trainer.networks.yunet import HEADS, blend, build_yunet, load_weights, with_weights

NAMES = [f"{kind}_{stride}" for kind, _ in HEADS for stride in STRIDES]
# Height and width of the network's input.
SIZES = ((640, 640), (384, 640), (64, 96), (32, 32), (800, 608))


def published() -> keras.Model:
    network = build_yunet()
    load_weights(network, read_published())
    return network


def photographs(pictures: Path, count: int, size: tuple[int, int]) -> Image:
    paths = sorted((pictures / "face-mask-detection" / "images").iterdir())[:count]
    return np.stack([cv2.resize(cv2.imread(str(path)), size[::-1]) for path in paths]).astype(np.uint8)


def by_onnx(content: bytes, images: Image) -> dict[str, NDArray[np.float32]]:
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    planes = images.transpose(0, 3, 1, 2).astype(np.float32)
    return dict(zip(NAMES, session.run(NAMES, {"input": planes}), strict=True))


def by_keras(network: keras.Model, images: Image) -> dict[str, NDArray[np.float32]]:
    outputs = network(images.astype(np.float32), training=False)
    return {name: np.asarray(output) for name, output in outputs.items()}


def assert_equal(outputs: dict[str, NDArray[np.float32]], expected: dict[str, NDArray[np.float32]]) -> None:
    for name in NAMES:
        np.testing.assert_allclose(outputs[name], expected[name], atol=1e-3, err_msg=name)


@pytest.mark.parametrize("size", SIZES)
def test_keras_computes_the_outputs_of_the_published_file(pictures: Path, size: tuple[int, int]) -> None:
    network = published()
    images = photographs(pictures, 3, size)

    outputs = by_keras(network, images)

    assert outputs.keys() == set(NAMES)
    assert_equal(outputs, by_onnx(read_published(), images))
    assert max(outputs[f"cls_{stride}"].max() for stride in STRIDES) > 0.5 or size[0] < 100  # it sees faces


def test_logits_are_the_outputs_before_their_sigmoid(pictures: Path) -> None:
    network, logits = published(), build_yunet(as_logits=True)
    load_weights(logits, read_published())
    images = photographs(pictures, 1, (96, 96))

    outputs = by_keras(logits, images)

    for name, expected in by_keras(network, images).items():
        output = 1 / (1 + np.exp(-outputs[name])) if name.startswith(("cls", "obj")) else outputs[name]
        np.testing.assert_allclose(output, expected, atol=1e-5, err_msg=name)


def test_unchanged_weights_give_the_published_file_back() -> None:
    network = published()

    assert with_weights(read_published(), network) == read_published()


def test_trained_weights_give_the_same_outputs_in_the_file_as_in_keras(pictures: Path) -> None:
    network = published()
    rng = np.random.default_rng(0)
    network.set_weights([weight + rng.normal(0, 0.02, weight.shape) for weight in network.get_weights()])
    images = photographs(pictures, 2, (320, 416))

    content = with_weights(read_published(), network)

    onnx.checker.check_model(onnx.load_from_string(content))
    outputs = by_onnx(content, images)
    assert_equal(outputs, by_keras(network, images))
    assert not np.allclose(outputs["bbox_8"], by_onnx(read_published(), images)["bbox_8"], atol=1e-2)


def test_a_blend_lies_between_the_two_files() -> None:
    network, before = published(), read_published()
    rng = np.random.default_rng(0)
    network.set_weights([weight + rng.normal(0, 0.02, weight.shape) for weight in network.get_weights()])
    trained = with_weights(before, network)

    quarter = build_yunet()
    load_weights(quarter, blend(trained, before, 0.25))

    for mean, new, old in zip(quarter.get_weights(), network.get_weights(), published().get_weights(), strict=True):
        np.testing.assert_allclose(mean, 0.75 * new + 0.25 * old, atol=1e-6)
    assert blend(trained, before, 0.0) == trained
    assert blend(trained, before, 1.0) == before


def test_the_weights_of_every_layer_are_large_enough_for_one_learning_rate() -> None:
    network = published()

    means = {layer.name: np.abs(layer.get_weights()[0]).mean() for layer in network.layers if layer.weights}

    assert min(means.values()) > 0.02, means


def test_the_file_of_another_network_is_refused() -> None:
    other = onnx.load_from_string(read_published())
    other.graph.node.remove(next(node for node in other.graph.node if node.op_type == "Conv"))
    wider = onnx.load_from_string(read_published())
    kernel = next(
        constant for constant in wider.graph.initializer if constant.name == "neck.lateral_convs.2.conv1.weight"
    )
    kernel.dims[0] += 1

    with pytest.raises(ModelUnusable, match="it has 52 convolutions instead of 53"):
        load_weights(build_yunet(), other.SerializeToString())
    with pytest.raises(ModelUnusable, match=r"its convolution Conv_39 is not neck_32_point"):
        load_weights(build_yunet(), wider.SerializeToString())
