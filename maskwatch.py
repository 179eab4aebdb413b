"""The command line: the one list of what can be started. A process is imported only when it runs.

Exit status: 0 done, 1 failed while running, 2 wrong usage or settings, 130 stopped by Ctrl-C. Errors are one line on
stderr, with what to do.
"""

from __future__ import annotations

import sys

INTERRUPTED = 130  # what shells say of a program that Ctrl-C ended
STOPPED = "maskwatch: stopped\n"

try:  # Ctrl-C ends with one line while all this is loaded, too
    import os
    import signal
    import threading
    from pathlib import Path
    from typing import Any, NoReturn

    import click
    import msgspec

    from commands.check import check
    from commands.command import (
        COMMON,
        PIPELINE,
        STARTERS,
        check_model,
        checked,
        command_line,
        common_flags,
        fail,
        prepare,
        process_settings,
        redis_of,
        run,
        server_for,
    )
    from commands.dead import dead
    from commands.health import health
    from commands.label import label
    from commands.models import models
    from commands.password import check_access, password
    from commands.training import jobs, train, trainer
    from pipeline.bus.clock import Clock
    from pipeline.bus.messages import FILE_PREFIX
    from pipeline.runtime.children import (
        CLASSIFY_FLAGS,
        DETECT_FLAGS,
        SUPERVISE_INTERVAL_S,
        Children,
        flags_of,
        start_workers,
    )
    from pipeline.runtime.embedded_server import serve
    from pipeline.runtime.logs import configure_logging, is_json
    from pipeline.runtime.settings import BadSettings, Settings, options, read_file
except KeyboardInterrupt:
    sys.stderr.write(STOPPED)
    sys.exit(INTERRUPTED)

CAMERA = ("name", "fps", "deadline_s", "jpeg_quality", "loop", "seed")
VIEW = ("host", "port", "max_viewers", "origins", "password_hash", "session_key")
# Children are told by the environment, because everybody can read their command lines.
SECRETS = ("password_hash", "session_key", "metrics_token")


def main() -> NoReturn:
    """Run the command line."""
    command_line(cli)


class Interruptible(click.Group):
    """Commands that Ctrl-C ends with one line, as long as none has set itself up to end by itself."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            sys.stderr.write(STOPPED)
            sys.exit(INTERRUPTED)


def load_config(context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    """Take defaults for every command from a TOML file."""
    if path is not None:
        try:
            values = read_file(path)
        except BadSettings as error:
            fail(str(error), 2)
        context.default_map = {name: defaults(command, values) for name, command in cli.commands.items()}


def defaults(command: click.Command, values: dict[str, Any]) -> dict[str, Any]:
    """Return what a command takes from a settings file; for a group, what each of its commands takes."""
    return dict.fromkeys(command.commands, values) if isinstance(command, click.Group) else values


@click.group(cls=Interruptible, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="MASKWATCH_CONFIG",
    callback=load_config,
    is_eager=True,
    expose_value=False,
    help="TOML file of settings; flags and MASKWATCH_ variables win.",
)
@click.version_option(package_name="maskwatch")
def cli() -> None:
    """Watch cameras for faces with and without masks."""


@cli.command()
@options(*STARTERS, *VIEW, *PIPELINE, "fps", "deadline_s", "jpeg_quality", "seed")
def demo(**values: Any) -> None:
    """Run everything on this machine, with a camera that needs no camera; print the page's address."""
    settings = prepare(values)
    run_all(settings, {"demo": "demo"})


@cli.command()
@click.option("--camera", "cameras", multiple=True, metavar="NAME=SOURCE", help="A camera; may be given several times.")
@options(*STARTERS, *VIEW, *PIPELINE, "fps", "deadline_s", "jpeg_quality", "loop", "seed")
def up(cameras: tuple[str, ...], **values: Any) -> None:
    """Run everything on this machine with your own cameras."""
    settings = prepare(values)
    named: dict[str, str] = {}
    for text in cameras:
        name, equals, source = text.partition("=")
        if not equals or not source:
            fail(f"--camera {text}: write NAME=SOURCE, for example door=rtsp://camera.lan/stream", 2)
        checked({"name": name})
        if name in named:
            fail(f"--camera {text}: the name {name} is given twice", 2)
        named[name] = source
    check_cameras(named)
    run_all(settings, named)


