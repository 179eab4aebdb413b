"""The recorder's database as a process uses it that can work without: opened late, and never waited for.

A database that is away, or of another version of maskwatch, is one error with a line for people. While it is known to
be away, those who ask for it are told so at once; a thread of its own finds out when it is back.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator

import sqlalchemy as sa

from events.database import DatabaseAway, DatabaseSlow, database_errors, has_schema, open_engine
from events.locations import BadDatabase
from events.tables import VERSIONS

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 2.0
VERSION = sa.table("alembic_version", sa.column("version_num"))  # Alembic's, with the version of the schema


class EventDatabase:
    """The database of events. Threads may share it.

    Args:
        url: None for the default one.
    """

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._problem: str | None = None
        self._was_usable = False

    @property
    def problem(self) -> str | None:
        """Why the database cannot be used, as it was found last; None if it can, or was not used yet."""
        return self._problem

    @property
    def is_named(self) -> bool:
        """Whether somebody has named the database; the default one need not be there."""
        return self._url is not None

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Yield a connection that only reads, and waits for no writer.

        Raises:
            DatabaseAway: the database cannot be used; says why, and what to do.
        """
        with self._connected(read_only=True) as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Yield a connection whose changes are written when the block ends without an error.

        Raises:
            DatabaseAway: the database cannot be used, or another process writes for too long.
        """
        with self._connected(read_only=False) as connection:
            yield connection

    def watch(self, wait: Callable[[float], bool]) -> None:
        """Find out whether the database can be used, again and again; for a thread of its own.

        wait: waits for some seconds, and returns whether to stop.
        """
        self.check()
        while not wait(CHECK_INTERVAL_S):
            self.check()

    def check(self) -> None:
        """Find out whether the database can be used."""
        self._problem = self._ask()
        if self._was_usable and self._problem:
            log.warning("%s", self._problem)
        self._was_usable = self._problem is None

    @contextlib.contextmanager
    def _connected(self, *, read_only: bool) -> Iterator[sa.Connection]:
        if self._problem is not None:
            raise DatabaseAway(self._problem)
        with _explained(), database_errors():
            engine = self._reader if read_only else self._writer
            _check_recorded(engine)
            with engine.begin() as connection:
                _check_version(connection)
                yield connection

    def _ask(self) -> str | None:
        try:
            with _explained(), database_errors():
                _check_recorded(self._reader)
                with self._reader.connect() as connection:
                    _check_version(connection)
        except DatabaseAway as error:
            return str(error)
        return None

    @functools.cached_property
    def _reader(self) -> sa.Engine:
        return open_engine(self._url, read_only=True, quick=True)

    @functools.cached_property
    def _writer(self) -> sa.Engine:
        return open_engine(self._url, quick=True)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Add to an error what to do about it."""
    try:
        yield
    except _Unusable as error:
        raise DatabaseAway(str(error)) from error
    except BadDatabase as error:
        raise DatabaseAway(str(error)) from error
    except DatabaseSlow:
        raise
    except DatabaseAway as error:
        raise DatabaseAway(f"the database of events cannot be used: {error}; is --database right?") from error


class _Unusable(Exception):
    """The database answers, but holds no schema that can be read; says what to do."""


def _check_recorded(engine: sa.Engine) -> None:
    """Check that a recorder has used the database."""
    if not has_schema(engine):
        where = engine.url.render_as_string()
        raise _Unusable(
            f"there are no events yet at {where}: start `maskwatch record`, which writes them; if one runs, see its log"
        )


def _check_version(connection: sa.Connection) -> None:
    """Check that the schema is that of this version of maskwatch."""
    found = connection.execute(sa.select(VERSION.c.version_num)).scalar()
    known = VERSIONS
    if found == known[0]:
        return
    if found in known:
        raise _Unusable("the database of events is of an older version: start `maskwatch record` of this version once")
    raise _Unusable(f"the database of events is of a newer version ({found}): update maskwatch here, too")
