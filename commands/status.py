"""`maskwatch status`: cameras with their ledgers, processes and streams, as a table or JSON."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from commands.shared import redis_of
from pipeline.bus.clock import Clock
from pipeline.runtime.settings import options


@click.command()
@options("redis_url")
@click.option("--json", "as_json", is_flag=True, help="As JSON, the same as GET /api/status.")
def status(as_json: bool, **values: Any) -> None:
    """Show cameras with their ledgers, processes and streams."""
    from pipeline.bus.status import read, table

    with redis_of(values) as client:
        found = read(client, Clock(client))
        click.echo(msgspec.json.encode(found).decode() if as_json else table(found))