@cli.command()
@click.argument("source", envvar="MASKWATCH_SOURCE")
@options(*COMMON, *CAMERA)
def camera(source: str, **values: Any) -> None:
    """Publish frames of SOURCE: 0, a video file, a folder, rtsp://, http:// or demo.

    Without one, that of MASKWATCH_SOURCE, which nobody else on this machine can read.
    """
    from pipeline.bus.leases import NameTaken
    from pipeline.bus.writer import NameLost
    from producer import camera as process
    from producer.sources.source import SourceFailed

    settings = process_settings(values)
    if settings.name is None:
        fail("--name is missing: give the camera a name, for example --name door", 2)
    if settings.name.startswith(FILE_PREFIX):
        fail(f"--name {settings.name}: names beginning with {FILE_PREFIX} are those of files being labelled", 2)
    run(lambda: process.main(settings, source), SourceFailed, NameTaken, NameLost)


@cli.command()
@options(*COMMON, *DETECT_FLAGS)
def detect(**values: Any) -> None:
    """Find faces in frames; start more to go faster."""
    from models.files import ModelUnusable
    from workers import detect as process

    settings = process_settings(values)
    run(lambda: process.main(settings), ModelUnusable)


@cli.command()
@options(*COMMON, *CLASSIFY_FLAGS)
def classify(**values: Any) -> None:
    """Label faces in batches; start more to go faster."""
    from models.files import ModelUnusable
    from workers import classify as process

    settings = process_settings(values)
    run(lambda: process.main(settings), ModelUnusable)


@cli.command()
@options(*COMMON, *VIEW)
def view(**values: Any) -> None:
    """Show labelled live video in a browser."""
    from viewer import app as process

    settings = process_settings(values)
    check_access(settings)
    run(lambda: process.main(settings), process.PortInUse)


@cli.command()
@options("redis_url")
@click.option("--json", "as_json", is_flag=True, help="As JSON, the same as GET /api/status.")
def status(as_json: bool, **values: Any) -> None:
    """Show cameras with their ledgers, processes and streams."""
    from pipeline.bus.status import read, table

    with redis_of(values) as client:
        found = read(client, Clock(client))
        click.echo(msgspec.json.encode(found).decode() if as_json else table(found))


@cli.command("serve-embedded", hidden=True)
@click.argument("folder", type=click.Path(path_type=Path))
@options("parent_fd")
def serve_embedded(folder: Path, parent_fd: int) -> None:
    """Keep the embedded server of `demo`, `up` and `label`."""
    configure_logging(as_json=is_json())
    sys.exit(serve(folder, parent_fd))


def run_all(settings: Settings, cameras: dict[str, str]) -> None:
    """Run server, workers, cameras and viewer until told to stop."""
    check_access(settings)
    told = stop_told()
    os.environ.update({f"MASKWATCH_{name.upper()}": value for name in SECRETS if (value := getattr(settings, name))})

    from models.files import ModelUnusable

    def start() -> int:
        check_model(settings)
        with server_for(settings) as server, Children() as children:
            common = common_flags(settings, server.url)
            start_workers(children, settings, common, detectors=1, classifiers=1)
            for name, source in cameras.items():
                flags = flags_of(settings, "fps", "deadline_s", "jpeg_quality", "loop", "seed")
                children.start("camera", source, "--name", name, *flags, *common, required=source == "demo")
            children.start("view", *flags_of(settings, *(name for name in VIEW if name not in SECRETS)), *common)
            server.wait()
            while not told.wait(SUPERVISE_INTERVAL_S):
                children.supervise()
        return 0

    run(start, ModelUnusable)


def check_cameras(cameras: dict[str, str]) -> None:
    """End with status 2 when a camera can never be one: a name that is not free, a source that does not exist."""
    from producer.sources.open_source import kind_of
    from producer.sources.source import SourceFailed

    for name, source in cameras.items():
        if name.startswith(FILE_PREFIX):
            fail(f"--camera {name}={source}: names beginning with {FILE_PREFIX} are those of files being labelled", 2)
        try:
            kind_of(source)
        except SourceFailed as error:
            fail(f"--camera {name}={source}: {error}", 2)


def stop_told() -> threading.Event:
    """Return an event that SIGTERM and Ctrl-C set."""
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: told.set())
    return told


for command in (label, train, trainer, jobs, check, dead, models, health, password):
    cli.add_command(command)

if __name__ == "__main__":
    main()
