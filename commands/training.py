"""`maskwatch train`: data sets in, a model folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from commands.command import fail, run
from pipeline.process import configure_logging


@click.command()
@click.argument("datasets", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DATASET...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The model folder to write.")
@click.option("--arch", type=click.Choice(["lite", "resnet18", "resnet50"]), default="lite", show_default=True)
@click.option("--validation", type=click.Path(path_type=Path), help="Chooses the best epoch; default: a tenth.")
@click.option("--test", "tests", multiple=True, type=click.Path(path_type=Path), help="Measured at the end.")
@click.option("--epochs", type=click.IntRange(1, 1000), default=14, show_default=True)
@click.option("--batch", type=click.IntRange(1, 4096), default=64, show_default=True, help="Crops a step.")
@click.option("--learning-rate", type=float, help="Default: the architecture's own.")
@click.option("--size-px", type=click.IntRange(16, 512), help="Side of a crop; default: the architecture's own.")
@click.option("--weights", help="Starting weights of resnet50: imagenet, or a file.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
def train(**values: Any) -> None:
    """Train a mask classifier on folders of pictures, and measure it."""
    try:
        from trainer import train as process
    except ModuleNotFoundError as error:
        fail(f"training needs TensorFlow, which is not installed ({error}): pip install 'maskwatch[train]'", 1)
    from models.files import ModelUnusable
    from trainer.dataset import DatasetUnusable

    configure_logging(as_json=False)
    settings = process.TrainSettings(**values)

    def start() -> int:
        folder = process.train(settings, report=lambda progress: click.echo(progress.text()))
        click.echo(f"{folder / 'card.json'}: what it is and how well it does")
        return 0

    run(start, DatasetUnusable, ModelUnusable, ValueError)
