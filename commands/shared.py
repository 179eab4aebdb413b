"""What commands share: check settings, find and reach Redis, and run a process to its end.

What goes wrong ends the command with one line (errors.py).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import msgspec
import redis

from commands.errors import fail
from commands.pipelines import DEFAULT_REDIS, NOTHING_RUNS, SeveralPipelines, only_pipeline
from pipeline.bus.connection import BadUrl, Unreachable, check_reachable, connect
from pipeline.bus.messages import FILE_PREFIX
from pipeline.bus.shards import UnusableRedis, check_eviction
from pipeline.runtime.children import CLASSIFY_FLAGS, DETECT_FLAGS, ChildFailed
from pipeline.runtime.embedded_server import ServerFailed, StartingServer, embedded_server
from pipeline.runtime.logs import configure_logging
from pipeline.runtime.running_pipelines import find_running_pipelines
from pipeline.runtime.settings import URLS, BadSettings, Settings, flag_of, read_settings_file, settings_from

if TYPE_CHECKING:
    from producer.sources.source_spec import SourceSpec

# The settings of every process, of commands that start child processes, of the workers, of cameras, of recorders, and
# of the viewer.
COMMON = ("redis_url", "shards", "log_json", "log_level", "metrics_port", "metrics_token", "parent_fd")
STARTERS = tuple(name for name in COMMON if name != "metrics_port")
PIPELINE = ("detectors", "classifiers", *dict.fromkeys((*DETECT_FLAGS, *CLASSIFY_FLAGS)))
CAMERA = (
    "fps",
    "deadline_s",
    "relabel_s",
    "jpeg_quality",
    "rtsp_transport",
    "hwaccel",
    "loop",
    "shared_memory",
    "seed",
)
VIEW = (
    *("host", "port", "base_path", "max_viewers", "origins", "password_hash", "session_key"),
    *("tokens", "access_log", "label_redis", "jobs_redis", "database"),
)
RECORD = ("rules", "database", "keep_days", "keep_mb", "thumbnails")


def load_config(context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    """Take the defaults of every command, in groups too, from a TOML file."""
    if path is None or not isinstance(context.command, click.Group):
        return
    try:
        values = read_settings_file(path)
    except BadSettings as error:
        fail(str(error), 2)
    context.default_map = {
        name: dict.fromkeys(command.commands, values) if isinstance(command, click.Group) else values
        for name, command in context.command.commands.items()
    }


def checked_settings(values: dict[str, Any]) -> Settings:
    """Return settings, or end with status 2 and one line."""
    try:
        settings = settings_from(values)
    except BadSettings as error:
        fail(str(error), 2)
    if settings.model:
        settings = _with_built_in_model(settings, settings.model)
    for name in URLS:
        if url := getattr(settings, name):
            try:
                connect(url).close()
            except BadUrl as error:
                fail(f"{flag_of(name)}: {error}", 2)
    return settings


def _with_built_in_model(settings: Settings, name: str) -> Settings:
    """Return settings whose models are the built-in ones with this classifier."""
    from models.classifier.card import BUILT_IN_CLASSIFIERS

    if settings.models:
        fail("--model chooses a built-in classifier, and --models has others: leave one of them out", 2)
    return msgspec.structs.replace(settings, model=None, models=str(BUILT_IN_CLASSIFIERS[name]))


def prepare_process(values: dict[str, Any]) -> Settings:
    """Return the checked settings of a process and configure its logging."""
    if values["log_json"]:  # a settings file may ask for it; errors in the other settings become JSON lines then
        configure_logging(as_json=True)
    settings = checked_settings(values)
    configure_logging(as_json=settings.log_json, level=settings.log_level.upper())
    return settings


def process_settings(values: dict[str, Any]) -> Settings:
    """Return the checked settings of one process, which needs a running Redis; see used_redis().

    With the Redis of the pipeline that runs, it uses that pipeline's database of events, too, unless one is named.
    """
    settings = prepare_process(values)
    if settings.redis_url:
        return settings
    database = used_database(settings.database) if "database" in values else None
    return msgspec.structs.replace(settings, redis_url=used_redis(settings), database=database)


def used_redis(settings: Settings) -> str:
    """Return the URL of the Redis that is named, else of the pipeline that runs on this machine, else the default.

    End with status 2 and one line when several pipelines run.
    """
    if settings.redis_url:
        return settings.redis_url
    try:
        pipeline = only_pipeline("redis_url", "--redis or MASKWATCH_REDIS_URL")
    except SeveralPipelines as error:
        fail(str(error), 2)
    return pipeline.redis_url if pipeline else DEFAULT_REDIS


def used_database(url: str | None) -> str | None:
    """Return the URL that is named, else that of the pipeline that runs on this machine, else None for the default."""
    if url:
        return url
    try:
        pipeline = only_pipeline("database", "--database or MASKWATCH_DATABASE")
    except SeveralPipelines as error:
        fail(str(error), 2)
    return pipeline.database if pipeline else None


def parsed_source(text: str, prefix: str = "") -> SourceSpec:
    """Return the source that a text names, or end with status 2 and one line, which begins with `prefix`."""
    from producer.sources.source import SourceFailed
    from producer.sources.source_spec import parse_source

    try:
        return parse_source(text)
    except SourceFailed as error:
        fail(f"{prefix}{error}", 2)


def check_camera_name(camera: str, flag: str) -> None:
    """End with status 2 when a camera has a name that `maskwatch label` would give to a file."""
    if camera.startswith(FILE_PREFIX):
        fail(f"{flag} {camera}: names beginning with {FILE_PREFIX} are reserved for files that are labelled", 2)


def check_models(settings: Settings) -> None:
    """Check the models' files once, before several processes start that would each report the same fault.

    The detector haar uses no version.

    Raises:
        ModelUnusable: a model is incomplete, damaged, or its registry cannot be reached.
    """
    from models.registry.kinds import CLASSIFIER, KINDS
    from models.registry.resolve import current_folder

    for kind in (CLASSIFIER,) if settings.detector == "haar" else KINDS:
        kind.check_files(current_folder(settings.models, kind))


def check_recording(settings: Settings) -> None:
    """End with status 2 and one line when the rules or the URL of the database cannot be used."""
    from events.rule_file import BadRules, load_rules

    check_database(settings)
    try:
        load_rules(Path(settings.rules) if settings.rules else None)
    except BadRules as error:
        fail(str(error), 2)


def check_database(settings: Settings) -> None:
    """End with status 2 and one line when the URL of the database of events cannot be used."""
    from events.locations import BadDatabase, database_url

    try:
        database_url(settings.database)
    except BadDatabase as error:
        fail(str(error), 2)


def run_process(start: Callable[[], int], *expected: type[Exception], end: type[SystemExit] = SystemExit) -> NoReturn:
    """Run a process to its end; the errors that it is expected to raise become one line and status 1.

    end: what is raised with its status.
    """
    errors: tuple[type[Exception], ...] = (
        Unreachable,
        UnusableRedis,
        ServerFailed,
        redis.RedisError,
        OSError,
        *expected,
    )
    try:
        raise end(start())
    except ChildFailed:
        sys.exit(1)
    except BrokenPipeError:  # stdout was closed, as `| head` does
        raise
    except errors as error:
        fail(str(error), 1)


@contextmanager
def redis_server(settings: Settings) -> Iterator[StartingServer]:
    """Yield the Redis that the settings name, or an embedded one."""
    if settings.redis_url:
        with connect(settings.redis_url) as client:
            check_reachable(client, settings.redis_url)
            check_eviction(client)
        yield StartingServer(url=settings.redis_url, wait=lambda: None)
    else:
        with embedded_server() as server:
            yield server


@contextmanager
def redis_client(values: dict[str, Any], *expected: type[Exception]) -> Iterator[Any]:
    """Yield a client of the Redis that used_redis() finds; end with one line when it fails."""
    url = used_redis(checked_settings(values))
    errors: tuple[type[Exception], ...] = (redis.RedisError, ValueError, *expected)
    try:
        with connect(url) as client:
            check_reachable(client, url)
            yield client
    except Unreachable as error:
        nothing_runs = url == DEFAULT_REDIS and not find_running_pipelines()
        fail(f"{NOTHING_RUNS}, and {error}" if nothing_runs else str(error), 1)
    except errors as error:
        fail(str(error), 1)
