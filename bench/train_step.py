"""Measure what a training step costs: networks as Keras builds them, in the form that is trained, in mixed precision.

    python -m bench.train_step [--arch lite] [--size-px 112] [--batch 64]

Out: a line for each architecture with milliseconds a face, the median of steps in turn, and how much faster the forms
are than the network itself. On random pictures: a step's time does not depend on them. Reading and augmenting faces is
not part of it.
"""

from __future__ import annotations

import time
from statistics import median

import click
import keras
import numpy as np

from trainer.fitting.repeatable import make_repeatable
from trainer.fitting.training_form import training_form
from trainer.networks.architectures import build_network
from trainer.settings import RANDOM, RECIPES

WARM_UP_STEPS, STEPS = 2, 10  # of each form


@click.command()
@click.option("--arch", "archs", type=click.Choice(tuple(RECIPES)), multiple=True, default=tuple(RECIPES))
@click.option("--size-px", type=click.IntRange(32, 512), default=112, show_default=True)
@click.option("--batch", type=click.IntRange(2, 512), default=64, show_default=True)
def main(archs: tuple[str, ...], size_px: int, batch: int) -> None:
    """Print the milliseconds a face of a training step."""
    click.echo("ms a face".ljust(16) + "Keras".rjust(10) + "float32".rjust(20) + "mixed precision".rjust(20))
    for arch in archs:
        plain, fused, mixed = (1e3 * seconds / batch for seconds in _step_times(arch, size_px, batch))
        cells = (f"{ms:.1f} (x {plain / ms:.2f})".rjust(20) for ms in (fused, mixed))
        click.echo(arch.ljust(16) + f"{plain:.1f}".rjust(10) + "".join(cells))


def _step_times(arch: str, size_px: int, batch: int) -> list[float]:
    """Return the median seconds of a step: of the network itself, its training form, and that in mixed precision."""
    make_repeatable(0, None)
    network = build_network(arch, size_px, weights=RANDOM)
    forms = [network, *(training_form(network, mixed_precision=mixed) for mixed in (False, True))]
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (batch, size_px, size_px, 3), np.uint8)
    labels = rng.integers(0, 2, (batch, 1)).astype(np.float32)
    for form in forms:
        form.compile(optimizer=keras.optimizers.AdamW(), loss="binary_crossentropy", jit_compile=False)
    times: list[list[float]] = [[] for _ in forms]
    for step in range(WARM_UP_STEPS + STEPS):
        for form, of_form in zip(forms, times, strict=True):
            start = time.perf_counter()
            form.train_on_batch(pictures, labels)
            if step >= WARM_UP_STEPS:
                of_form.append(time.perf_counter() - start)
    return [median(of_form) for of_form in times]


if __name__ == "__main__":
    main()
