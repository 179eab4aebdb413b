"""`maskwatch label`: a file or folder in, JSON lines, pictures or a video out; every frame is labelled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from commands.command import COMMON, PIPELINE, check_model, common_flags, fail, prepare, run
from pipeline.bus.connection import check_reachable, connect, hide_password
from pipeline.runtime.children import Children, start_workers, supervised
from pipeline.runtime.embedded_server import embedded_server
from pipeline.runtime.settings import Settings, options


@click.command()
@click.argument("source")
@click.option("--json", "json_path", metavar="FILE", help="Write a JSON line for each frame; - for stdout.")
@click.option("--out", "out_path", type=click.Path(path_type=Path), help="Write labelled pictures or a labelled video.")
@click.option("--resume", is_flag=True, help="Go on after the last whole line of --json.")
@options(*COMMON, *PIPELINE, "jpeg_quality", "seed")
def label(source: str, json_path: str | None, out_path: Path | None, resume: bool, **values: Any) -> None:
    """Label every frame of a video file, or every picture of a folder."""
    from models.files import ModelUnusable
    from pipeline.bus.leases import NameTaken
    from pipeline.bus.writer import NameLost
    from producer.files import label as process
    from producer.files.outputs import BadOutput
    from producer.sources.source import SourceFailed

    if click.get_current_context().get_parameter_source("log_level") is ParameterSource.DEFAULT:
        values["log_level"] = "warning"  # a progress bar and a summary are what this command says
    settings = prepare(values)
    if json_path is None and out_path is None:
        fail("nothing to write: give --json FILE, --out FOLDER or --out VIDEO.mp4", 2)
    if resume and json_path in (None, "-"):
        fail("--resume goes on from the lines of --json FILE: name the file", 2)
    run(
        lambda: label_all(process, settings, source, json_path, out_path, resume),
        SourceFailed,
        BadOutput,
        NameTaken,
        NameLost,
        ModelUnusable,
        process.NoWorkers,
    )


def label_all(
    process: Any,
    settings: Settings,
    source_text: str,
    json_path: str | None,
    out_path: Path | None,
    resume: bool,
) -> int:
    """Label a source with workers of our own, or with those of the Redis that was named."""
    from producer.files.outputs import BadOutput, Outputs
    from producer.sources.open_source import open_source
    from producer.sources.source import SourceFailed

    source = open_source(source_text, seed=settings.seed)
    if source.is_live or source.kind == "demo":
        raise SourceFailed(
            f"{hide_password(source_text)} never ends: `maskwatch camera` watches it, label takes files and folders"
        )
    outputs = Outputs(source, hide_password(source_text), json_path=json_path, out_path=out_path, resume=resume)
    complete = False
    try:
        if settings.redis_url:
            check_reachable(connect(settings.redis_url), settings.redis_url)
            summary = process.main(settings, source, outputs, own_workers=False)
        else:
            check_model(settings)
            with embedded_server() as server, Children() as children:
                common = common_flags(settings, server.url)
                cores = os.cpu_count() or 1
                start_workers(children, settings, common, detectors=cores, classifiers=max(1, cores // 2))
                own = msgspec.structs.replace(settings, redis_url=server.url)
                server.wait()
                with supervised(children):
                    summary = process.main(own, source, outputs, own_workers=True)
        complete = not summary.interrupted
    finally:
        source.close()
        outputs.close(complete=complete)
    rate = summary.frames / summary.seconds if summary.seconds > 0 else 0.0
    click.echo(
        f"{summary.frames} frames, {summary.faces} faces: {summary.masks} with a mask, "
        f"{summary.faces - summary.masks} without; {summary.errors} frames could not be labelled; "
        f"{summary.seconds:.1f} s, {rate:.1f} frames/s",
        err=True,
    )
    if summary.interrupted:
        raise BadOutput("stopped before the end" + ("; --resume goes on" if json_path not in (None, "-") else ""))
    return 1 if summary.errors else 0
