"""Bring the schema of the database of events up to date, by the migrations in events/migrations.

Only recorders do it: other processes check the version, and do not load Alembic.
"""

from __future__ import annotations

import logging
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from events.database import DatabaseAway, database_errors

MIGRATIONS = Path(__file__).parent / "migrations"
SCHEMA_LOCK = 6_273_911  # of PostgreSQL, while a recorder changes the schema; any number that is ours alone


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
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise DatabaseAway(str(error).strip().splitlines()[0]) from error
