"""How a command ends when something is wrong: one line on stderr that says what to do, and an exit status.

Exit status: 0 done, 1 failed while running, 2 wrong usage or settings. No line shows a password.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

import click

from pipeline.runtime.logs import configure_logging, is_json
from pipeline.runtime.redaction import redact_quoted_arguments

log = logging.getLogger(__name__)

UNEXPECTED = re.compile(r"(unexpected extra arguments?) \(.*\)", re.DOTALL)


class EndAtOnce(SystemExit):
    """End this process, which has nothing left to do, without taking its interpreter apart: that takes 0.1 s."""


def command_line(cli: click.Group) -> NoReturn:
    """Run the command line. With --log-json, click's own usage errors become JSON lines, too."""
    as_json = wants_json_logs(sys.argv[1:], os.environ)
    if as_json:
        configure_logging(as_json=True, level="WARNING")  # until a process sets its own
    try:
        sys.exit(cli.main(prog_name="maskwatch", standalone_mode=False))
    except click.ClickException as error:
        if as_json:
            fail(without_arguments(error.format_message()), error.exit_code)
        shown = io.StringIO()
        error.show(shown)
        click.echo(without_arguments(shown.getvalue()), nl=False, err=True)
        sys.exit(error.exit_code)
    except click.Abort:  # Ctrl-C or the end of the input at a question
        fail("stopped", 1)


def without_arguments(message: str) -> str:
    """Return one of click's messages without words that may be passwords, such as one after a space too many."""
    return redact_quoted_arguments(UNEXPECTED.sub(r"\1", message), sys.argv[1:])


def wants_json_logs(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Return whether JSON lines are asked for, before click has read anything."""
    flags = [word for word in arguments if word in ("--log-json", "--no-log-json")]
    if flags:
        return flags[-1] == "--log-json"
    try:
        return bool(click.BOOL.convert(environment.get("MASKWATCH_LOG_JSON") or "false", None, None))
    except click.BadParameter:  # the command that takes the variable reports it
        return False


def fail(text: str, exit_status: int) -> NoReturn:
    """End with one line on stderr."""
    report_failure(text)
    sys.exit(exit_status)


def report_failure(text: str) -> None:
    """Print one line on stderr."""
    line = " ".join(redact_quoted_arguments(text, sys.argv[1:]).split())
    if is_json():
        log.error("%s", line)
    else:
        click.echo(f"maskwatch: {line}", err=True)
