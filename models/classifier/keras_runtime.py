"""Run a .keras classifier on TensorFlow, compiled. Imported only when the Keras runtime is chosen.

XLA compiles once for each batch size, so batches are padded to powers of two. Memory grows as needed, so that several
classifiers share one GPU. The model's file is loaded in safe mode, which runs no code from it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from pipeline.vision.arrays import Floats, Image


def load_compiled(path: Path, threads: int) -> Callable[[Image], Floats]:
    """Load a network and return its function: uint8 n x S x S x 3 RGB (n at least 1) to float32 n, 0..1."""
    import keras
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    with suppress(RuntimeError):  # TensorFlow already runs in this process: its settings cannot change
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    # On CPU, XLA's convolutions are slower than TensorFlow's own. predict() in a loop leaks memory: call the model.
    compiled = tf.function(lambda crops: model(crops, training=False), jit_compile=bool(gpus))

    def classify(crops: Image) -> Floats:
        count = len(crops)
        padding = (1 << (count - 1).bit_length()) - count
        batch = np.concatenate([crops, np.zeros((padding, *crops.shape[1:]), np.uint8)])
        probability: Floats = compiled(tf.constant(batch)).numpy()
        return probability.reshape(-1)[:count]

    return classify
