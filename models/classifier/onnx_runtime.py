"""Run an int8 classifier on ONNX Runtime: the bytes of its file in, a function from crops to probabilities out.

On a CPU the network runs as it is; on an NVIDIA GPU it runs in float16 (float_graph.py). Whatever fails raises the
errors of ONNX Runtime, or RuntimeError or OSError when CUDA cannot be used.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import onnxruntime as ort

from models.classifier.runtime_choice import CUDA_PROVIDER
from pipeline.vision.arrays import Floats, Image

# From uint8 n x S x S x 3 RGB, n at least 1, to the probabilities float32 n.
Classify = Callable[[Image], Floats]

CPU_PROVIDER = "CPUExecutionProvider"
# ONNX Runtime plans each convolution anew whenever the size of its input changes, which takes longer than running it.
# So there is a session for each size, and batches are padded. Fewer than 8 crops do not keep a GPU busy.
CUDA_BATCHES = (8, 16, 32, 64, 128)
# https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
CUDA_OPTIONS = {
    "cudnn_conv_algo_search": "HEURISTIC",  # an exhaustive search would take seconds at each start
    "arena_extend_strategy": "kSameAsRequested",  # not twice as much each time: several classifiers share a GPU
}


def load_onnx(content: bytes, threads: int) -> Classify:
    """Open a network on the CPU."""
    return _opened(content, threads, CPU_PROVIDER, {})


def load_cuda(content: bytes, where: str, size_px: int, threads: int) -> Classify:
    """Turn an int8 network into float16, open it on the GPU, and run it once at each size of CUDA_BATCHES.

    Args:
        where: names the file in errors.
        size_px: side S of the crops.
        threads: for the few operators that may run on the CPU.

    Raises:
        ModelUnusable: the network cannot be turned into float16.
        RuntimeError, OSError: CUDA or one of its libraries cannot be used.
    """
    from models.classifier.float_graph import to_float  # here: onnx is installed only where a GPU is used

    network = to_float(content, where, np.float16)
    _load_cuda_libraries()
    by_size = {size: _opened(network, threads, CUDA_PROVIDER, CUDA_OPTIONS) for size in CUDA_BATCHES}
    for size, classify in by_size.items():
        classify(np.zeros((size, size_px, size_px, 3), np.uint8))
    return padded(by_size)


def padded(by_size: Mapping[int, Classify]) -> Classify:
    """Return a function that pads a batch to the next of some sizes, and calls the function for that size."""

    def classify(crops: Image) -> Floats:
        count = len(crops)
        size = min(size for size in by_size if size >= count)
        batch = np.concatenate([crops, np.zeros((size - count, *crops.shape[1:]), np.uint8)])
        return by_size[size](batch)[:count]

    return classify


def _opened(content: bytes, threads: int, provider: str, provider_options: dict[str, Any]) -> Classify:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin between two batches would take the cores from other workers on the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(content, options, [(provider, provider_options)], enable_fallback=False)
    if provider not in session.get_providers():  # ONNX Runtime has logged why, and would use the CPU
        raise RuntimeError(f"ONNX Runtime cannot use its {provider}")
    name = session.get_inputs()[0].name

    def classify(crops: Image) -> Floats:
        probability: Floats = session.run(None, {name: crops})[0]
        return probability.reshape(-1)

    return classify


def _load_cuda_libraries() -> None:
    """Load CUDA's libraries from their packages, where the linker does not look for them, and the driver's."""
    ctypes.CDLL("libcuda.so.1")
    with redirect_stdout(sys.stderr):  # it prints what it cannot load, and stdout may be that of `label --json -`
        ort.preload_dlls()
