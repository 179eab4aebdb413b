"""Measure a trained network's latency per face: a run folder in, medians in milliseconds out.

ONNX networks run on one thread, because workers are scaled by processes. The Keras network runs with this process's
settings of TensorFlow, on a GPU where there is one. A missing file raises OSError.
"""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np

from models.classifier.card import FLOAT_NAME, INT8_NAME, KERAS_NAME
from models.classifier.onnx_runtime import Classify, load_onnx

BATCHES = (1, 8, 32)
WARM_UP_CALLS = 3
CALLS = 20
KERAS_CALLS = 5  # compiling it takes seconds for each size


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Median time per face at one batch size. threads: None means TensorFlow's default."""

    runtime: str
    threads: int | None
    batch: int
    ms_a_face: float


def measure_run_latency(run: Path, size_px: int, *, with_keras: bool = False) -> tuple[Latency, ...]:
    """Measure the networks of a run folder: int8, float and, if asked for and TensorFlow is installed, Keras."""
    found: tuple[Latency, ...] = ()
    for runtime, name in (("onnx int8", INT8_NAME), ("onnx float", FLOAT_NAME)):
        found += measure_latency(runtime, load_onnx((run / name).read_bytes(), threads=1), size_px, threads=1)
    if with_keras and find_spec("tensorflow") is not None:
        found += _measure_keras(run / KERAS_NAME, size_px)
    return found


def measure_latency(
    runtime: str,
    classify: Classify,
    size_px: int,
    *,
    threads: int | None,
    calls: int = CALLS,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Latency, ...]:
    """Time one network at each size of BATCHES.

    Args:
        runtime: its name in the report.
        size_px: side S of the crops, which are noise.
        threads: that the network uses; None means TensorFlow's default.
        calls: for each size, after WARM_UP_CALLS that are not counted.
    """
    noise = np.random.default_rng(0).integers(0, 256, (max(BATCHES), size_px, size_px, 3), np.uint8)
    found = []
    for batch in BATCHES:
        call = partial(classify, noise[:batch])
        took_s = timeit.repeat(call, number=1, repeat=WARM_UP_CALLS + calls, timer=clock)
        ms_a_face = 1000 * median(took_s[WARM_UP_CALLS:]) / batch
        found.append(Latency(runtime=runtime, threads=threads, batch=batch, ms_a_face=round(ms_a_face, 3)))
    return tuple(found)


def _measure_keras(path: Path, size_px: int) -> tuple[Latency, ...]:
    import tensorflow as tf  # takes seconds to import

    from models.classifier.keras_runtime import load_compiled

    classify = load_compiled(path, threads=1)
    threads = tf.config.threading.get_intra_op_parallelism_threads() or None
    where = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    return measure_latency(f"keras, {where}", classify, size_px, threads=threads, calls=KERAS_CALLS)
