"""Versions without training: the built-in networks under other names, and networks that are broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.classifier.card import DEFAULT_FOLDER, INT8_NAME, Card, read_card, write_card
from models.detector import card as detectors
from models.detector.card import DETECTOR_NAME, DetectorCard, read_detector_card, write_detector_card
from models.files import sha256_of


def write_version(folder: Path, word: str, **changes: Any) -> Card:
    """Write a model folder with the built-in network, which another note in its file makes another version."""
    network = onnx.load_from_string((DEFAULT_FOLDER / INT8_NAME).read_bytes())
    network.doc_string = word
    return write_model(folder, network.SerializeToString(), **changes)


def write_model(folder: Path, network: bytes, **changes: Any) -> Card:
    """Write a model folder with any network, and the card that belongs to it."""
    folder.mkdir(parents=True)
    (folder / INT8_NAME).write_bytes(network)
    sha256 = sha256_of(network)
    named = {"version": f"lite-{sha256[:8]}", "files": {INT8_NAME: sha256}}
    card = msgspec.structs.replace(read_card(DEFAULT_FOLDER), **(named | changes))
    write_card(folder, card)
    return card


def write_detector(folder: Path, word: str, **changes: Any) -> DetectorCard:
    """Write a model folder with the built-in detector, which another note in its file makes another version."""

    def note(network: onnx.ModelProto) -> None:
        network.doc_string = word

    return write_changed_detector(folder, note, **changes)


def write_changed_detector(folder: Path, change: Callable[[onnx.ModelProto], None], **changes: Any) -> DetectorCard:
    """Write a model folder with a network made of the built-in detector, and the card that belongs to it."""
    network = onnx.load_from_string((detectors.DEFAULT_FOLDER / DETECTOR_NAME).read_bytes())
    change(network)
    return write_detector_model(folder, network.SerializeToString(), **changes)


def write_detector_model(folder: Path, network: bytes, **changes: Any) -> DetectorCard:
    """Write a model folder with any network as a detector, and the card that belongs to it."""
    folder.mkdir(parents=True)
    (folder / DETECTOR_NAME).write_bytes(network)
    sha256 = sha256_of(network)
    named = {"version": f"yunet-{sha256[:8]}", "files": {DETECTOR_NAME: sha256}}
    card = msgspec.structs.replace(read_detector_card(detectors.DEFAULT_FOLDER), **(named | changes))
    write_detector_card(folder, card)
    return card


def network(size_px: int, answers: list[float], batch: int | str = "n") -> bytes:
    """Return an ONNX file that answers so for each crop, whatever is on it."""
    given = helper.make_tensor_value_info("crops", TensorProto.UINT8, [batch, size_px, size_px, 3])
    found = helper.make_tensor_value_info("mask", TensorProto.FLOAT, [batch, len(answers)])
    constants = [
        numpy_helper.from_array(np.array([answers], np.float32), "answers"),
        numpy_helper.from_array(np.array([0], np.float32), "nothing"),
        numpy_helper.from_array(np.array([0, -1], np.int64), "flat"),
        numpy_helper.from_array(np.array([1], np.int64), "columns"),
    ]
    nodes = [
        helper.make_node("Cast", ["crops"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["floats", "flat"], ["rows"]),
        helper.make_node("ReduceMax", ["rows", "columns"], ["brightest"], keepdims=1),
        helper.make_node("Mul", ["brightest", "nothing"], ["zeros"]),
        helper.make_node("Add", ["zeros", "answers"], ["mask"]),
    ]
    return _packed(helper.make_graph(nodes, "constant", [given], [found], constants))


def network_that_fails_on_grey(size_px: int) -> bytes:
    """Return an ONNX file that answers 0.9 for each crop with a black pixel, and ends a call with a grey crop.

    Its index into a table is m * (255 - m), m being the darkest value of a crop; the table ends at 1000.
    """
    given = helper.make_tensor_value_info("crops", TensorProto.UINT8, ["n", size_px, size_px, 3])
    found = helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n"])
    constants = [
        numpy_helper.from_array(np.full(1000, 0.9, np.float32), "table"),
        numpy_helper.from_array(np.array(255, np.int64), "white"),
        numpy_helper.from_array(np.array([1, 2, 3], np.int64), "pixels"),
    ]
    nodes = [
        helper.make_node("Cast", ["crops"], ["values"], to=TensorProto.INT64),
        helper.make_node("ReduceMin", ["values", "pixels"], ["darkest"], keepdims=0),
        helper.make_node("Sub", ["white", "darkest"], ["missing"]),
        helper.make_node("Mul", ["darkest", "missing"], ["index"]),
        helper.make_node("Gather", ["table", "index"], ["mask"]),
    ]
    return _packed(helper.make_graph(nodes, "fails on grey", [given], [found], constants))


def network_that_fails_on_more_than(crops: int, size_px: int) -> bytes:
    """Return an ONNX file that answers 0.9 for each crop, and fails on larger batches."""
    given = helper.make_tensor_value_info("crops", TensorProto.UINT8, ["n", size_px, size_px, 3])
    found = helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n"])
    constants = [
        numpy_helper.from_array(np.full(crops + 1, 0.9, np.float32), "table"),
        numpy_helper.from_array(np.array(0, np.int64), "zero"),
        numpy_helper.from_array(np.array([1, 2, 3], np.int64), "pixels"),
    ]
    nodes = [
        helper.make_node("Shape", ["crops"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["count"]),
        helper.make_node("Cast", ["crops"], ["values"], to=TensorProto.INT64),
        helper.make_node("ReduceMin", ["values", "pixels"], ["darkest"], keepdims=0),
        helper.make_node("Mul", ["darkest", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "count"], ["index"]),
        helper.make_node("Gather", ["table", "index"], ["mask"]),
    ]
    return _packed(helper.make_graph(nodes, "fails on many", [given], [found], constants))


def _packed(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    packed: bytes = model.SerializeToString()
    return packed


def flip_a_byte(path: Path) -> None:
    """Damage a file as a bad disk would."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
