"""The command line: the one list of what can be started. A process is imported only when it runs.

Exit status: 0 done, 1 failed while running, 2 wrong usage or settings. Errors are one line on stderr, with what to do.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import click
import msgspec
import redis
from click.core import ParameterSource

from pipeline.children import (
    CLASSIFY_FLAGS,
    DETECT_FLAGS,
    TEND_S,
    ChildFailed,
    Children,
    flags_of,
    start_workers,
    tended,
)
from pipeline.embedded import Served, ServerFailed, embedded_server, serve
from pipeline.process import Clock, Unreachable, check_reachable, configure_logging, connect, hide_password
from pipeline.settings import BadSettings, Settings, options, read_file, settings_from
from pipeline.status import FILE_PREFIX

DEFAULT_REDIS = "redis://127.0.0.1:6379/0"
COMMON = ("redis_url", "log_json", "log_level", "metrics_port", "parent_fd")
CAMERA = ("name", "fps", "deadline_s", "jpeg_quality", "loop", "seed")
VIEW = ("host", "port", "max_viewers")
PIPELINE = ("detectors", "classifiers", *dict.fromkeys((*DETECT_FLAGS, *CLASSIFY_FLAGS)))
ALL = tuple(name for name in COMMON if name != "metrics_port")  # of commands that start the others


def main() -> NoReturn:
    """Run the command line."""
    try:
        cli.main(prog_name="maskwatch")
    except KeyboardInterrupt:  # before a process has set itself up to end by itself
        sys.exit(130)


def load_config(context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    """Take defaults for every command from a TOML file."""
    if path is not None:
        try:
            values = read_file(path)
        except BadSettings as error:
            fail(str(error), 2)
        context.default_map = dict.fromkeys(cli.commands, values)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
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
@options(*ALL, *VIEW, *PIPELINE, "fps", "deadline_s", "jpeg_quality", "seed")
def demo(**values: Any) -> None:
    """Run everything on this machine, with a camera that needs no camera; print the page's address."""
    settings = prepare(values)
    run_all(settings, {"demo": "demo"})


@cli.command()
@click.option("--camera", "cameras", multiple=True, metavar="NAME=SOURCE", help="A camera; may be given several times.")
@options(*ALL, *VIEW, *PIPELINE, "fps", "deadline_s", "jpeg_quality", "loop", "seed")
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
@click.argument("source")
@options(*COMMON, *CAMERA)
def camera(source: str, **values: Any) -> None:
    """Publish frames of SOURCE: 0, a video file, a folder, rtsp://, http:// or demo."""
    from pipeline.lease import NameTaken
    from pipeline.streams import NameLost
    from producer import camera as process
    from producer.picture import SourceFailed

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
    run(lambda: process.main(settings), process.PortInUse)


@cli.command()
@click.argument("source")
@click.option("--json", "json_path", metavar="FILE", help="Write a JSON line for each frame; - for stdout.")
@click.option("--out", "out_path", type=click.Path(path_type=Path), help="Write labelled pictures or a labelled video.")
@click.option("--resume", is_flag=True, help="Go on after the last whole line of --json.")
@options(*COMMON, *PIPELINE, "jpeg_quality", "seed")
def label(source: str, json_path: str | None, out_path: Path | None, resume: bool, **values: Any) -> None:
    """Label every frame of a video file, or every picture of a folder."""
    from models.files import ModelUnusable
    from pipeline.lease import NameTaken
    from pipeline.streams import NameLost
    from producer import label as process
    from producer.outputs import BadOutput
    from producer.picture import SourceFailed

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


@cli.command()
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


@cli.command()
@options("redis_url")
@click.option("--json", "as_json", is_flag=True, help="As JSON, the same as GET /api/status.")
def status(as_json: bool, **values: Any) -> None:
    """Show cameras with their ledgers, processes and streams."""
    from pipeline.status import read, table

    with redis_of(values) as client:
        found = read(client, Clock(client))
        click.echo(msgspec.json.encode(found).decode() if as_json else table(found))


@cli.group()
def dead() -> None:
    """Look at entries that could not be worked on."""


