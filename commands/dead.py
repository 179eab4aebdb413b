"""`maskwatch dead`: list, show and replay dead letters, the entries that could not be processed."""

from __future__ import annotations

from typing import Any

import click

from commands.shared import redis_of
from pipeline.runtime.settings import options


@click.group()
def dead() -> None:
    """Inspect and replay entries that could not be processed."""


@dead.command("list")
@options("redis_url")
def dead_list(**values: Any) -> None:
    """List dead letters, oldest first."""
    from pipeline.bus.dead_letters import rows

    with redis_of(values) as client:
        for row in rows(client):
            click.echo(f"{row.id}  {row.letter.stream}  {row.camera}  {row.letter.error}")


@dead.command("show")
@click.argument("letter_id")
@options("redis_url")
def dead_show(letter_id: str, **values: Any) -> None:
    """Show one dead letter with all its fields."""
    from pipeline.bus.dead_letters import NoSuchLetter, as_text, find

    with redis_of(values, NoSuchLetter) as client:
        click.echo(as_text(find(client, letter_id)))


@dead.command("replay")
@click.argument("letter_id")
@options("redis_url")
def dead_replay(letter_id: str, **values: Any) -> None:
    """Put one dead entry back on its stream, while its pixels exist."""
    from pipeline.bus.dead_letters import CannotReplay, NoSuchLetter, replay

    with redis_of(values, NoSuchLetter, CannotReplay) as client:
        replay(client, letter_id)
        click.echo(f"{letter_id} is back on its stream")
