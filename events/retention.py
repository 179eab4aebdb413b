"""Remove what is older than some days, and the oldest events and minutes of a database that has grown too large.

A recorder does it once a minute (events/tidier.py), in slices with a pause after each one, so that writing events never
waits for long. Events that are still open stay, and so do those with messages that are still to be delivered.
events/room.py measures a database, and gives back what was freed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import sqlalchemy as sa

from events.database import database_errors
from events.outbox import give_up
from events.room import free_room, used_bytes
from events.rule_types import DAY_S
from events.tables import COUNTS, DELIVERIES, EVENTS, EVIDENCE, QUARTER_COUNTS, QUARTER_MIN, THUMBNAILS

SLICE = 250  # events that one transaction removes
PAUSE_S = 0.05  # after each, in which the recorder writes
FULL_SHARE = 0.97  # of what may be used: the oldest events are removed until it is less
MAX_ROUNDS = 5  # of removing what seems too much, and measuring again
MB = 1_000_000


def tidy(
    engine: sa.Engine,
    *,
    keep_days: float,
    keep_mb: float,
    at: float,
    now: float,
    pause: Callable[[float], object] = time.sleep,
) -> int:
    """Give up old deliveries and remove what is not kept; return how many events were removed.

    Args:
        at: the present time on the clock of events. now: on that of deliveries.
        pause: waits for some seconds.

    Raises:
        DatabaseAway: the database does not answer.
    """
    oldest, max_bytes = at - keep_days * DAY_S, int(keep_mb * MB)
    with database_errors():
        with engine.begin() as connection:
            give_up(connection, now)
            first = int(oldest // 60) // QUARTER_MIN  # minutes go with their quarter of an hour: sums stay theirs
            connection.execute(sa.delete(COUNTS).where(COUNTS.c.minute < first * QUARTER_MIN))
            connection.execute(sa.delete(QUARTER_COUNTS).where(QUARTER_COUNTS.c.quarter < first))
        is_old = (EVENTS.c.ended_at < oldest) & (EVENTS.c.started_at < oldest)  # the latter has an index
        removed = _remove(engine, is_old, None, pause)
        if removed:
            free_room(engine, max_bytes, pause)
        return removed + _make_room(engine, max_bytes, pause)


def _make_room(engine: sa.Engine, max_bytes: int, pause: Callable[[float], object]) -> int:
    """Remove the same share of the oldest events and minutes if a database is too large; return how many events."""
    removed = 0
    for _ in range(MAX_ROUNDS):
        used = used_bytes(engine, max_bytes)
        if used <= max_bytes:
            break
        share = (used - max_bytes * FULL_SHARE) / used
        minutes = _remove_minutes(engine, share)
        with engine.connect() as connection:
            count = connection.execute(sa.select(sa.func.count()).select_from(EVENTS)).scalar_one()
        last = _remove(engine, EVENTS.c.ended_at.is_not(None), 1 + int(count * share), pause)
        free_room(engine, max_bytes, pause)
        removed += last
        if not last and not minutes:
            break
    return removed


def _remove_minutes(engine: sa.Engine, share: float) -> int:
    """Remove this share of the counts of minutes, the oldest; return how many. Those of quarters of an hour stay."""
    minute = COUNTS.c.minute
    with engine.begin() as connection:
        oldest, newest = connection.execute(sa.select(sa.func.min(minute), sa.func.max(minute))).one()
        if oldest is None:
            return 0
        first = int(oldest + share * (newest - oldest)) // QUARTER_MIN * QUARTER_MIN
        return connection.execute(sa.delete(COUNTS).where(minute < first)).rowcount


def _remove(
    engine: sa.Engine, condition: sa.ColumnElement[bool], limit: int | None, pause: Callable[[float], object]
) -> int:
    """Remove the oldest events for which a condition holds, with all that belongs to them. limit: None for all."""
    removed = 0
    while limit is None or removed < limit:
        wanted = SLICE if limit is None else min(SLICE, limit - removed)
        with engine.begin() as connection:
            found = _remove_slice(connection, condition, wanted)
        removed += found
        if found < wanted:
            break
        pause(PAUSE_S)
    return removed


def _remove_slice(connection: sa.Connection, condition: sa.ColumnElement[bool], limit: int) -> int:
    is_pending = (DELIVERIES.c.event_id == EVENTS.c.id) & (DELIVERIES.c.state == "pending")
    may_go = condition & ~sa.exists().where(is_pending)
    oldest = sa.select(EVENTS.c.id).where(may_go).order_by(EVENTS.c.started_at, EVENTS.c.id).limit(limit)
    ids = list(connection.execute(oldest).scalars())
    for table in (DELIVERIES, EVIDENCE, THUMBNAILS):
        connection.execute(sa.delete(table).where(table.c.event_id.in_(ids)))
    connection.execute(sa.delete(EVENTS).where(EVENTS.c.id.in_(ids)))
    return len(ids)
