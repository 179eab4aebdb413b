"""Make a training run repeatable: configure Keras and its backend for a seed and a number of threads.

The same seed, data and number of threads then give bit-identical weights on CPUs. Keras has no settings for threads and
deterministic operations, so TensorFlow, where it is the backend, is configured directly.
"""

from __future__ import annotations

import logging

import keras

log = logging.getLogger(__name__)


def make_repeatable(seed: int, threads: int | None) -> None:
    """Configure this process for one run, independent of earlier ones; threads: None means all processors."""
    keras.utils.clear_session()  # it numbers layers, whose names get into the ONNX files
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        _set_tensorflow_up(threads)


def _set_tensorflow_up(threads: int | None) -> None:
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    try:
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)  # otherwise it reserves all memory of a GPU
        if threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError:
        log.warning("TensorFlow has already started in this process: its number of threads cannot be changed")
