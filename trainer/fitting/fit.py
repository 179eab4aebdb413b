"""Fit a network to faces by its recipe, epoch by epoch, so that it can continue after an interruption.

In: an uncompiled network, patches to train on, faces to report on. Out: the network with the weights of the last epoch
(or their moving average, if the recipe has one), and the figures of all epochs. Nothing is chosen by the validation
faces, so their figures are unbiased. The same seed, data and thread count give the same weights, interrupted or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from trainer.data.batches import Batches
from trainer.data.prepare import EvaluationFaces, PreparedData
from trainer.data.teachers import Teachers
from trainer.fitting.average import MovingAverage
from trainer.fitting.checkpoint import Checkpoint, RunOrigin
from trainer.fitting.progress import Progress, ReportProgress
from trainer.fitting.training_form import training_form
from trainer.reports.findings import Epoch
from trainer.settings import Recipe

HALF = 0.5  # the probability that divides masks from bare faces while training


def fit(
    network: keras.Model,
    prepared: PreparedData,
    origin: RunOrigin,
    checkpoint: Checkpoint[Epoch],
    report: Callable[[Progress], None],
    *,
    teachers: Teachers | None = None,
) -> tuple[Epoch, ...]:
    """Train a network from its checkpoint or from the beginning; return the figures of all epochs.

    Args:
        network: uncompiled; it gets its final weights.
        checkpoint: of the run folder; written after each epoch.
        report: gets each Progress; what it raises ends the training.
        teachers: to learn from beside the labels.

    Raises:
        ValueError: the checkpoint belongs to another run or is damaged, or an epoch has no finite loss.
    """
    recipe, epochs = origin.recipe, checkpoint.epochs_of(origin)
    steps = -(-len(prepared.training) // recipe.batch)
    form = training_form(network, mixed_precision=recipe.mixed_precision)
    _compile(form, recipe, steps)
    state = [*form.variables, *form.optimizer.variables]
    averages: list[MovingAverage] = []
    if recipe.ema_decay is not None:
        averages = [MovingAverage(form, recipe.ema_decay, steps_done=len(epochs) * steps)]
        state += averages[0].variables
    if epochs:
        checkpoint.restore(state)
    saving = _SaveCheckpoint(checkpoint, state, origin, epochs)
    form.fit(
        Batches(prepared.training, recipe, origin.seed, first_epoch=len(epochs), teachers=teachers),
        initial_epoch=len(epochs),
        epochs=recipe.epochs,
        validation_data=_ValidationBatches(prepared.validation, recipe.batch),
        # In this order, so that an epoch is saved before it is reported as finished.
        callbacks=[*averages, saving, ReportProgress(report, recipe.epochs, steps=steps, first_epoch=len(epochs))],
        shuffle=False,  # Batches draws at random
        verbose=0,
    )
    for average in averages:
        average.swap()
    network.set_weights(form.get_weights())
    return saving.epochs


def _compile(network: keras.Model, recipe: Recipe, steps: int) -> None:
    """Compile a network and build its optimizer's variables."""
    rate: Any = recipe.learning_rate
    if recipe.warmup_share is not None:
        warmup = max(1, round(recipe.warmup_share * recipe.epochs * steps))
        falling = max(1, recipe.epochs * steps - warmup)
        rate = keras.optimizers.schedules.CosineDecay(0.0, falling, warmup_target=rate, warmup_steps=warmup)
    optimizer = (
        keras.optimizers.Adam(rate)
        if recipe.optimizer == "adam"
        else keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay)
    )
    network.compile(
        optimizer=optimizer,
        loss=keras.losses.BinaryCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=[keras.metrics.MeanMetricWrapper(_is_right, name="accuracy")],
        jit_compile=False,  # XLA made a step 3 times slower on CPU
    )
    optimizer.build(network.trainable_variables)


def _is_right(targets: Any, probabilities: Any) -> Any:
    """Return for each face whether the network is on the side of its target, which teachers may have made any share."""
    return keras.ops.equal(targets > HALF, probabilities > HALF)


class _ValidationBatches(keras.utils.PyDataset):
    """Batches of faces that are not augmented: (uint8 n x S x S x 3 RGB, float32 n x 1)."""

    def __init__(self, faces: EvaluationFaces, batch: int) -> None:
        super().__init__()
        self._faces = faces
        self._batch = batch

    def __len__(self) -> int:
        return -(-len(self._faces) // self._batch)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        chosen = slice(index * self._batch, (index + 1) * self._batch)
        return self._faces.crops[chosen], self._faces.has_mask[chosen, None].astype(np.float32)


class _SaveCheckpoint(keras.callbacks.Callback):
    """Write the checkpoint after each epoch."""

    def __init__(
        self, checkpoint: Checkpoint[Epoch], state: list[Any], origin: RunOrigin, epochs: tuple[Epoch, ...]
    ) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._state = state
        self._origin = origin
        self.epochs = epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        figures = {name: float(value) for name, value in (logs or {}).items()}
        if not math.isfinite(figures["loss"]):
            rate = self._origin.recipe.learning_rate
            raise ValueError(
                f"training diverged, epoch {epoch + 1} has no finite loss: lower the learning rate ({rate:g})"
            )
        finished = Epoch(
            epoch=epoch + 1,
            loss=figures["loss"],
            accuracy=figures["accuracy"],
            validation_loss=figures["val_loss"],
            validation_accuracy=figures["val_accuracy"],
        )
        self.epochs += (finished,)
        self._checkpoint.save(self._state, self._origin, self.epochs)
