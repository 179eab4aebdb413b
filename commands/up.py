"""`maskwatch demo` and `maskwatch up`: cameras in; Redis, workers, cameras, viewer, recorder as child processes, out.

Events of `demo` are in the folder of its server, which is removed with it; those of `up`, and of a `demo` with a Redis
that the user names, in the folder of the user's data.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from commands import shared
from commands.errors import EndAtOnce, fail
from commands.password import check_access
from commands.shared import CAMERA, PIPELINE, RECORD, STARTERS, VIEW
from pipeline.bus.connection import hide_password
from pipeline.bus.messages import is_camera_name
from pipeline.runtime.children import (
    SUPERVISE_INTERVAL_S,
    Children,
    environment_of,
    flags_of,
    fork_server,
    start_workers,
)
from pipeline.runtime.embedded_server import keep_server
from pipeline.runtime.fork_server import serve_forks
from pipeline.runtime.logs import configure_logging, is_json
from pipeline.runtime.running_pipelines import RunningPipeline, announced
from pipeline.runtime.settings import Settings, setting_options
from pipeline.runtime.stop_signals import calling_on_stop_signals
from pipeline.runtime.worker_pool import WorkerPool, adjust_pools, reading_heartbeats

if TYPE_CHECKING:
    from producer.sources.source_spec import SourceSpec

FILE_AND_NETWORK = ("loop", "rtsp_transport", "hwaccel")  # settings of sources that the demo does not have


@click.command()
@setting_options(
    *dict.fromkeys((*STARTERS, *VIEW, "record", *RECORD, *PIPELINE)),
    *(name for name in CAMERA if name not in FILE_AND_NETWORK),
)
def demo(**values: Any) -> None:
    """Run everything on this machine, with a simulated camera; print the page's address."""
    run_pipeline(shared.prepare_process(values), {"demo": shared.parsed_source("demo")})


@click.command()
@click.option(
    "--camera",
    "cameras",
    multiple=True,
    envvar="MASKWATCH_CAMERAS",
    metavar="NAME=SOURCE",
    help="A camera; may be given several times. Without it: MASKWATCH_CAMERAS, separated by spaces.",
)
@setting_options(*dict.fromkeys((*STARTERS, *VIEW, "record", *RECORD, *PIPELINE, *CAMERA)))
def up(cameras: tuple[str, ...], **values: Any) -> None:
    """Run everything on this machine with your own cameras."""
    settings = shared.prepare_process(values)
    run_pipeline(settings, parsed_cameras(cameras))


@click.command("fork-children", hidden=True)
@setting_options("parent_fd")
def fork_children(parent_fd: int) -> None:
    """Run the fork server of `demo`, `up` and `label`."""
    configure_logging(as_json=is_json())
    serve_forks(parent_fd)


@click.command("serve-embedded", hidden=True)
@click.argument("folder", type=click.Path(path_type=Path))
@setting_options("parent_fd")
def serve_embedded(folder: Path, parent_fd: int) -> None:
    """Run the embedded server of `demo`, `up` and `label`."""
    configure_logging(as_json=is_json())
    raise EndAtOnce(keep_server(folder, parent_fd))


def parsed_cameras(cameras: Sequence[str]) -> dict[str, SourceSpec]:
    """Return the sources of texts NAME=SOURCE by name, or end with status 2 and one line."""
    sources: dict[str, SourceSpec] = {}
    for text in cameras:
        name, _, source = text.partition("=")
        if not is_camera_name(name) or not source:  # it may be a URL, whose "=" is in its password or parameters
            fail(
                f"--camera {hide_password(text)}: write NAME=SOURCE, for example door=rtsp://camera.lan/stream, with "
                "at most 32 of a-z 0-9 - in the name",
                2,
            )
        shared.check_camera_name(name, "--camera")
        if name in sources:
            fail(f"--camera {name}: the name is given twice", 2)
        sources[name] = shared.parsed_source(source, f"--camera {name}: ")
    return sources


def run_pipeline(settings: Settings, sources: dict[str, SourceSpec]) -> None:
    """Run server, workers, cameras, viewer and recorder until SIGTERM or Ctrl-C. sources: by the camera's name."""
    check_access(settings)
    if settings.record:
        shared.check_recording(settings)
    stop = threading.Event()

    from models.files import ModelUnusable
    from viewer.serving.listening import PortInUse, listen

    def start() -> int:
        listen(settings.host, settings.port).close()
        shared.check_models(settings)
        with fork_server() as forks, shared.redis_server(settings) as server, Children(forks) as children:
            told = with_database(settings, server.folder)
            environment = environment_of(told, server.url)
            children.start("view", *flags_of(settings, *VIEW), environment=environment)  # it takes longest to start
            for name, source in sources.items():
                flags = flags_of(settings, *CAMERA)
                own = environment | {"MASKWATCH_SOURCE": source.text}  # its URL may hold a password
                children.start("camera", "--name", name, *flags, environment=own, required=source.kind == "demo")
            start_workers(children, settings, environment, detectors=1, classifiers=1)
            if settings.record:
                children.start("record", *flags_of(settings, *RECORD), environment=environment, required=False)
            try:
                server.wait()
            except KeyboardInterrupt:
                return 0
            found = running_pipeline(told, server.url, list(sources))
            fixed = {"detector": settings.detectors, "classifier": settings.classifiers}
            pools = [WorkerPool(children, role) for role, count in fixed.items() if count is None]
            with reading_heartbeats(server.url) as beats, announced(found):
                while not stop.wait(SUPERVISE_INTERVAL_S):
                    children.supervise()
                    adjust_pools(pools, beats)
        return 0

    with calling_on_stop_signals(stop.set):
        shared.run_process(start, ModelUnusable, PortInUse)


def running_pipeline(settings: Settings, redis_url: str, cameras: list[str]) -> RunningPipeline:
    """Return what other commands need to find this pipeline. cameras: their names."""
    models = settings.models
    return RunningPipeline(
        pid=os.getpid(),
        command=click.get_current_context().info_name or "up",
        redis_url=redis_url,
        embedded=settings.redis_url is None,
        cameras=cameras,
        models=str(Path(models).absolute()) if models and "://" not in models else models,
        host=settings.host,
        port=settings.port,
        database=settings.database,
    )


def with_database(settings: Settings, folder: Path | None) -> Settings:
    """Return the settings with the database of events: of `demo` in the folder of its server, unless they name one."""
    from events.locations import database_url, sqlite_url

    if not settings.record:
        return msgspec.structs.replace(settings, database=None)
    is_temporary = settings.database is None and folder is not None and click.get_current_context().info_name == "demo"
    url = sqlite_url(folder / "events.db") if folder and is_temporary else database_url(settings.database)
    return msgspec.structs.replace(settings, database=url)
