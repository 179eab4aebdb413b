"""Connect to the database of events and bring its schema up to date: a URL in, an engine out.

SQLite by default: one file, in WAL mode, so that readers and the recorder do not wait for each other. PostgreSQL by
URL. `database_errors()` turns what either of them raises into DatabaseAway.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from events.locations import WANTED, BadDatabase, database_url

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
SCHEMA_LOCK = 6_273_911  # of PostgreSQL, while a recorder changes the schema; any number that is ours alone
BUSY_TIMEOUT_S = 5.0  # how long SQLite waits for another process' transaction
# How SQLite begins a transaction, and what a connection sets. Setting auto_vacuum waits for other writers.
WRITING = ("BEGIN IMMEDIATE", "auto_vacuum = INCREMENTAL", "journal_mode = WAL", "foreign_keys = ON")
READING = ("BEGIN", "query_only = ON")
QUICK_BUSY_TIMEOUT_S = 1.0  # ... where somebody waits for the answer
POSTGRESQL = {
    "connect_timeout": 3,
    "tcp_user_timeout": 5_000,  # ms
    "options": "-c statement_timeout=10s -c lock_timeout=5s -c idle_in_transaction_session_timeout=30s",
}
QUICK_POSTGRESQL = {
    "connect_timeout": 2,
    "tcp_user_timeout": 3_000,  # ms
    "options": "-c statement_timeout=5s -c lock_timeout=1s -c idle_in_transaction_session_timeout=10s",
}
QUERY_CANCELED = "57014"  # PostgreSQL's code when a statement takes longer than its time-out
TOO_SLOW = "the database of events took too long to answer: ask about a shorter time or one camera, or try again"
POOL_TIMEOUT_S, QUICK_POOL_TIMEOUT_S = 30.0, 2.0  # how long to wait for a connection that others use


class DatabaseAway(Exception):
    """The database does not answer, or not as it should; says why."""


class DatabaseSlow(DatabaseAway):
    """The database answers, but would take longer for a question than it may."""


def open_engine(url: str | None, *, read_only: bool = False, quick: bool = False) -> sa.Engine:
    """Return an engine, which connects when it is first used.

    Args:
        url: None for the default one.
        read_only: for those that only list: their transactions do not wait for those of others.
        quick: for answers that somebody waits for: an error comes within a few seconds.

    Raises:
        BadDatabase: the URL names no SQLite file and no PostgreSQL.
    """
    try:
        parsed = sa.make_url(database_url(url))
    except BadDatabase:
        raise
    except (ArgumentError, ValueError) as error:
        raise BadDatabase(f"--database: this URL cannot be parsed; {WANTED}") from error
    if parsed.drivername == "sqlite":
        # without a pool each connection opens the file that is there now
        busy_s, pool = (QUICK_BUSY_TIMEOUT_S, sa.NullPool) if quick else (BUSY_TIMEOUT_S, None)
        engine = sa.create_engine(parsed, connect_args={"timeout": busy_s}, poolclass=pool)
        _prepare_sqlite(engine, *(READING if read_only else WRITING))
        return engine
    return sa.create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        connect_args=QUICK_POSTGRESQL if quick else POSTGRESQL,
        pool_pre_ping=True,
        pool_timeout=QUICK_POOL_TIMEOUT_S if quick else POOL_TIMEOUT_S,
    )


def update_schema(engine: sa.Engine) -> None:
    """Create what the database lacks, in one transaction, one recorder at a time.

    Raises:
        DatabaseAway: it does not answer, or holds the schema of a newer version of maskwatch.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if engine.dialect.name == "sqlite" and engine.url.database:
        with database_errors():
            file = Path(engine.url.database)
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.touch(mode=0o600)  # rules that are set over the API hold secrets
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with database_errors(), engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": SCHEMA_LOCK})
            connection.execute(sa.text("SET LOCAL statement_timeout = 0"))  # a migration may read all rows
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def has_schema(engine: sa.Engine) -> bool:
    """Return whether a recorder has used this database; a missing file of SQLite is not created."""
    if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").is_file():
        return False
    return sa.inspect(engine).has_table("events")


@contextlib.contextmanager
def database_errors() -> Iterator[None]:
    """Raise what the database raises in the block as DatabaseAway."""
    try:
        yield
    except (DBAPIError, PoolTimeout, CommandError, OSError, sqlite3.Error) as error:  # sqlite3: of a raw connection
        cause = getattr(error, "orig", None) or error
        if getattr(cause, "sqlstate", None) == QUERY_CANCELED:
            raise DatabaseSlow(TOO_SLOW) from error
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        raise DatabaseAway(lines[0]) from error


def _prepare_sqlite(engine: sa.Engine, begin: str, *pragmas: str) -> None:
    """Let transactions begin with our own statement, and set what a file and a connection need."""

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begun(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)
