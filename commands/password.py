"""`maskwatch password`: the hash of the viewer's password; and the check that none is open to others without one."""

from __future__ import annotations

import sys

import click

from commands.command import fail
from pipeline.runtime.settings import BadSettings, Settings

LEAST, MOST = 8, 1024  # characters


@click.command()
def password() -> None:
    """Ask for a password, or read it from stdin; print what MASKWATCH_PASSWORD_HASH is to be."""
    from viewer.security.authenticator import password_hash

    if sys.stdin.isatty():
        text = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        text = sys.stdin.readline(MOST + 2).rstrip("\r\n")
    if not LEAST <= len(text) <= MOST:
        fail(f"the password has {len(text)} characters; take {LEAST} to {MOST}", 2)
    click.echo(password_hash(text))


def check_access(settings: Settings) -> None:
    """End with status 2 and one line when a viewer with these settings would let others in without a password."""
    from viewer.security.authenticator import check

    try:
        check(settings)
    except BadSettings as error:
        fail(str(error), 2)