@dead.command("list")
@options("redis_url")
def dead_list(**values: Any) -> None:
    """List dead letters, oldest first."""
    from pipeline.letters import rows

    with redis_of(values) as client:
        for row in rows(client):
            click.echo(f"{row.id}  {row.letter.stream}  {row.camera}  {row.letter.error}")


@dead.command("show")
@click.argument("letter_id")
@options("redis_url")
def dead_show(letter_id: str, **values: Any) -> None:
    """Show one dead letter whole."""
    from pipeline.letters import NoSuchLetter, as_text, find

    with redis_of(values, NoSuchLetter) as client:
        click.echo(as_text(find(client, letter_id)))


@dead.command("replay")
@click.argument("letter_id")
@options("redis_url")
def dead_replay(letter_id: str, **values: Any) -> None:
    """Put one dead entry back where it died, while its pixels exist."""
    from pipeline.letters import CannotReplay, NoSuchLetter, replay

    with redis_of(values, NoSuchLetter, CannotReplay) as client:
        replay(client, letter_id)
        click.echo(f"{letter_id} is back on its stream")


@cli.command()
@options("redis_url", "models", "detector", "port", "host")
def check(**values: Any) -> None:
    """Check settings and environment; say what is missing and how to get it."""
    settings = checked(values)
    missing = 0
    for what, look in checks(settings):
        try:
            click.echo(f"ok       {what}: {look()}")
        except Exception as error:  # noqa: BLE001 -- whatever a part raises is what the user must know
            missing += 1
            click.echo(f"MISSING  {what}: {' '.join(str(error).split()) or type(error).__name__}")
    sys.exit(1 if missing else 0)


@cli.command("serve-embedded", hidden=True)
@click.argument("folder", type=click.Path(path_type=Path))
@options("parent_fd")
def serve_embedded(folder: Path, parent_fd: int) -> None:
    """Keep the embedded server of `demo`, `up` and `label`."""
    configure_logging(as_json=False)
    sys.exit(serve(folder, parent_fd))


def check_model(settings: Settings) -> None:
    """Look at the classifier's files before processes are started that would each say what is wrong with them.

    Raises:
        ModelUnusable: the folder is incomplete or damaged.
    """
    from models.card import check_files, model_folder

    check_files(model_folder(settings.models))


def run_all(settings: Settings, cameras: dict[str, str]) -> None:
    """Run server, workers, cameras and viewer until told to stop."""
    told = stop_told()

    from models.files import ModelUnusable

    def start() -> int:
        check_model(settings)
        with server_for(settings) as server, Children() as children:
            common = common_flags(settings, server.url)
            start_workers(children, settings, common, detectors=1, classifiers=1)
            for name, source in cameras.items():
                flags = flags_of(settings, "fps", "deadline_s", "jpeg_quality", "loop", "seed")
                children.start("camera", source, "--name", name, *flags, *common, needed=source == "demo")
            children.start("view", *flags_of(settings, *VIEW), *common)
            server.wait()
            while not told.wait(TEND_S):
                children.tend()
        return 0

    run(start, ModelUnusable)


def common_flags(settings: Settings, redis_url: str) -> list[str]:
    """Return the flags that every child process gets."""
    return ["--redis", redis_url, *flags_of(settings, "log_level", "log_json")]


def check_cameras(cameras: dict[str, str]) -> None:
    """End with status 2 when a camera can never be one: a name that is not free, a source that does not exist."""
    from producer.picture import SourceFailed
    from producer.sources import kind_of

    for name, source in cameras.items():
        if name.startswith(FILE_PREFIX):
            fail(f"--camera {name}={source}: names beginning with {FILE_PREFIX} are those of files being labelled", 2)
        try:
            kind_of(source)
        except SourceFailed as error:
            fail(f"--camera {name}={source}: {error}", 2)


def label_all(
    process: Any,
    settings: Settings,
    source_text: str,
    json_path: str | None,
    out_path: Path | None,
    resume: bool,
) -> int:
    """Label a source with workers of our own, or with those of the Redis that was named."""
    from producer.outputs import BadOutput, Outputs
    from producer.picture import SourceFailed
    from producer.sources import open_source

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
                with tended(children):
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


