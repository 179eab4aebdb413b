"""Databases of events for tests: a test that takes `engine` runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from events.database import open_engine
from events.locations import sqlite_url

KINDS = ("sqlite", "postgresql")


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path / "data" / "events.db")
        return
    server = request.getfixturevalue("postgresql")
    url = server.create_database()
    yield url
    server.drop_database(url)


@pytest.fixture
def engine(database: str) -> Iterator[sa.Engine]:
    """A database without tables."""
    found = open_engine(database)
    yield found
    found.dispose()


@pytest.fixture
def sqlite_engine(tmp_path: Path) -> Iterator[sa.Engine]:
    """A file of SQLite that does not exist yet."""
    found = open_engine(sqlite_url(tmp_path / "data" / "events.db"))
    yield found
    found.dispose()
