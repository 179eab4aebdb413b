"""`maskwatch tokens`: create, list and revoke the tokens with which programs use the API of the viewer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from commands.errors import fail
from commands.shared import checked_settings
from pipeline.runtime.settings import setting_options

if TYPE_CHECKING:
    from viewer.security.api_tokens import Scope


@click.group()
def tokens() -> None:
    """Manage the tokens with which programs use the API."""


@tokens.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["read", "label", "admin"]),
    default=["read"],
    show_default=True,
    help="What it may do; name it again for each.",
)
@setting_options("tokens")
def tokens_create(name: str, scopes: tuple[Scope, ...], **values: Any) -> None:
    """Create a token for the program NAME and print it. It is shown only now: the file has its hash."""
    from viewer.security.api_tokens import TokensError, create_token

    try:
        click.echo(create_token(path_of(values), name, scopes))
    except TokensError as error:
        fail(str(error), 1)


@tokens.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@setting_options("tokens")
def tokens_list(as_json: bool, **values: Any) -> None:
    """List the tokens: their names, scopes, and when they were created."""
    from viewer.security.api_tokens import TokensError, read_tokens

    path = path_of(values)
    try:
        found = read_tokens(path)
    except TokensError as error:
        fail(str(error), 1)
    if as_json:
        rows = [{"name": one.name, "scopes": one.scopes, "created_at": one.created_at} for one in found]
        click.echo(msgspec.json.encode(rows).decode())
        return
    click.echo(f"{'NAME':<24} {'SCOPES':<12} CREATED" if found else f"there are no tokens in {path}")
    for one in found:
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.created_at))
        click.echo(f"{one.name:<24} {', '.join(one.scopes):<12} {created}")


@tokens.command("revoke")
@click.argument("name")
@setting_options("tokens")
def tokens_revoke(name: str, **values: Any) -> None:
    """Revoke the token of the program NAME: its next request is denied."""
    from viewer.security.api_tokens import TokensError, revoke_token

    try:
        revoke_token(path_of(values), name)
    except TokensError as error:
        fail(str(error), 1)
    click.echo(f"token {name} is revoked")


def path_of(values: dict[str, Any]) -> Path:
    """Return the file of the tokens."""
    from viewer.security.api_tokens import tokens_path

    return tokens_path(checked_settings(values))
