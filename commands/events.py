"""`maskwatch events`, `deliveries` and `rules`: what happened, what became of its deliveries, and the rules' format.

The database is the one that is named, else that of the pipeline that runs on this machine, else the default one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from commands.errors import fail
from commands.shared import checked_settings, used_database
from pipeline.runtime.settings import setting_options

if TYPE_CHECKING:
    import sqlalchemy as sa

    from events.reading import EventChoices

LIMIT = click.IntRange(1, 100_000)
MAX_ID = 2**53 - 1  # of a delivery, as over the API
TIMES = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])


@click.command()
@click.option("--camera", help="Only events of this camera.")
@click.option("--kind", help="Only events of this kind, for example no_mask.")
@click.option("--since", type=TIMES, help="Only events that began at this local time or later.")
@click.option("--until", type=TIMES, help="Only events that began before this local time.")
@click.option("--limit", type=LIMIT, default=100, show_default=True, help="How many, the newest ones.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with all that is known.")
@setting_options("database")
def events(
    camera: str | None,
    kind: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    as_json: bool,
    **values: Any,
) -> None:
    """List events, newest first."""
    from events.event_list import describe_event
    from events.reading import EventFilter, read_choices, read_events

    check_utf8("--camera", camera)
    check_utf8("--kind", kind)
    try:
        begin, end = (None if one is None else one.timestamp() for one in (since, until))
    except (ValueError, OverflowError):
        fail("--since or --until is too early or too late for this machine's time zone: give another time", 2)
    wanted = EventFilter(camera=camera, kind=kind, since=begin, until=end)
    with database(values) as connection:
        found = read_events(connection, wanted, limit=limit).events
        choices = None if found else read_choices(connection)
    if choices:
        click.echo(no_events_text(choices), err=True)
    for event in found:
        click.echo(msgspec.json.encode(event).decode() if as_json else describe_event(event))


def no_events_text(choices: EventChoices) -> str:
    """Return that no event fits, and what there are events of."""
    if not choices.cameras:
        return "no event was recorded yet"
    return f"no event fits; there are events of {', '.join(choices.kinds)} of the cameras {', '.join(choices.cameras)}"


def check_utf8(flag: str, name: str | None) -> None:
    """End with status 2 when a name is not UTF-8, as all names in a database are."""
    try:
        (name or "").encode()
    except UnicodeEncodeError:
        fail(f"{flag} is not UTF-8, as all names are: give another name", 2)


@click.group()
def deliveries() -> None:
    """Show what became of deliveries of events, and send one again."""


@deliveries.command("list")
@click.option("--state", type=click.Choice(["pending", "delivered", "dead"]), help="Only those in this state.")
@click.option("--to", "receiver", help="Only those to the receiver of this name.")
@click.option("--limit", type=LIMIT, default=100, show_default=True, help="How many, the newest ones.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with all that is known.")
@setting_options("database")
def deliveries_list(state: str | None, receiver: str | None, limit: int, as_json: bool, **values: Any) -> None:
    """List deliveries, newest first."""
    from events.outbox import describe_delivery, list_deliveries

    check_utf8("--to", receiver)
    with database(values) as connection:
        found = list(list_deliveries(connection, state=state, receiver=receiver, limit=limit))
    for delivery in found:
        click.echo(msgspec.json.encode(delivery).decode() if as_json else describe_delivery(delivery))


@deliveries.command("replay")
@click.argument("delivery_id", type=click.IntRange(1, MAX_ID))
@setting_options("database")
def deliveries_replay(delivery_id: int, **values: Any) -> None:
    """Send a delivery again, whatever became of it."""
    from events.outbox import NoSuchDelivery, replay_delivery

    try:
        with database(values, read_only=False) as connection:
            replay_delivery(connection, delivery_id, time.time())
    except NoSuchDelivery as error:
        fail(str(error), 1)
    click.echo(f"{delivery_id} is pending again")


@click.group()
def rules() -> None:
    """Check a file of rules, and print its JSON schema."""


@rules.command("check")
@click.argument("file", type=click.Path(path_type=Path))
def rules_check(file: Path) -> None:
    """Check a file of rules; name what is wrong with it."""
    from events.rule_file import BadRules, load_rules

    try:
        found = load_rules(file)
    except BadRules as error:
        fail(str(error), 2)
    click.echo(f"{len(found.rules)} rules, {len(found.zones)} zones, {len(found.receivers)} receivers")


@rules.command("schema")
def rules_schema() -> None:
    """Print the JSON schema of a file of rules."""
    from events.rule_types import rules_schema as schema

    click.echo(msgspec.json.format(msgspec.json.encode(schema())).decode())


@contextmanager
def database(values: dict[str, Any], *, read_only: bool = True) -> Iterator[sa.Connection]:
    """Yield a connection to the database of events; end with one line when it fails."""
    from events.database import DatabaseAway, database_errors, has_schema, open_engine
    from events.locations import BadDatabase

    url = used_database(checked_settings(values).database)
    try:
        engine = open_engine(url, read_only=read_only)
        with ExitStack() as stack, database_errors():
            stack.callback(engine.dispose)
            if not has_schema(engine):
                fail(f"there are no events yet at {engine.url.render_as_string()}; `maskwatch record` writes them", 1)
            with engine.begin() as connection:
                yield connection
    except BadDatabase as error:
        fail(str(error), 2)
    except DatabaseAway as error:
        fail(f"the database of events cannot be used: {error}; is --database right?", 1)
