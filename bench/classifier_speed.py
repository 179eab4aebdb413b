"""Measure how long a classifier takes for a face in batches of 1 to 128, on the CPU and, where there is one, on a GPU.

    python -m bench.classifier_speed [--model FOLDER] [--runtime int8] [--batch 1] [--threads 1]

In: a model folder; the built-in one if none is given. Out: a line for each batch with milliseconds a face of the int8
network on the CPU, of its float32 form on the CPU, and of its float16 form on CUDA. A runtime that this machine has not
is left out with a line on stderr; one that was asked for fails with status 1.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import click
import numpy as np

from models.card import RESTORE
from models.classifier.card import DEFAULT_FOLDER, INT8_NAME, Card, read_card
from models.classifier.float_graph import to_float
from models.classifier.mask_classifier import ClassifierFailed, load_classifier
from models.classifier.onnx_runtime import Classify, load_onnx
from models.files import ModelUnusable, read_checked
from pipeline.vision.arrays import Image

RUNTIMES = ("int8", "float", "cuda")
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
WARM_UP_CALLS = 2
MIN_CALLS, MIN_TIME_S = 5, 1.0  # of each measurement, whichever takes longer


@click.command()
@click.option("--model", type=click.Path(exists=True, file_okay=False, path_type=Path), default=DEFAULT_FOLDER)
@click.option("--runtime", "runtimes", type=click.Choice(RUNTIMES), multiple=True, help="Default: all.")
@click.option("--batch", "batches", type=click.IntRange(1, BATCHES[-1]), multiple=True, default=BATCHES)
@click.option("--threads", type=click.IntRange(1, 64), default=1, show_default=True)
def main(model: Path, runtimes: tuple[str, ...], batches: tuple[int, ...], threads: int) -> None:
    """Print the milliseconds a face of a classifier."""
    try:
        found = measure_speed(model, runtimes, batches, threads)
    except (ModelUnusable, ClassifierFailed) as error:
        raise click.ClickException(str(error)) from error
    click.echo("batch".rjust(6) + "".join(f"{runtime} ms".rjust(12) for runtime in found))
    for number, batch in enumerate(batches):
        click.echo(str(batch).rjust(6) + "".join(f"{times[number]:.3f}".rjust(12) for times in found.values()))


def measure_speed(
    folder: Path, runtimes: Sequence[str] = (), batches: Sequence[int] = BATCHES, threads: int = 1
) -> dict[str, list[float]]:
    """Return milliseconds a face for each batch, by runtime. runtimes: none for those that this machine has.

    Raises:
        ModelUnusable, ClassifierFailed: the model, or a runtime that was asked for, cannot be used.
    """
    card = read_card(folder)
    found = {runtime: loaded(folder, card, runtime, threads) for runtime in runtimes or RUNTIMES[:2]}
    if not runtimes:
        found |= cuda_if_there(folder, card, threads)
    noise = np.random.default_rng(0).integers(0, 256, (max(batches), card.size_px, card.size_px, 3), np.uint8)
    return {runtime: [ms_a_face(classify, noise[:batch]) for batch in batches] for runtime, classify in found.items()}


def loaded(folder: Path, card: Card, runtime: str, threads: int) -> Classify:
    """Return the function of a model folder's int8 network with a runtime."""
    if runtime == "cuda":
        return load_classifier(folder, "cuda", threads).mask_probability
    if INT8_NAME not in card.files:
        raise ModelUnusable(f"{folder} has no {INT8_NAME}: choose a run folder of training")
    content = read_checked(folder / INT8_NAME, card.files[INT8_NAME], remedy=RESTORE)
    return load_onnx(content if runtime == "int8" else to_float(content, INT8_NAME, np.float32), threads)


def cuda_if_there(folder: Path, card: Card, threads: int) -> dict[str, Classify]:
    """Return the runtime cuda, or nothing after a line on stderr that says why."""
    try:
        return {"cuda": loaded(folder, card, "cuda", threads)}
    except (ModelUnusable, ClassifierFailed) as error:
        click.echo(f"cuda is not measured: {error}", err=True)
        return {}


def ms_a_face(classify: Classify, crops: Image) -> float:
    """Return the median time of calls with these crops, in milliseconds for each of them."""
    took_s: list[float] = []
    for _ in range(WARM_UP_CALLS):
        classify(crops)
    while len(took_s) < MIN_CALLS or sum(took_s) < MIN_TIME_S:
        before = time.perf_counter()
        classify(crops)
        took_s.append(time.perf_counter() - before)
    return 1000 * median(took_s) / len(crops)


if __name__ == "__main__":
    main()
