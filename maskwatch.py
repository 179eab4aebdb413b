"""The command line: the list of commands. Each is in a file of commands/, which imports what it runs only then.

Exit status: 0 done, 1 failed while running, 2 wrong usage or settings, 130 stopped by Ctrl-C. Errors are one line on
stderr, with what to do.
"""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130  # the status by which shells report a program that Ctrl-C ended
STOPPED = "maskwatch: stopped\n"

try:  # Ctrl-C ends with one line while these modules load, too
    from pathlib import Path
    from typing import Any, NoReturn

    import click

    from commands.chaos import chaos, chaos_janitor
    from commands.check import check
    from commands.dead import dead
    from commands.discover import discover
    from commands.errors import EndAtOnce, command_line
    from commands.events import deliveries, events, rules
    from commands.forget import forget
    from commands.label import label
    from commands.models import models
    from commands.password import password
    from commands.processes import camera, classify, detect, record, view
    from commands.shared import load_config
    from commands.status import health, status
    from commands.tokens import tokens
    from commands.training import jobs, train, trainer
    from commands.up import demo, fork_children, serve_embedded, up
    from pipeline.runtime.logs import hide_passwords_of_uncaught_errors
    from pipeline.runtime.redaction import hide_own_arguments
except KeyboardInterrupt:
    sys.stderr.write(STOPPED)
    sys.exit(INTERRUPTED)

COMMANDS: tuple[click.Command, ...] = (
    *(demo, up, camera, detect, classify, view, record, label, train, trainer, jobs, models),
    *(events, deliveries, rules, discover, tokens),
    *(status, dead, forget, check, chaos, health, password, fork_children, serve_embedded, chaos_janitor),
)


def run() -> NoReturn:
    """Run the command line as a program."""
    open_closed_streams()
    try:
        main()
    except EndAtOnce as end:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:  # what it has said is lost: the terminal or pipe is gone
            os._exit(1)
        os._exit(end.code if isinstance(end.code, int) else 0)


def open_closed_streams() -> None:
    """Open the standard streams that this process was started without, so that no other file gets their numbers.

    Nothing can be read from stdin, what goes to stderr is lost, and writing to stdout fails, as it would without this.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)  # it gets the lowest free number: this one
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def main() -> NoReturn:
    """Run the command line, and raise SystemExit in the end."""
    hide_own_arguments()
    hide_passwords_of_uncaught_errors()
    command_line(cli)


class Interruptible(click.Group):
    """Commands that Ctrl-C ends with one line, except those that handle the signal themselves."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command that the user named."""
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            sys.stderr.write(STOPPED)
            sys.exit(INTERRUPTED)


@click.group(
    cls=Interruptible,
    commands={str(command.name): command for command in COMMANDS},
    context_settings={"help_option_names": ["-h", "--help"]},
)
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


if __name__ == "__main__":
    run()
