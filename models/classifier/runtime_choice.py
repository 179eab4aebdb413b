"""Choose the runtime of a classifier: the setting and what this machine has in, the runtime out."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import onnxruntime as ort

from models.files import ModelUnusable

# onnx: the int8 network on the CPU. cuda: the same network in float16 on an NVIDIA GPU. keras: TensorFlow.
Runtime = Literal["auto", "onnx", "cuda", "keras"]

# It exists when NVIDIA's driver is loaded.
GPU_DEVICE = Path("/dev/nvidiactl")
CUDA_PROVIDER = "CUDAExecutionProvider"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What runtimes need. has_gpu: NVIDIA's driver is loaded; the others: what is installed."""

    has_gpu: bool
    has_cuda_provider: bool
    has_onnx: bool
    has_tensorflow: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A runtime. warning: why it is not the GPU although one was to be expected; empty when there is nothing to say."""

    runtime: Literal["onnx", "cuda", "keras"]
    warning: str = ""


def this_machine() -> Machine:
    """Look for a GPU and for the packages that runtimes need."""
    return Machine(
        has_gpu=GPU_DEVICE.exists(),
        has_cuda_provider=CUDA_PROVIDER in ort.get_available_providers(),
        has_onnx=find_spec("onnx") is not None,
        has_tensorflow=find_spec("tensorflow") is not None,
    )


def choose_runtime(runtime: Runtime, machine: Machine) -> Choice:
    """Return the runtime that a setting means on this machine; auto is cuda if the machine has all it needs, else onnx.

    Raises:
        ModelUnusable: the setting names a runtime that this machine cannot run.
        ValueError: an unknown runtime.
    """
    if runtime not in get_args(Runtime):
        raise ValueError(f"unknown runtime {runtime!r}: choose one of {', '.join(get_args(Runtime))}")
    if runtime == "onnx":
        return Choice(runtime=runtime)
    if runtime == "keras":
        if not machine.has_tensorflow:
            raise ModelUnusable("the runtime keras needs TensorFlow: use the image maskwatch-train or another runtime")
        return Choice(runtime=runtime)
    missing = _missing_for_cuda(machine)
    if not missing:
        return Choice(runtime="cuda")
    if runtime == "cuda":
        raise ModelUnusable(f"the runtime cuda needs {missing}")
    expected = machine.has_gpu or machine.has_cuda_provider
    return Choice(runtime="onnx", warning=f"a GPU is not used, which needs {missing}" if expected else "")


def _missing_for_cuda(machine: Machine) -> str:
    parts = {
        f"NVIDIA's driver ({GPU_DEVICE} is missing)": machine.has_gpu,
        "ONNX Runtime with CUDA (requirements/gpu.txt, image maskwatch-gpu)": machine.has_cuda_provider,
        "the package onnx (requirements/gpu.txt, image maskwatch-gpu)": machine.has_onnx,
    }
    return " and ".join(part for part, is_there in parts.items() if not is_there)