@contextmanager
def server_for(settings: Settings) -> Iterator[Served]:
    """Give the Redis that was named, or an embedded one."""
    if settings.redis_url:
        client = connect(settings.redis_url)
        check_reachable(client, settings.redis_url)
        client.close()
        yield Served(url=settings.redis_url, wait=lambda: None)
    else:
        with embedded_server() as server:
            yield server


@contextmanager
def redis_of(values: dict[str, Any], *expected: type[Exception]) -> Iterator[Any]:
    """Give a client of the Redis that was named; end with one line when it fails."""
    url = checked(values).redis_url or DEFAULT_REDIS
    errors: tuple[type[Exception], ...] = (Unreachable, redis.RedisError, ValueError, *expected)
    try:
        client = connect(url)
        check_reachable(client, url)
        yield client
        client.close()
    except errors as error:
        fail(str(error), 1)


def prepare(values: dict[str, Any]) -> Settings:
    """Return the checked settings of a process and set its logging up."""
    settings = checked(values)
    configure_logging(as_json=settings.log_json, level=settings.log_level.upper())
    return settings


def checks(settings: Settings) -> list[tuple[str, Callable[[], str]]]:
    """Return what a working installation has, each with a look that says what is there or raises."""

    def detector() -> str:
        from models import face_detector

        face_detector.load(settings.detector)
        return settings.detector

    def classifier() -> str:
        from models import mask_classifier
        from models.card import model_folder

        return mask_classifier.load(model_folder(settings.models)).card.version

    def photograph() -> str:
        from producer.sources import open_source

        open_source("demo").close()
        return "the demo has its photograph"

    def page() -> str:
        part = Path(__file__).parent / "viewer" / "static" / "vendor" / "socket.io.min.js"
        if not part.is_file():
            raise FileNotFoundError(f"{part} is missing: run `make setup`")
        return "all its parts are there"

    def video() -> str:
        import av

        av.Codec("libx264", "w")
        return "H.264 can be written"

    def server() -> str:
        with server_for(settings) as server:
            server.wait()
            client = connect(server.url)
            version = client.info("server").get("valkey_version") or client.info("server")["redis_version"]
            client.close()
        return f"{hide_password(server.url) if settings.redis_url else 'embedded'}, version {version}"

    def port() -> str:
        with socket.create_server((settings.host, settings.port)):
            return f"{settings.host}:{settings.port} is free"

    def training() -> str:
        found = find_spec("tensorflow") is not None
        return (
            "TensorFlow is installed"
            if found
            else "not installed, needed only to train: pip install 'maskwatch[train]'"
        )

    return [
        ("face detector", detector),
        ("mask classifier", classifier),
        ("demo", photograph),
        ("page", page),
        ("video", video),
        ("Redis", server),
        ("port", port),
        ("training", training),
    ]


def process_settings(values: dict[str, Any]) -> Settings:
    """Return the checked settings of one process, which needs a Redis that somebody else runs."""
    settings = prepare(values)
    return settings if settings.redis_url else msgspec.structs.replace(settings, redis_url=DEFAULT_REDIS)


def checked(values: dict[str, Any]) -> Settings:
    """Return settings, or end with status 2 and one line."""
    try:
        settings = settings_from(values)
        if settings.redis_url:
            connect(settings.redis_url).close()
        return settings
    except (BadSettings, ValueError) as error:
        fail(str(error), 2)


def run(start: Callable[[], int], *expected: type[Exception]) -> NoReturn:
    """Run a process to its end; errors it is known to raise become one line and status 1."""
    errors: tuple[type[Exception], ...] = (Unreachable, ServerFailed, redis.RedisError, OSError, *expected)
    try:
        sys.exit(start())
    except ChildFailed:
        sys.exit(1)
    except errors as error:
        fail(str(error), 1)


def fail(text: str, exit_status: int) -> NoReturn:
    """End with one line on stderr."""
    click.echo(f"maskwatch: {' '.join(text.split())}", err=True)
    sys.exit(exit_status)


def stop_told() -> threading.Event:
    """Return an event that SIGTERM and Ctrl-C set."""
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: told.set())
    return told


if __name__ == "__main__":
    main()
