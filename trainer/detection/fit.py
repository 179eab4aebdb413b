"""Train YuNet on, epoch by epoch, so that it can continue after an interruption.

In: pictures (pictures.py) and a recipe. Out: the network with the moving average of its weights, blended with the
published ones, and the figures of all epochs. Nothing is chosen by the validation pictures. The same seed, data and
thread count give the same weights on a CPU, interrupted or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from models.detector.face_detector import FaceDetector, yunet_candidates
from trainer.data.decoding import clip_frames, decode_picture
from trainer.data.published_detector import read_published
from trainer.detection.batches import CanvasBatches, steps_of
from trainer.detection.canvases import SERVED_PX
from trainer.detection.pictures import DetectionData, MeasuredPicture
from trainer.detection.precision import SERVED_SCORE, FoundBoxes, detection_figures
from trainer.detection.yunet_training import YunetTraining
from trainer.fitting.average import MovingAverage
from trainer.fitting.checkpoint import Checkpoint, RunOrigin
from trainer.fitting.progress import AVERAGE_PRECISION, Progress, ReportProgress
from trainer.networks.yunet import blend, load_weights, with_weights
from trainer.settings import Recipe

# Average precision counts boxes from this score on.
LOWEST_SCORE = 0.02
# Of the published weights in the result: it gives back bare faces that training on mostly masked ones loses.
KEPT_SHARE = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorEpoch:
    """One epoch of training: the mean loss, and the average precision on validation pictures, 0..1."""

    epoch: int
    loss: float
    average_precision: float


def fit_detector(
    data: DetectionData,
    origin: RunOrigin,
    checkpoint: Checkpoint[DetectorEpoch],
    report: Callable[[Progress], None],
) -> tuple[bytes, tuple[DetectorEpoch, ...]]:
    """Train from the checkpoint or from the published weights; return the ONNX file and the figures of all epochs.

    Args:
        checkpoint: of the run folder; written after each epoch.
        report: gets each Progress; what it raises ends the training.

    Raises:
        ValueError: the checkpoint belongs to another run or is damaged, or an epoch has no finite loss.
        ModelUnusable: the published file is missing or damaged.
    """
    recipe, epochs = origin.recipe, checkpoint.epochs_of(origin)
    steps = steps_of(data.training, recipe.batch)
    network = YunetTraining(recipe.size_px)
    load_weights(network.yunet, read_published())
    _compile(network, recipe, steps)
    average = MovingAverage(network, float(recipe.ema_decay or 0), steps_done=len(epochs) * steps)
    state = [*network.variables, *network.optimizer.variables, *average.variables]
    if epochs:
        checkpoint.restore(state)
    ending = _EndEpoch(checkpoint, state, origin, epochs, average, data.validation)
    batches = CanvasBatches(
        data.training, batch=recipe.batch, size_px=recipe.size_px, seed=origin.seed, first_epoch=len(epochs)
    )
    if len(epochs) < recipe.epochs:
        network.fit(
            batches,
            initial_epoch=len(epochs),
            epochs=recipe.epochs,
            # In this order, so that an epoch is measured and saved before it is reported as finished.
            callbacks=[average, ending, ReportProgress(report, recipe.epochs, steps=steps, first_epoch=len(epochs))],
            shuffle=False,
            verbose=0,
        )
    average.swap()
    return _blended(network), ending.epochs


def trained_detector(
    content: bytes, *, input_px: int = SERVED_PX, score_threshold: float = LOWEST_SCORE
) -> FaceDetector:
    """Return a detector from a trained ONNX file, to measure its outlines; its boxes are its outlines."""
    return FaceDetector(yunet_candidates(content, score_threshold), (input_px,))


def find_all(detector: FaceDetector, pictures: Sequence[MeasuredPicture]) -> list[FoundBoxes]:
    """Return what a detector finds in each picture."""
    found = (detector.find(decode_picture(picture.path.read_bytes())) for picture in pictures)
    return [FoundBoxes(boxes=faces.outlines, scores=faces.scores) for faces in found]


def second_faces(detector: FaceDetector, clip: Path) -> Iterator[bool]:
    """Yield for frames of a clip that shows one person whether a second, false face is found."""
    for _, frame in clip_frames(clip):
        yield int((detector.find(frame).scores >= SERVED_SCORE).sum()) > 1


def _blended(network: YunetTraining) -> bytes:
    """Return the ONNX file of a network, blended with the published one."""
    published = read_published()
    return blend(with_weights(published, network.yunet), published, KEPT_SHARE)


def _compile(network: keras.Model, recipe: Recipe, steps: int) -> None:
    """Compile a network and build its optimizer's variables."""
    warmup = max(1, round((recipe.warmup_share or 0) * recipe.epochs * steps))
    falling = max(1, recipe.epochs * steps - warmup)
    rate = keras.optimizers.schedules.CosineDecay(0.0, falling, warmup_target=recipe.learning_rate, warmup_steps=warmup)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay)
    network.compile(optimizer=optimizer, jit_compile=False)
    optimizer.build(network.trainable_variables)


class _EndEpoch(keras.callbacks.Callback):
    """After each epoch, measure the averaged weights and write the checkpoint."""

    def __init__(
        self,
        checkpoint: Checkpoint[DetectorEpoch],
        state: list[Any],
        origin: RunOrigin,
        epochs: tuple[DetectorEpoch, ...],
        average: MovingAverage,
        validation: Sequence[MeasuredPicture],
    ) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._state = state
        self._origin = origin
        self._average = average
        self._validation = validation
        self.epochs = epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        figures = {} if logs is None else logs
        loss = float(figures["loss"])
        if not math.isfinite(loss):
            rate = self._origin.recipe.learning_rate
            raise ValueError(
                f"training diverged, epoch {epoch + 1} has no finite loss: lower the learning rate ({rate:g})"
            )
        figures[AVERAGE_PRECISION] = self._average_precision()
        self.epochs += (DetectorEpoch(epoch=epoch + 1, loss=loss, average_precision=figures[AVERAGE_PRECISION]),)
        self._checkpoint.save(self._state, self._origin, self.epochs)

    def _average_precision(self) -> float:
        self._average.on_test_begin()
        try:
            content = _blended(self.model)
        finally:
            self._average.on_test_end()
        detector = trained_detector(content)
        return detection_figures(self._validation, find_all(detector, self._validation)).get("ap", 0.0)
