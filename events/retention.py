"""Remove what is older than some days, and the oldest events of a database that has grown too large.

A recorder does it once a minute, a part at a time, so that no transaction is long. Events that are still open stay.
"""

from __future__ import annotations

import contextlib

import sqlalchemy as sa

from events.database import database_errors
from events.outbox import give_up
from events.rule_types import DAY_S
from events.tables import COUNTS, DELIVERIES, EVENTS

MAX_REMOVED = 5_000  # events in one transaction
MB = 1_000_000


def tidy(engine: sa.Engine, *, keep_days: float, keep_mb: float, at: float, now: float) -> int:
    """Give up old deliveries and remove what is not kept; return how many events were removed.

    Args:
        at: the present time on the clock of events. now: on that of deliveries.

    Raises:
        DatabaseAway: the database does not answer.
    """
    oldest = at - keep_days * DAY_S
    with database_errors(), engine.begin() as connection:
        give_up(connection, now)
        connection.execute(sa.delete(COUNTS).where(COUNTS.c.minute < oldest // 60))
        removed = _remove(connection, EVENTS.c.ended_at < oldest)
        if used_bytes(connection) > keep_mb * MB:
            removed += _remove(connection, EVENTS.c.ended_at.is_not(None))
    if removed and engine.dialect.name == "sqlite":
        with database_errors(), contextlib.closing(engine.raw_connection()) as raw:
            # execute() would free one page; the file shrinks when the log is written back
            raw.cursor().executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)")
    return removed


def used_bytes(connection: sa.Connection) -> int:
    """Return how much room the tables take, without what was free already."""
    if connection.dialect.name == "sqlite":
        pages, free, size = (
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)
    names = [EVENTS.name, DELIVERIES.name, COUNTS.name]
    sizes = [connection.execute(sa.select(sa.func.pg_total_relation_size(name))).scalar_one() for name in names]
    return int(sum(sizes))


def _remove(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> int:
    """Remove the oldest events for which a condition holds, at most MAX_REMOVED, with their deliveries."""
    oldest = sa.select(EVENTS.c.id).where(condition).order_by(EVENTS.c.started_at, EVENTS.c.id).limit(MAX_REMOVED)
    ids = list(connection.execute(oldest).scalars())
    for start in range(0, len(ids), 500):
        part = ids[start : start + 500]
        connection.execute(sa.delete(DELIVERIES).where(DELIVERIES.c.event_id.in_(part)))
        connection.execute(sa.delete(EVENTS).where(EVENTS.c.id.in_(part)))
    return len(ids)
