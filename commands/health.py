"""`maskwatch health`: whether a process of this host works, for whatever starts it again when it does not.

A role in; exit status 0 when a process of that role on this host has a fresh heartbeat in Redis, which it sends only
while its main loop turns; else 1, with one line that says what is missing. It is asked every few seconds beside each
process, so it imports nothing that works on pictures.
"""

from __future__ import annotations

import socket
from typing import Any, cast

import click

from commands.command import fail, redis_of
from pipeline.bus import messages
from pipeline.bus.keys import heartbeat_key
from pipeline.runtime.settings import options

ROLES = ("camera", "detector", "classifier", "viewer", "trainer")


@click.command()
@click.argument("role", type=click.Choice(ROLES))
@options("redis_url")
def health(role: str, **values: Any) -> None:
    """Tell by the exit status whether a process of ROLE on this host lives and works."""
    mine = f"{role}-{socket.gethostname()}-"  # what its processes' ids begin with
    with redis_of(values) as client:
        ids = [id_.decode(errors="replace") for id_ in cast(list[bytes], client.zrange(messages.PROCESSES, 0, -1))]
        ids = [id_ for id_ in ids if id_.startswith(mine)]
        beats = cast(list[bytes | None], client.mget([heartbeat_key(id_) for id_ in ids])) if ids else []
    live = [id_ for id_, beat in zip(ids, beats, strict=True) if beat]
    if not live:
        fail(f"no {role} of this host has a fresh heartbeat ({mine}...): it is starting, hangs, or has ended", 1)
    click.echo("\n".join(live))
