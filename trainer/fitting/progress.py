"""Report the progress of a training run: Keras' callbacks in, a Progress about once a second out.

An exception of the listener passes through Keras and ends the training; this is how a run is cancelled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
from msgspec import Struct

AVERAGE_PRECISION = "average_precision"  # a figure that a detector's training adds to Keras' logs
INTERVAL_S = 1.0  # at least; the clock is only read after a step


class Progress(Struct, frozen=True, kw_only=True):
    """The progress of a run. Losses are means; accuracies and average precision 0..1.

    epoch: the current or just finished one, from 1. step: of the epoch, from 1.
    loss, accuracy: means of the epoch so far.
    validation_loss, validation_accuracy: of the finished epoch; None during an epoch. average_precision: likewise, of a
    detector, which has none of the other three.
    seconds_left: of training, estimated from the steps so far; without measuring and exporting.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    average_precision: float | None = None
    seconds_left: float

    @property
    def is_epoch_end(self) -> bool:
        """Whether the epoch is finished and its checkpoint written."""
        return self.validation_loss is not None or self.average_precision is not None

    def text(self) -> str:
        """Return the progress as one line of text."""
        where = f"epoch {self.epoch} of {self.epochs}"
        left = (
            f"{self.seconds_left / 60:.0f} min left" if self.seconds_left >= 90 else f"{self.seconds_left:.0f} s left"
        )
        trained = f"loss {self.loss:.3f}" + ("" if self.accuracy is None else f", accuracy {self.accuracy:.1%}")
        if self.average_precision is not None:
            return f"{where}: {trained}; on validation pictures average precision {self.average_precision:.3f}; {left}"
        if self.validation_loss is None or self.validation_accuracy is None:
            return f"{where}, step {self.step} of {self.steps}: {trained}, {left}"
        return (
            f"{where}: {trained}; on validation pictures "
            f"loss {self.validation_loss:.3f}, accuracy {self.validation_accuracy:.1%}; {left}"
        )


class ReportProgress(keras.callbacks.Callback):
    """Report a run's steps, at most every INTERVAL_S, and each epoch's end."""

    def __init__(
        self,
        report: Callable[[Progress], None],
        epochs: int,
        *,
        steps: int,
        first_epoch: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Report a run of `epochs`, of which earlier processes have finished `first_epoch`."""
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

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the epoch, from 0."""
        self._epoch, self._step = epoch, 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Report if it is due. `logs` is read only then, because reading its values waits for the step to end."""
        self._step, self._figures = batch + 1, logs or {}
        if self._done() == 1 and self._steps > 1:  # the first step includes seconds of set-up
            self._began = self._reported_at = self._clock()
            self._untimed = 1
        else:
            self._report_if_due()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Report if it is due: validation may take long too."""
        self._report_if_due()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Report the finished epoch."""
        self._figures = logs or {}
        self._report_now()

    def _report_if_due(self) -> None:
        if self._clock() - self._reported_at >= INTERVAL_S:
            self._report_now()

    def _report_now(self) -> None:
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
                accuracy=self._figure("accuracy"),
                validation_loss=self._figure("val_loss"),
                validation_accuracy=self._figure("val_accuracy"),
                average_precision=self._figure(AVERAGE_PRECISION),
                seconds_left=round((self._reported_at - self._began) / timed * left, 1),
            )
        )

    def _done(self) -> int:
        """Return the number of steps of this process."""
        return (self._epoch - self._first_epoch) * self._steps + self._step

    def _figure(self, name: str) -> float | None:
        return float(self._figures[name]) if name in self._figures else None
