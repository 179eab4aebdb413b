"""`maskwatch label`: a file or folder in, JSON lines, pictures or a video out; every frame is labelled."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from click.core import ParameterSource

from commands.errors import fail
from commands.shared import (
    COMMON,
    PIPELINE,
    check_models,
    parsed_source,
    prepare_process,
    redis_server,
    run_process,
)
from pipeline.runtime.children import Children, environment_of, fork_server, start_workers, supervised
from pipeline.runtime.cores import available_cores
from pipeline.runtime.settings import Settings, setting_options

if TYPE_CHECKING:
    from pipeline.runtime.fork_server import ForkServer
    from producer.files.outputs import Outputs
    from producer.sources.source import Source
    from producer.sources.source_spec import SourceSpec

# Of 1280x720 with 7 faces a frame, a sender delivers 270 frames/s, and workers label 50 on one core.
MAX_WORKERS = 6


@click.command()
@click.argument("source")
@click.option("--json", "json_path", metavar="FILE", help="Write a JSON line for each frame; - for stdout.")
@click.option("--out", "out_path", type=click.Path(path_type=Path), help="Write labelled pictures or a labelled video.")
@click.option("--recursive", is_flag=True, help="Also label the pictures of the folders in a folder.")
@click.option("--resume", is_flag=True, help="Continue after the last complete line of --json.")
@setting_options(*COMMON, *PIPELINE, "relabel_s", "jpeg_quality", "shared_memory", "seed")
def label(
    source: str, json_path: str | None, out_path: Path | None, recursive: bool, resume: bool, **values: Any
) -> None:
    """Label every frame of a video file, or every picture of a folder."""
    from models.files import ModelUnusable
    from pipeline.bus.leases import NameTaken
    from pipeline.bus.writer import NameLost
    from producer.files.label import NoWorkers
    from producer.files.video_out import BadOutput
    from producer.sources.source import SourceFailed

    if click.get_current_context().get_parameter_source("log_level") is ParameterSource.DEFAULT:
        values["log_level"] = "warning"  # this command has a progress bar and a summary instead
    settings = prepare_process(values)
    if json_path is None and out_path is None:
        fail("nothing to write: give --json FILE, --out FOLDER or --out VIDEO.mp4", 2)
    if resume and json_path in (None, "-"):
        fail("--resume needs --json FILE", 2)
    spec = replace(parsed_source(source), recursive=recursive)
    run_process(
        lambda: label_all(settings, spec, json_path, out_path, resume),
        SourceFailed,
        BadOutput,
        NameTaken,
        NameLost,
        ModelUnusable,
        NoWorkers,
    )


def label_all(settings: Settings, spec: SourceSpec, json_path: str | None, out_path: Path | None, resume: bool) -> int:
    """Label a source, print a summary and return the exit status."""
    from producer.files.outputs import Outputs
    from producer.files.video_out import BadOutput
    from producer.sources.source import SourceFailed

    with contextlib.ExitStack() as stack:
        # it imports while this process does, to open the source
        forks = None if settings.redis_url else stack.enter_context(fork_server())
        source = stack.enter_context(contextlib.closing(spec.open(seed=settings.seed)))
        if source.is_live or spec.kind == "demo":
            raise SourceFailed(f"{spec.name} is a live source: use `maskwatch camera`; label takes files and folders")
        outputs = Outputs(spec, json_path=json_path, out_path=out_path, resume=resume)
        complete = False
        try:
            seconds, complete = label_source(settings, source, outputs, forks)
        finally:
            outputs.close(complete=complete)
    click.echo(
        f"{outputs.frames} frames, {outputs.faces} faces: {outputs.masks} with a mask, "
        f"{outputs.faces - outputs.masks} without; {outputs.errors} frames could not be labelled; "
        f"{seconds:.1f} s, {outputs.frames / max(seconds, 1e-9):.1f} frames/s",
        err=True,
    )
    if not complete:
        raise BadOutput("stopped before the end" + ("; --resume continues" if json_path not in (None, "-") else ""))
    return 1 if outputs.errors else 0


def label_source(settings: Settings, source: Source, outputs: Outputs, forks: ForkServer | None) -> tuple[float, bool]:
    """Label with the workers of the Redis that the settings name, or with child processes that `forks` starts.

    Returns:
        how long it took, seconds, and whether the whole source was labelled.
    """
    from producer.files import label as process

    if settings.redis_url:
        with redis_server(settings):
            return process.main(settings, source, outputs, own_workers=False)
    check_models(settings)
    with redis_server(settings) as server, Children(forks) as children:
        environment = environment_of(settings, server.url)
        count = worker_count(available_cores(), source.total)
        start_workers(children, settings, environment, detectors=count, classifiers=count)
        server.wait()
        with supervised(children):
            own = msgspec.structs.replace(settings, redis_url=server.url)
            return process.main(own, source, outputs, own_workers=True)


def worker_count(cores: int, frames: int | None) -> int:
    """Return how many detectors, and as many classifiers, label a source, so that each kind can use all cores.

    Args:
        cores: that may be used.
        frames: of the source; None when unknown.
    """
    return max(1, min(cores, MAX_WORKERS, frames or MAX_WORKERS))
