"""Tell how far a training run is: what Keras says of its steps in, a Progress every second or so out.

What the listener raises comes through Keras and ends the training: that is how a run is cancelled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
from msgspec import Struct

# Twice as often as is promised, since it takes a step until the next look at the clock.
EVERY_S = 1.0


class Progress(Struct, frozen=True, kw_only=True):
    """How far a run is. Losses are mean binary cross-entropies, accuracies 0..1.

    epoch: the one under way or just finished, from 1. step: of the epoch, from 1.
    loss, accuracy: means of the epoch so far.
    validation_loss, validation_accuracy: of the finished epoch; None while it is under way.
    seconds_left: of training, by what the run took so far; measuring and exporting come after.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds_left: float

    @property
    def is_epoch_end(self) -> bool:
        """Whether the epoch is finished, and its checkpoint written."""
        return self.validation_loss is not None

    def text(self) -> str:
        """Return it in one line for people."""
        where = f"epoch {self.epoch} of {self.epochs}"
        left = (
            f"{self.seconds_left / 60:.0f} min left" if self.seconds_left >= 90 else f"{self.seconds_left:.0f} s left"
        )
        if self.validation_loss is None or self.validation_accuracy is None:
            return (
                f"{where}, step {self.step} of {self.steps}: loss {self.loss:.3f}, accuracy {self.accuracy:.1%}, {left}"
            )
        return (
            f"{where}: loss {self.loss:.3f}, accuracy {self.accuracy:.1%}; on validation pictures "
            f"loss {self.validation_loss:.3f}, accuracy {self.validation_accuracy:.1%}; {left}"
        )


class Reporting(keras.callbacks.Callback):  # type: ignore[misc]  # keras is untyped
    """Report a run's steps, not more often than every EVERY_S, and each epoch's end."""

    def __init__(
        self,
        report: Callable[[Progress], None],
        epochs: int,
        *,
        steps: int,
        first_epoch: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Report a run.

        Args:
            report: gets each Progress.
            epochs: of the whole run.
            steps: of an epoch. first_epoch: how many epochs an earlier process has finished.
            clock: in seconds.
        """
        super().__init__()
        self._report = report
        self._epochs = epochs
        self._steps = steps
        self._first_epoch = first_epoch
        self._clock = clock
        self._epoch = first_epoch
        self._step = 0
        self._figures: Mapping[str, Any] = {}
        self._began = self._reported_at = clock()
        self._untimed = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002 -- Keras' signature
        """Keep which epoch it is, from 0."""
        self._epoch, self._step = epoch, 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Report if it is time. What `logs` holds is read only then: reading it waits for the step to end."""
        self._step, self._figures = batch + 1, logs or {}
        if self._done() == 1 and self._steps > 1:  # a run's first step takes seconds that no other one takes
            self._began = self._reported_at = self._clock()
            self._untimed = 1
        else:
            self._report_if_due()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Report if it is time: validation may take long too."""
        self._report_if_due()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Report the finished epoch."""
        self._figures = logs or {}
        self._tell()

    def _report_if_due(self) -> None:
        if self._clock() - self._reported_at >= EVERY_S:
            self._tell()

    def _tell(self) -> None:
        self._reported_at = self._clock()
        timed = self._done() - self._untimed
        left = (self._epochs - self._first_epoch) * self._steps - self._done()
        self._report(
            Progress(
                epoch=self._epoch + 1,
                epochs=self._epochs,
                step=self._step,
                steps=self._steps,
                loss=float(self._figures["loss"]),
                accuracy=float(self._figures["accuracy"]),
                validation_loss=_float_or_none(self._figures.get("val_loss")),
                validation_accuracy=_float_or_none(self._figures.get("val_accuracy")),
                seconds_left=round((self._reported_at - self._began) / timed * left, 1),
            )
        )

    def _done(self) -> int:
        """Return how many steps this process has done."""
        return (self._epoch - self._first_epoch) * self._steps + self._step


def _float_or_none(value: Any) -> float | None:
    return None if value is None else float(value)
