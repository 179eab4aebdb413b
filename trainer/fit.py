"""Fit a network to pictures and keep its best epoch.

In: an uncompiled network, training and validation pictures. Out: the path of a .keras file and the validation figures
of the epoch it comes from. Same seed, same pictures, same thread count: same batches in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from trainer.augment import augment
from trainer.dataset import Pictures

LABEL_SMOOTHING = 0.05
WEIGHT_DECAY = 0.01
# The learning rate rises for this share of the steps, then falls along a half cosine to zero.
WARMUP_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One finished epoch. Losses are mean binary cross-entropies, accuracy is 0..1."""

    epoch: int
    epochs: int
    loss: float
    validation_loss: float
    validation_accuracy: float

    def text(self) -> str:
        """Return the epoch in one line for people."""
        return (
            f"epoch {self.epoch} of {self.epochs}: loss {self.loss:.3f}, "
            f"validation loss {self.validation_loss:.3f}, accuracy {self.validation_accuracy:.1%}"
        )


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # keras is untyped
    """Shuffled, varied training batches: (uint8 n x S x S x 3 RGB, float32 n x 1)."""

    def __init__(self, pictures: Pictures, batch: int, seed: int) -> None:
        """Draw batches of pictures; all chance comes from (seed, epoch, place of the batch)."""
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=4)
        self._pictures = pictures
        self._batch = batch
        self._seed = seed
        self._epoch = 0
        self._order = self._shuffled()

    def __len__(self) -> int:
        return -(-len(self._order) // self._batch)

    def __getitem__(self, place: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        chosen = np.sort(self._order[place * self._batch : (place + 1) * self._batch])
        labels = self._pictures.labels[chosen]
        rng = np.random.default_rng([self._seed, self._epoch, 1 + place])
        return augment(self._pictures.images[chosen], labels, rng), labels[:, None]

    def on_epoch_end(self) -> None:
        """Shuffle again; Keras calls it."""
        self._epoch += 1
        self._order = self._shuffled()

    def _shuffled(self) -> NDArray[np.intp]:
        return np.random.default_rng([self._seed, self._epoch, 0]).permutation(len(self._pictures.labels))


def fit(
    model: keras.Model,
    training: Pictures,
    validation: Pictures,
    best: Path,
    *,
    epochs: int,
    batch: int,
    seed: int,
    learning_rate: float,
    report: Callable[[Progress], None],
) -> Progress:
    """Train a network with AdamW and binary cross-entropy; write its best epoch to `best`.

    The best epoch is the one with the lowest validation loss. The validation pictures are looked at twice, as they are
    and varied like training pictures (the same way in every epoch): clean pictures alone are nearly all right from
    the first epoch on, and say little about distant faces.

    Raises:
        ValueError: no epoch had a finite validation loss.
    """
    batches = Batches(training, batch, seed)
    steps = epochs * len(batches)
    warmup = max(1, round(WARMUP_SHARE * steps))
    model.compile(
        optimizer=keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(
                0.0, steps - warmup, warmup_target=learning_rate, warmup_steps=warmup
            ),
            weight_decay=WEIGHT_DECAY,
        ),
        loss=keras.losses.BinaryCrossentropy(label_smoothing=LABEL_SMOOTHING),
        metrics=[keras.metrics.BinaryAccuracy(name="accuracy")],
        jit_compile=False,  # XLA made a step 1.7 times slower on CPU
    )
    keeper = _BestEpoch(best, epochs, report)
    model.fit(
        batches,
        epochs=epochs,
        validation_data=_twice(validation, seed),
        validation_batch_size=batch,
        callbacks=[keeper],
        shuffle=False,  # Batches shuffles
        verbose=0,
    )
    if keeper.best_epoch.epoch == 0:
        raise ValueError(f"training diverged, no epoch has a finite loss: lower the learning rate ({learning_rate:g})")
    return keeper.best_epoch


class _BestEpoch(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Write the model whenever its validation loss is the lowest so far; report every epoch."""

    def __init__(self, path: Path, epochs: int, report: Callable[[Progress], None]) -> None:
        super().__init__()
        self._path = path
        self._epochs = epochs
        self._report = report
        self.best_epoch = Progress(epoch=0, epochs=epochs, loss=np.inf, validation_loss=np.inf, validation_accuracy=0.0)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        figures = logs or {}
        now = Progress(
            epoch=epoch + 1,
            epochs=self._epochs,
            loss=float(figures["loss"]),
            validation_loss=float(figures["val_loss"]),
            validation_accuracy=float(figures["val_accuracy"]),
        )
        if now.validation_loss < self.best_epoch.validation_loss:
            self.best_epoch = now
            network = keras.Model(self.model.inputs, self.model.outputs, name=self.model.name)
            network.save(self._path)  # without the optimizer's state, which is twice the network's size
        self._report(now)


def _twice(pictures: Pictures, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    varied = augment(pictures.images, pictures.labels, np.random.default_rng([seed, 2]))
    return np.concatenate([pictures.images, varied]), np.concatenate([pictures.labels, pictures.labels])[:, None]
