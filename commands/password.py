"""`maskwatch password`: a password in, its hash for the viewer out; and the check that every open viewer has one."""

from __future__ import annotations

import sys

import click

from commands.errors import fail
from pipeline.runtime.settings import BadSettings, Settings

MIN_CHARACTERS, MAX_CHARACTERS = 8, 1024


@click.command(options_metavar="")
@click.argument("words", nargs=-1, metavar="")
def password(words: tuple[str, ...]) -> None:
    """Ask for a password, or read it from stdin; print the value for MASKWATCH_PASSWORD_HASH."""
    from viewer.security.authenticator import password_hash

    if words:
        fail("give no argument: this command asks for the password, because others can read command lines", 2)
    if sys.stdin.isatty():
        text = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        text = sys.stdin.readline(MAX_CHARACTERS + 2).rstrip("\r\n")
    if not MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS:
        fail(f"the password has {len(text)} characters; take {MIN_CHARACTERS} to {MAX_CHARACTERS}", 2)
    click.echo(password_hash(text))


def check_access(settings: Settings) -> None:
    """End with status 2 and one line when these settings would let other machines use the viewer without a password.

    Also when its base path cannot be used.
    """
    from viewer.security.authenticator import check_access_settings
    from viewer.serving.base_path import base_path_of

    try:
        check_access_settings(settings)
        base_path_of(settings)
    except BadSettings as error:
        fail(str(error), 2)
