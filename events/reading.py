"""Read events for lists and pages: filters in, typed records out. Nothing here writes.

Events come newest first, in pages. A cursor names the last event of a page by start and ID, so that events that are
added or removed meanwhile neither repeat nor hide others.
"""

from __future__ import annotations

import base64
import re

import sqlalchemy as sa
from msgspec import Struct

from events.event_types import Event
from events.outbox import Delivery
from events.tables import DELIVERIES, EVENTS

MAX_CHOICES = 1_000  # of a kind
_PLACE = re.compile(r"(-?[0-9]{1,20}(?:\.[0-9]{1,20})?(?:e[-+]?[0-9]{1,3})?) ([0-9a-f]{32})")


class BadCursor(ValueError):
    """A cursor that no page has given."""


class EventFilter(Struct, frozen=True, kw_only=True):
    """Which events are wanted; None for any.

    since, until: when they began, Unix seconds; until is not part of it. open_only: those that have not ended.
    """

    camera: str | None = None
    kind: str | None = None
    zone: str | None = None
    rule: str | None = None
    since: float | None = None
    until: float | None = None
    open_only: bool = False


class EventPage(Struct, frozen=True, kw_only=True):
    """Some events, newest first. next_cursor: of the page after it; None for the last one."""

    events: list[Event]
    next_cursor: str | None


class EventChoices(Struct, frozen=True, kw_only=True):
    """What events are about, sorted: the values that a filter can have."""

    cameras: list[str]
    kinds: list[str]
    rules: list[str]
    zones: list[str]


def read_events(
    connection: sa.Connection, wanted: EventFilter, *, limit: int = 100, cursor: str | None = None
) -> EventPage:
    """Return a page of events, newest first.

    Args:
        limit: the most events of the page.
        cursor: of the page before it; None for the first page.

    Raises:
        BadCursor: no page has given this cursor.
    """
    query = sa.select(EVENTS).where(*_conditions(wanted))
    if cursor is not None:
        after = sa.tuple_(*map(sa.literal, _place(cursor)))
        query = query.where(sa.tuple_(EVENTS.c.started_at, EVENTS.c.id) < after)
    query = query.order_by(EVENTS.c.started_at.desc(), EVENTS.c.id.desc()).limit(limit + 1)
    found = [Event(**row._mapping) for row in connection.execute(query)]
    return EventPage(events=found[:limit], next_cursor=_cursor(found[limit - 1]) if len(found) > limit else None)


def read_event(connection: sa.Connection, event_id: str) -> Event | None:
    """Return an event, None if there is none with this ID."""
    row = connection.execute(sa.select(EVENTS).where(EVENTS.c.id == event_id)).first()
    return None if row is None else Event(**row._mapping)


def read_deliveries_of(connection: sa.Connection, event_id: str) -> list[Delivery]:
    """Return the deliveries of an event, oldest first."""
    query = sa.select(DELIVERIES).where(DELIVERIES.c.event_id == event_id).order_by(DELIVERIES.c.id)
    return [Delivery(**row._mapping) for row in connection.execute(query)]


def read_choices(connection: sa.Connection) -> EventChoices:
    """Return the cameras, kinds, rules and zones that events are about."""
    return EventChoices(
        cameras=read_values(connection, EVENTS.c.camera),
        kinds=read_values(connection, EVENTS.c.kind),
        rules=read_values(connection, EVENTS.c.rule),
        zones=read_values(connection, EVENTS.c.zone),
    )


def read_values(connection: sa.Connection, column: sa.Column[str]) -> list[str]:
    """Return the values of a column, sorted; one search of its index for each, instead of reading every event."""
    found = sa.select(sa.func.min(column).label("value")).cte("found", recursive=True)
    following = sa.select(sa.func.min(column)).where(column > found.c.value).scalar_subquery()
    found = found.union_all(sa.select(following).where(found.c.value.is_not(None)))
    values = sa.select(found.c.value).where(found.c.value.is_not(None)).limit(MAX_CHOICES)
    return list(connection.execute(values).scalars())


def _conditions(wanted: EventFilter) -> list[sa.ColumnElement[bool]]:
    names = ("camera", "kind", "zone", "rule")
    columns: dict[str, sa.ColumnElement[str]] = {name: EVENTS.c[name] for name in names}
    if wanted.open_only:  # few events are open: SQLite takes their index, if no other one fits
        columns = {name: column.concat("") for name, column in columns.items()}
    found = [columns[name] == value for name in names if (value := getattr(wanted, name)) is not None]
    if wanted.since is not None:
        found.append(EVENTS.c.started_at >= wanted.since)
    if wanted.until is not None:
        found.append(EVENTS.c.started_at < wanted.until)
    if wanted.open_only:
        found.append(EVENTS.c.ended_at.is_(None))
    return found


def _cursor(event: Event) -> str:
    return base64.urlsafe_b64encode(f"{event.started_at!r} {event.id}".encode()).decode().rstrip("=")


def _place(cursor: str) -> tuple[float, str]:
    """Return the start and the ID of the event that a cursor names."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except ValueError:
        text = ""
    if not (match := _PLACE.fullmatch(text)):
        raise BadCursor("this cursor is not one that a page of events has given: leave it out")
    return float(match[1]), match[2]
