"""Which runtime a setting means on which machine, and what is said when it is not the GPU."""

from __future__ import annotations

import ctypes
import logging
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from models.classifier import mask_classifier, runtime_choice
from models.classifier.card import DEFAULT_FOLDER
from models.classifier.onnx_runtime import CUDA_BATCHES, padded
from models.classifier.runtime_choice import Choice, Machine, Runtime, choose_runtime
from models.classifier.self_test import load_with_self_test
from models.files import ModelUnusable
from pipeline.vision.arrays import Floats, Image

PLAIN = {"has_gpu": False, "has_cuda_provider": False, "has_onnx": False, "has_tensorflow": False}
READY = {"has_gpu": True, "has_cuda_provider": True, "has_onnx": True}


def machine(**has: bool) -> Machine:
    return Machine(**(PLAIN | has))


def test_a_machine_with_all_that_cuda_needs_uses_the_gpu() -> None:
    assert choose_runtime("auto", machine(**READY)) == Choice(runtime="cuda")
    assert choose_runtime("cuda", machine(**READY)) == Choice(runtime="cuda")


@pytest.mark.parametrize("has", [{}, {"has_onnx": True, "has_tensorflow": True}])
def test_a_machine_without_a_gpu_uses_the_cpu_and_says_nothing(has: dict[str, bool]) -> None:
    assert choose_runtime("auto", machine(**has)) == Choice(runtime="onnx")


@pytest.mark.parametrize(
    ("lacks", "why"),
    [
        ("has_gpu", "NVIDIA's driver"),
        ("has_cuda_provider", "ONNX Runtime with CUDA"),
        ("has_onnx", "the package onnx"),
    ],
)
def test_when_one_thing_is_missing_auto_uses_the_cpu_and_says_what_and_cuda_is_refused(lacks: str, why: str) -> None:
    found = machine(**(READY | {lacks: False}))

    choice = choose_runtime("auto", found)

    assert choice.runtime == "onnx"
    assert choice.warning.startswith(f"a GPU is not used, which needs {why}")
    with pytest.raises(ModelUnusable, match=f"^the runtime cuda needs {why}"):
        choose_runtime("cuda", found)


def test_all_that_is_missing_is_named() -> None:
    with pytest.raises(
        ModelUnusable, match=r"needs NVIDIA's driver .* and ONNX Runtime with CUDA .* and the package onnx"
    ):
        choose_runtime("cuda", machine())


@pytest.mark.parametrize("runtime", ["onnx", "keras"])
def test_a_runtime_that_is_named_is_used_although_there_is_a_gpu(runtime: Runtime) -> None:
    assert choose_runtime(runtime, machine(**READY, has_tensorflow=True)) == Choice(runtime=runtime)


def test_keras_without_tensorflow_is_refused() -> None:
    with pytest.raises(ModelUnusable, match="the runtime keras needs TensorFlow"):
        choose_runtime("keras", machine(**READY))


def test_without_a_gpu_the_runtime_cuda_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runtime_choice, "GPU_DEVICE", tmp_path / "nvidiactl")

    with pytest.raises(ModelUnusable, match=r"^the runtime cuda needs NVIDIA's driver \(.*nvidiactl is missing\)"):
        mask_classifier.load_classifier(runtime="cuda")


def test_a_gpu_that_cannot_be_used_leaves_the_cpu_and_one_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(runtime_choice, "GPU_DEVICE", tmp_path / "nvidiactl")
    crops = np.zeros((3, 112, 112, 3), np.uint8)

    with caplog.at_level(logging.WARNING, logger="models"):
        classifier = mask_classifier.load_classifier()

    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"{classifier.card.version} runs on the CPU: ")
    by_cpu = mask_classifier.load_classifier(DEFAULT_FOLDER, "onnx")
    np.testing.assert_array_equal(classifier.mask_probability(crops), by_cpu.mask_probability(crops))
    assert classifier.max_batch == mask_classifier.MAX_BATCH


def test_cuda_that_does_not_load_leaves_the_cpu_or_is_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mask_classifier, "this_machine", lambda: machine(**READY))

    with caplog.at_level(logging.WARNING, logger="models"):
        classifier = mask_classifier.load_classifier()

    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"{classifier.card.version} runs on the CPU: the GPU cannot be used: ")
    with pytest.raises(ModelUnusable, match=r"^the GPU cannot be used: "):
        load_with_self_test(DEFAULT_FOLDER, "cuda")


def test_what_is_printed_while_cuda_loads_is_neither_an_error_nor_on_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mask_classifier, "this_machine", lambda: machine(**READY))
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: None)
    monkeypatch.setattr(ort, "preload_dlls", lambda: print("a line of another thread"))

    with pytest.raises(ModelUnusable, match="CUDAExecutionProvider"):
        mask_classifier.load_classifier(runtime="cuda")

    printed = capsys.readouterr()
    assert printed.out == ""
    assert "a line of another thread" in printed.err


@pytest.mark.parametrize("count", [1, 7, 8, 9, 64, 65, 128])
def test_a_batch_is_padded_to_the_next_size_and_answered_without_the_padding(count: int) -> None:
    seen: list[int] = []

    def mean(crops: Image) -> Floats:
        seen.append(len(crops))
        return crops.mean(axis=(1, 2, 3), dtype=np.float32)

    crops = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), np.uint8)

    found = padded(dict.fromkeys(CUDA_BATCHES, mean))(crops)

    assert seen == [next(size for size in CUDA_BATCHES if size >= count)]
    np.testing.assert_array_equal(found, mean(crops))


def test_a_classifier_takes_as_many_crops_in_a_call_as_its_runtime_can() -> None:
    sizes: list[int] = []

    def one_half(crops: Image) -> Floats:
        sizes.append(len(crops))
        return np.full(len(crops), 0.5, np.float32)

    card = mask_classifier.read_card(DEFAULT_FOLDER)
    classifier = mask_classifier.MaskClassifier(card, one_half, max_batch=CUDA_BATCHES[-1])

    found = classifier.mask_probability(np.zeros((300, card.size_px, card.size_px, 3), np.uint8))

    assert sizes == [128, 128, 44]
    assert found.shape == (300,)
