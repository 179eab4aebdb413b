"""`maskwatch label`: a file or folder in, JSON lines, pictures or a video out; every frame is labelled."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click
import msgspec
from click.core import ParameterSource

from commands.errors import EndAtOnce, fail
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
from pipeline.runtime.embedded_server import embedded_server
from pipeline.runtime.settings import Settings, flag_of, setting_options

if TYPE_CHECKING:
    from pipeline.runtime.embedded_server import StartingServer
    from pipeline.runtime.fork_server import ForkServer
    from producer.files.outputs import Outputs
    from producer.sources.source import Source
    from producer.sources.source_spec import SourceSpec

    OwnProcesses: TypeAlias = tuple[ForkServer, StartingServer]

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
    if click.get_current_context().get_parameter_source("log_level") is ParameterSource.DEFAULT:
        values["log_level"] = "warning"  # this command has a progress bar and a summary instead
    settings = prepare_process(values)
    if settings.redis_url and (ignored := [name for name in PIPELINE if _is_flag(name)]):
        flags = ", ".join(map(flag_of, ignored))
        fail(f"{flags}: with a Redis that was named, its own workers label: leave them out, or --redis", 2)
    if json_path is None and out_path is None:
        fail("nothing to write: give --json FILE, --out FOLDER or --out VIDEO.mp4", 2)
    if resume and json_path in (None, "-"):
        fail("--resume needs --json FILE", 2)
    spec = replace(parsed_source(source), recursive=recursive)
    run_process(lambda: start_label(settings, spec, json_path, out_path, resume), end=EndAtOnce)


def _is_flag(name: str) -> bool:
    """Return whether a setting was given on the command line."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def start_label(
    settings: Settings, spec: SourceSpec, json_path: str | None, out_path: Path | None, resume: bool
) -> int:
    """Start what labels while this process imports what it needs itself; then label, and return the exit status.

    The classes of the errors that end it with one line come with these imports.
    """
    with contextlib.ExitStack() as stack:
        own = None
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy would start threads in each process, for nothing
        if not settings.redis_url:
            own = stack.enter_context(fork_server()), stack.enter_context(embedded_server())

        from models.files import ModelUnusable
        from pipeline.bus.leases import NameLost, NameTaken
        from producer.files.label import NoWorkers
        from producer.files.video_out import BadOutput
        from producer.sources.source import SourceFailed

        try:
            return label_all(settings, spec, json_path, out_path, resume, own)
        except (SourceFailed, BadOutput, NameTaken, NameLost, ModelUnusable, NoWorkers) as error:
            fail(str(error), 1)


def label_all(
    settings: Settings,
    spec: SourceSpec,
    json_path: str | None,
    out_path: Path | None,
    resume: bool,
    own: OwnProcesses | None,
) -> int:
    """Label a source, print a summary and return the exit status. own: see label_source."""
    from producer.files.outputs import Outputs
    from producer.files.video_out import BadOutput
    from producer.sources.source import SourceFailed

    with contextlib.closing(spec.open(seed=settings.seed)) as source:
        if source.is_live or spec.kind == "demo":
            raise SourceFailed(f"{spec.name} is a live source: use `maskwatch camera`; label takes files and folders")
        outputs = Outputs(spec, json_path=json_path, out_path=out_path, resume=resume)
        complete = False
        try:
            seconds, complete = label_source(settings, source, outputs, own)
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


def label_source(settings: Settings, source: Source, outputs: Outputs, own: OwnProcesses | None) -> tuple[float, bool]:
    """Label with the Redis that the settings name and its workers, or with others that end with this command.

    own: what starts these workers, and their Redis, which is starting; None if the settings name one.

    Returns:
        how long it took, seconds, and whether the whole source was labelled.
    """
    from producer.files import label as process

    if own is None:
        with redis_server(settings):
            return process.main(settings, source, outputs, own_workers=False)
    check_models(settings)
    forks, server = own
    with Children(forks) as children:
        environment = environment_of(settings, server.url)
        count = worker_count(available_cores(), source.total)
        start_workers(children, settings, environment, detectors=count, classifiers=count)
        server.wait()
        with supervised(children):
            settings = msgspec.structs.replace(settings, redis_url=server.url)
            seconds, complete = process.main(settings, source, outputs, own_workers=True)
        if complete:
            children.kill()  # they hold nothing, and would first end waiting for frames
        return seconds, complete


def worker_count(cores: int, frames: int | None) -> int:
    """Return how many detectors, and as many classifiers, label a source, so that each kind can use all cores.

    Args:
        cores: that may be used.
        frames: of the source; None when unknown.
    """
    return max(1, min(cores, MAX_WORKERS, frames or MAX_WORKERS))
