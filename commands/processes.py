"""`maskwatch camera`, `detect`, `classify`, `record` and `view`: the pipeline's processes, each started by itself.

Settings in; the process runs in the foreground until SIGTERM or Ctrl-C, and its exit status is the command's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from commands.errors import EndAtOnce, fail
from commands.password import check_access
from commands.shared import (
    CAMERA,
    COMMON,
    RECORD,
    VIEW,
    check_camera_name,
    check_database,
    check_recording,
    parsed_source,
    process_settings,
    run_process,
)
from pipeline.runtime.children import CLASSIFY_FLAGS, DETECT_FLAGS
from pipeline.runtime.settings import Settings, setting_options

if TYPE_CHECKING:
    from viewer.api.reading import JobListing


@click.command()
@click.argument("source", envvar="MASKWATCH_SOURCE")
@setting_options(*COMMON, "name", *CAMERA)
def camera(source: str, **values: Any) -> None:
    """Publish frames of SOURCE: 0, a video file, a folder, rtsp://, http:// or demo.

    Without SOURCE it is read from MASKWATCH_SOURCE, which other users of this machine cannot see.
    """
    from pipeline.bus.leases import NameLost, NameTaken
    from producer import camera as process
    from producer.sources.source import SourceFailed

    settings = process_settings(values)
    if settings.name is None:
        fail("--name is missing: give the camera a name, for example --name door", 2)
    check_camera_name(settings.name, "--name")
    spec = parsed_source(source)
    run_process(lambda: process.main(settings, spec), SourceFailed, NameTaken, NameLost)


@click.command()
@setting_options(*COMMON, *DETECT_FLAGS)
def detect(**values: Any) -> None:
    """Find faces in frames; start more to go faster."""
    from models.files import ModelUnusable
    from workers import detect as process

    settings = process_settings(values)
    run_process(lambda: process.main(settings), ModelUnusable)


@click.command()
@setting_options(*COMMON, *CLASSIFY_FLAGS)
def classify(**values: Any) -> None:
    """Label faces in batches; start more to go faster."""
    from models.files import ModelUnusable
    from workers import classify as process

    settings = process_settings(values)
    run_process(lambda: process.main(settings), ModelUnusable)


@click.command()
@setting_options(*COMMON, *RECORD)
def record(**values: Any) -> None:
    """Record events by rules, and deliver them; several may run, one of them works."""
    from events import recorder as process
    from events.locations import BadDatabase

    settings = process_settings(values)
    check_recording(settings)
    run_process(lambda: process.main(settings), BadDatabase)


@click.command()
@setting_options(*COMMON, *VIEW)
def view(**values: Any) -> None:
    """Show labelled live video in a browser."""
    from viewer import app as process
    from viewer.serving.listening import PortInUse

    settings = process_settings(values)
    check_access(settings)
    check_database(settings)
    run_process(lambda: process.main(settings, job_listing(settings)), PortInUse, end=EndAtOnce)


def job_listing(settings: Settings) -> JobListing | None:
    """Return how a viewer lists training jobs; None in a cluster, which cannot hold any."""
    from pipeline.bus.connection import CLUSTER, connect
    from trainer.jobs.job_list import TrainingRun, list_jobs
    from viewer.api.reading import JobListing

    url = settings.jobs_redis or settings.redis_url or ""
    if url.partition("://")[0] in CLUSTER:
        return None
    client = connect(url)
    return JobListing(record_type=TrainingRun, read=lambda: list_jobs(client))
