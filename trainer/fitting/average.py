"""Average a network's weights over the last steps of training: the average is what is evaluated and kept.

Keras' optimizers can average too, but only trainable weights: the averaged weights would then be used with the batch
normalisation statistics of other weights. Here both are averaged.
"""

from __future__ import annotations

from typing import Any

import keras

EVERY_STEPS = 4  # updating the average takes a tenth of a step's time on CPU; neighbouring steps hardly differ


class MovingAverage(keras.callbacks.Callback):
    """The exponential moving average of all weights of a network, which replaces them during evaluation."""

    def __init__(self, network: keras.Model, decay: float, steps_done: int) -> None:
        """Average a built network.

        decay: share of the old average that remains after a step, below 1. steps_done: by an earlier process, whose
        `variables` the caller restores.
        """
        super().__init__()
        self._decay = decay
        self._steps = steps_done
        self._waiting = 0
        self._weights = list(network.weights)
        self.variables = [
            keras.Variable(keras.ops.copy(weight.value), dtype=weight.dtype, trainable=False, name=f"average_{index}")
            for index, weight in enumerate(self._weights)
        ]

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Update the average every EVERY_STEPS."""
        self._steps += 1
        self._waiting += 1
        if self._waiting == EVERY_STEPS:
            self._update()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Put the average, updated with the last weights, into the network."""
        self._update()
        self.swap()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Put the weights back."""
        self.swap()

    def swap(self) -> None:
        """Exchange the network's weights and their average."""
        for average, weight in zip(self.variables, self._weights, strict=True):
            kept = keras.ops.copy(weight.value)
            weight.assign(average.value)
            average.assign(kept)

    def _update(self) -> None:
        # As TensorFlow's ExponentialMovingAverage with num_updates: the average covers at most a ninth of the steps so
        # far, so that the random initial weights fade from it even in a short run.
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        left = decay**self._waiting
        self._waiting = 0
        for average, weight in zip(self.variables, self._weights, strict=True):
            average.assign(left * average.value + (1 - left) * weight.value)
