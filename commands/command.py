"""What every command does alike: check its settings, reach its Redis, end with one line when something is wrong.

Exit status: 0 done, 1 failed while running, 2 wrong usage or settings.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import click
import msgspec
import redis

from pipeline.bus.connection import BadUrl, Unreachable, check_reachable, connect
from pipeline.runtime.children import CLASSIFY_FLAGS, DETECT_FLAGS, ChildFailed, flags_of
from pipeline.runtime.embedded_server import Served, ServerFailed, embedded_server
from pipeline.runtime.logs import configure_logging, is_json
from pipeline.runtime.settings import URLS, BadSettings, Settings, flag_of, settings_from

log = logging.getLogger(__name__)

DEFAULT_REDIS = "redis://127.0.0.1:6379/0"
# The settings of every process, of the workers, and of commands that start the processes themselves.
COMMON = ("redis_url", "log_json", "log_level", "metrics_port", "metrics_token", "parent_fd")
STARTERS = tuple(name for name in COMMON if name != "metrics_port")
PIPELINE = ("detectors", "classifiers", *dict.fromkeys((*DETECT_FLAGS, *CLASSIFY_FLAGS)))


def command_line(cli: click.Group) -> NoReturn:
    """Run the command line. Where JSON lines are asked for, what click says of wrong usage is one too."""
    if not asks_for_json(sys.argv[1:], os.environ):
        sys.exit(cli.main(prog_name="maskwatch"))
    configure_logging(as_json=True, level="WARNING")  # until a process sets its own
    try:
        sys.exit(cli.main(prog_name="maskwatch", standalone_mode=False))
    except click.ClickException as error:
        fail(error.format_message(), error.exit_code)
    except click.Abort:
        sys.exit(1)


def asks_for_json(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Return whether JSON lines are asked for, before click has read anything."""
    flags = [word for word in arguments if word in ("--log-json", "--no-log-json")]
    if flags:
        return flags[-1] == "--log-json"
    try:
        return bool(click.BOOL.convert(environment.get("MASKWATCH_LOG_JSON") or "false", None, None))
    except click.BadParameter:  # each command that takes it says so
        return False


def process_settings(values: dict[str, Any]) -> Settings:
    """Return the checked settings of one process, which needs a Redis that somebody else runs."""
    settings = prepare(values)
    return settings if settings.redis_url else msgspec.structs.replace(settings, redis_url=DEFAULT_REDIS)


def checked(values: dict[str, Any]) -> Settings:
    """Return settings, or end with status 2 and one line."""
    try:
        settings = settings_from(values)
    except BadSettings as error:
        fail(str(error), 2)
    for name in URLS:
        if url := getattr(settings, name):
            try:
                connect(url).close()
            except BadUrl as error:
                fail(f"{flag_of(name)}: {error}", 2)
    return settings


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
    line = " ".join(text.split())
    if is_json():
        log.error("%s", line)
    else:
        click.echo(f"maskwatch: {line}", err=True)
    sys.exit(exit_status)


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
    if values["log_json"]:  # a settings file may say so too; what is wrong with the rest is told as it asks
        configure_logging(as_json=True)
    settings = checked(values)
    configure_logging(as_json=settings.log_json, level=settings.log_level.upper())
    return settings


def common_flags(settings: Settings, redis_url: str) -> list[str]:
    """Return the flags that every child process gets."""
    return ["--redis", redis_url, *flags_of(settings, "log_level", "log_json")]


def check_model(settings: Settings) -> None:
    """Look at the classifier's files before processes are started that would each say what is wrong with them.

    Raises:
        ModelUnusable: the model is incomplete, damaged, or its registry cannot be reached.
    """
    from models.classifier.card import check_files
    from models.registry.named import model_folder

    check_files(model_folder(settings.models))
