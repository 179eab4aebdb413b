"""`maskwatch dead`: list, show and replay dead letters, the entries that could not be processed."""

from __future__ import annotations

from typing import Any

import click

from commands.shared import redis_client
from pipeline.bus.shards import Bus
from pipeline.runtime.settings import setting_options


@click.group()
def dead() -> None:
    """Inspect and replay entries that could not be processed."""


@dead.command("list")
@setting_options("redis_url")
def dead_list(**values: Any) -> None:
    """List dead letters, oldest first."""
    from pipeline.bus.dead_letters import list_dead_letters

    with redis_client(values) as client:
        rows = list_dead_letters(Bus(client))
        for row in rows:
            click.echo(f"{row.id}  {row.letter.stream}  {row.camera}  {row.letter.error}")
        if not rows:
            click.echo("no dead letters: no frame failed", err=True)


@dead.command("show")
@click.argument("letter_id")
@setting_options("redis_url")
def dead_show(letter_id: str, **values: Any) -> None:
    """Show one dead letter with all its fields."""
    from pipeline.bus.dead_letters import NoSuchDeadLetter, describe_dead_letter, find_dead_letter

    with redis_client(values, NoSuchDeadLetter) as client:
        click.echo(describe_dead_letter(find_dead_letter(Bus(client), letter_id)))


@dead.command("replay")
@click.argument("letter_id")
@setting_options("redis_url")
def dead_replay(letter_id: str, **values: Any) -> None:
    """Put one dead entry back on its stream, while its pixels exist."""
    from pipeline.bus.dead_letters import CannotReplay, NoSuchDeadLetter, replay_dead_letter

    with redis_client(values, NoSuchDeadLetter, CannotReplay) as client:
        replay_dead_letter(Bus(client), letter_id)
        click.echo(f"{letter_id} is back on its stream")
