"""Average a network's weights over the last steps of training: the average is what is evaluated and kept.

Keras' optimizers can average too, but only what they train: the averaged weights would then meet moving statistics of
batch normalisation that belong to other weights. Here both are averaged.
"""

from __future__ import annotations

from typing import Any

import keras

# JobFetcher the weights in takes a tenth of a step's time on CPU; neighbouring steps hardly differ.
EVERY_STEPS = 4


class MovingAverage(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """The exponential moving average of all weights of a network, which stands in for them while it is evaluated."""

    def __init__(self, network: keras.Model, decay: float, steps_done: int) -> None:
        """Begin an average.

        Args:
            network: a built network.
            decay: share of the old average that a step leaves, below 1.
            steps_done: by an earlier process, whose `variables` are then restored.
        """
        super().__init__()
        self._decay = decay
        self._steps = steps_done
        self._waiting = 0
        self._weights = list(network.weights)
        self.variables = [
            keras.Variable(keras.ops.copy(weight.value), dtype=weight.dtype, trainable=False, name=f"average_{place}")
            for place, weight in enumerate(self._weights)
        ]

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002 -- Keras' signature
        """Take the weights in, if it is time."""
        self._steps += 1
        self._waiting += 1
        if self._waiting == EVERY_STEPS:
            self._take_in()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Put the average, with the last weights in it, into the network."""
        self._take_in()
        self.swap()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Put the weights back."""
        self.swap()

    def swap(self) -> None:
        """Exchange the network's weights and their average."""
        for average, weight in zip(self.variables, self._weights, strict=True):
            kept = keras.ops.copy(weight.value)
            weight.assign(average.value)
            average.assign(kept)

    def _take_in(self) -> None:
        # TensorFlow's ExponentialMovingAverage (num_updates): the average reaches back over a ninth of the steps so far
        # at most, so that it forgets the random weights of the beginning also when a run is short.
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        left = decay**self._waiting
        self._waiting = 0
        for average, weight in zip(self.variables, self._weights, strict=True):
            average.assign(left * average.value + (1 - left) * weight.value)
