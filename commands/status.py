"""`maskwatch status` and `health`: what runs, and whether a process of this host works.

`health` is for the supervisor that restarts a process. Exit status 0: a process of that role on this host has a fresh
heartbeat in Redis, which it sends only while its main loop makes progress. Else 1, with one line. It runs every few
seconds beside each process, so this module imports nothing that handles images.
"""

from __future__ import annotations

import socket
from typing import Any

import click
import msgspec

from commands.errors import fail
from commands.shared import redis_client
from pipeline.bus.shards import Bus
from pipeline.bus.status import read_heartbeats, read_status, status_table
from pipeline.runtime.settings import setting_options

ROLES = ("camera", "detector", "classifier", "viewer", "recorder", "trainer")


@click.command()
@setting_options("redis_url")
@click.option("--json", "as_json", is_flag=True, help="As JSON, the same as GET /api/status.")
def status(as_json: bool, **values: Any) -> None:
    """Show cameras with their ledgers, processes and streams."""
    with redis_client(values) as client:
        found = read_status(Bus(client))
        click.echo(msgspec.json.encode(found).decode() if as_json else status_table(found))


@click.command()
@click.argument("role", type=click.Choice(ROLES))
@setting_options("redis_url")
def health(role: str, **values: Any) -> None:
    """Exit with status 0 if a process of ROLE on this host is alive and working."""
    host = socket.gethostname()
    with redis_client(values) as client:
        live = [beat.id for beat in read_heartbeats(client) if (beat.role, beat.host) == (role, host)]
    if not live:
        fail(f"no {role} of this host ({host}) has a fresh heartbeat: it is starting, hangs, or has ended", 1)
    click.echo("\n".join(live))
