"""Make a training run repeatable: a seed and a number of threads in, nothing out; Keras and its backend are set up.

The same seed, data and number of threads then give the same weights to the last bit on processors. Keras has no setting
for threads or for operations that must be deterministic, so TensorFlow, where it is the backend, is told itself.
"""

from __future__ import annotations

import logging

import keras

log = logging.getLogger(__name__)


def make_repeatable(seed: int, threads: int | None) -> None:
    """Set up this process for one run; earlier runs in it leave no trace.

    Args:
        seed: of all chance.
        threads: of one operation; None means all processors.
    """
    keras.utils.clear_session()  # it numbers layers, whose names come into the ONNX files
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        _set_tensorflow_up(threads)


def _set_tensorflow_up(threads: int | None) -> None:
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    try:
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)  # else it takes all of a GPU that others use too
        if threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError:
        log.warning("TensorFlow runs in this process already: its threads stay as they are")
