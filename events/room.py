"""How much room the tables take in a database, and what gives it back after rows were removed.

SQLite: the file without its free pages, which are then cut off, some at a time. PostgreSQL: the tables with their
indexes, without the room in them that removed rows have left, which VACUUM lets new rows use. PostgreSQL's files become
smaller only if a table is written anew (VACUUM FULL), for which nobody else may use it: that happens only when they are
larger than they may be, as when a smaller size was set.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import sqlalchemy as sa

from events.tables import COUNTS, DELIVERIES, EVENTS, EVIDENCE, QUARTER_COUNTS, THUMBNAILS

CUT_PAGES = 500  # of SQLite, which one transaction cuts off: 2 MB
PAUSE_S = 0.05  # after each
GROWING = (EVENTS, DELIVERIES, EVIDENCE, THUMBNAILS, COUNTS, QUARTER_COUNTS)
LARGER = 1.03  # than it may be: when PostgreSQL's tables are written anew
SAMPLE = 2_000  # rows whose mean size counts
LINE_POINTER = 4  # bytes that a page of PostgreSQL needs besides each row


def used_bytes(engine: sa.Engine, enough: int = 0) -> int:
    """Return how much room the tables take, without what is free in them.

    enough: if they take less with all that is free in them, that is returned, which costs nothing to find out.
    """
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            pages, free, size = (_pragma(connection, name) for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size
    with _maintenance(engine) as connection:
        total = sum(_size(connection, table.name) for table in GROWING)
        return total if total <= enough else sum(_table_bytes(connection, table) for table in GROWING)


def free_room(engine: sa.Engine, max_bytes: int, pause: Callable[[float], object]) -> None:
    """Give back, or let new rows use, the room of rows that were removed.

    Args:
        max_bytes: that the tables may take.
        pause: waits for some seconds.
    """
    if engine.dialect.name == "sqlite":
        _cut_file(engine, pause)
        return
    with _maintenance(engine) as connection:
        for table in GROWING:
            connection.exec_driver_sql(f"VACUUM (ANALYZE) {table.name}")
        total = sum(_size(connection, table.name) for table in GROWING)
        if total > max_bytes * LARGER:
            for table in GROWING:
                connection.exec_driver_sql(f"VACUUM (FULL, ANALYZE) {table.name}")


def _cut_file(engine: sa.Engine, pause: Callable[[float], object]) -> None:
    while True:
        with engine.connect() as connection:
            free = _pragma(connection, "freelist_count")
        if not free:
            break
        with contextlib.closing(engine.raw_connection()) as raw:
            # execute() would free one page
            raw.cursor().executescript(f"PRAGMA incremental_vacuum({CUT_PAGES})")
        pause(PAUSE_S)
    with contextlib.closing(engine.raw_connection()) as raw:
        raw.cursor().executescript("PRAGMA wal_checkpoint(TRUNCATE)")  # the file shrinks when the log is written back


def _pragma(connection: sa.Connection, name: str) -> int:
    return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())


@contextlib.contextmanager
def _maintenance(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection of PostgreSQL on which statements may take long and commit by themselves."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.detach()  # nobody else gets it; it may also be broken in the end
        connection.exec_driver_sql("SET statement_timeout = 0")
        yield connection


def _size(connection: sa.Connection, table: str) -> int:
    return int(connection.execute(sa.select(sa.func.pg_total_relation_size(table))).scalar_one())


def _table_bytes(connection: sa.Connection, table: sa.Table) -> int:
    """Return how much of a table and its indexes is in use: as large a share as of its own pages."""
    connection.exec_driver_sql(f"ANALYZE {table.name}")  # counts rows by a sample of the pages
    sampled = sa.select(table).limit(SAMPLE).subquery("sampled")
    row_bytes = sa.func.avg(sa.func.pg_column_size(sa.literal_column("sampled.*")))
    mean = connection.execute(sa.select(row_bytes).select_from(sampled)).scalar_one()
    rows, pages, page_bytes = connection.exec_driver_sql(
        "SELECT reltuples, relpages, current_setting('block_size')::int FROM pg_class WHERE oid = %s::regclass",
        (table.name,),
    ).one()
    if mean is None:
        return 0
    share = min(1.0, rows * (float(mean) + LINE_POINTER) / (pages * page_bytes))
    return int(_size(connection, table.name) * share)
