"""The database of a scene: a file of SQLite or a PostgreSQL, which goes away for some time, and is read in the end."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench.postgresql import PostgresServer, postgresql_programs, running_postgresql
from events.database import DatabaseAway, database_errors, open_engine
from events.locations import sqlite_url


class SceneDatabase(ABC):
    """A database that recorders write. url: its address."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = open_engine(url, read_only=True)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def begin_outage(self, seconds: float) -> None:
        """Let the database be away for so long; return when it is."""
        away = threading.Event()
        self._thread = threading.Thread(target=self._be_away, args=(seconds, away), name="outage")
        self._thread.start()
        away.wait()

    def end(self) -> None:
        """End an outage, and disconnect."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._engine.dispose()

    def read(self, query: str) -> Sequence[sa.Row[Any]]:
        """Return the rows of a query; none while the database is away."""
        with contextlib.suppress(DatabaseAway), database_errors(), self._engine.begin() as connection:
            return connection.exec_driver_sql(query).all()
        return []

    @abstractmethod
    def _be_away(self, seconds: float, away: threading.Event) -> None: ...


class SqliteFile(SceneDatabase):
    """A file in a folder; while it is away, a connection holds it for itself."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "events.db"
        super().__init__(sqlite_url(self._file))

    def _be_away(self, seconds: float, away: threading.Event) -> None:
        with contextlib.closing(sqlite3.connect(self._file, isolation_level=None, timeout=60)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            away.set()
            self._ended.wait(seconds)
            connection.execute("COMMIT")


class PostgresDatabase(SceneDatabase):
    """A database of a server that stops as in a power cut while it is away."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        super().__init__(server.create_database())

    def _be_away(self, seconds: float, away: threading.Event) -> None:
        self._server.stop()
        away.set()
        self._ended.wait(seconds)
        self._server.start()


@contextlib.contextmanager
def scene_database(kind: str, folder: Path) -> Iterator[SceneDatabase]:
    """Yield an empty database. kind: sqlite, a file in the folder; or postgresql, a server of its own.

    Raises:
        FileNotFoundError: there is no PostgreSQL on this machine.
    """
    with contextlib.ExitStack() as stack:
        if kind == "sqlite":
            database: SceneDatabase = SqliteFile(folder)
        else:
            programs = postgresql_programs()
            if programs is None:
                raise FileNotFoundError("there is no PostgreSQL on this machine; run: apt-get install postgresql")
            database = PostgresDatabase(stack.enter_context(running_postgresql(programs)))
        stack.callback(database.end)
        yield database
