"""A process that can work without the database of events is told at once when it is away, and when it is back."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from conftest import wait_until
from test_event_store import AT, active, opened

from bench.postgresql import PostgresServer
from events.database import DatabaseAway, DatabaseSlow, open_engine
from events.event_database import EventDatabase
from events.locations import sqlite_url
from events.outbox import replay_delivery
from events.reading import EventFilter, read_events
from events.store import Progress


def recorded(file: Path) -> str:
    """Make a database with one event and return its URL."""
    engine = open_engine(sqlite_url(file))
    active(engine).write(Progress(changes=[opened()]), AT)
    engine.dispose()
    return sqlite_url(file)


def count(database: EventDatabase) -> int:
    with database.reading() as connection:
        return len(read_events(connection, EventFilter()).events)


def test_events_are_read_while_a_recorder_writes(tmp_path: Path) -> None:
    database = EventDatabase(recorded(tmp_path / "events.db"))
    recorder = sqlite3.connect(tmp_path / "events.db", isolation_level=None)
    recorder.execute("BEGIN IMMEDIATE")

    found = count(database)
    with pytest.raises(DatabaseAway, match="locked"), database.writing() as connection:
        replay_delivery(connection, 1, AT)
    recorder.close()

    assert found == 1
    assert database.problem is None


@pytest.mark.parametrize(
    ("version", "message"),
    [("9999", "newer version (9999): update maskwatch"), ("0001", "older version"), (None, "no events yet")],
)
def test_a_database_of_another_version_is_not_read(tmp_path: Path, version: str | None, message: str) -> None:
    url = recorded(tmp_path / "events.db")
    file = sqlite3.connect(tmp_path / "events.db")
    if version is None:
        file.execute("DROP TABLE events")
    else:
        file.execute("UPDATE alembic_version SET version_num = ?", [version])
    file.commit()
    file.close()

    with pytest.raises(DatabaseAway) as caught:
        count(EventDatabase(url))

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_database_that_is_not_there_is_not_made_and_is_found_when_a_recorder_makes_it(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "events.db"
    database = EventDatabase(sqlite_url(file))
    stop = threading.Event()
    watching = threading.Thread(target=database.watch, args=(stop.wait,))

    watching.start()
    problem = wait_until(lambda: database.problem, 10, "the database is missed")
    with pytest.raises(DatabaseAway, match="start `maskwatch record`"):
        count(database)
    was_made = file.parent.exists()
    recorded(file)
    wait_until(lambda: database.problem is None, 10, "the database is found")
    stop.set()
    watching.join()

    assert "there are no events yet at sqlite:///" in problem
    assert not was_made
    assert count(database) == 1


@pytest.mark.parametrize("content", [b"this is no database" * 100, None], ids=["no database", "a folder"])
def test_a_file_that_is_no_database_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "events.db"
    file.mkdir() if content is None else file.write_bytes(content)

    with pytest.raises(DatabaseAway) as caught:
        count(EventDatabase(sqlite_url(file)))

    assert "\n" not in str(caught.value)


def test_a_server_that_does_not_answer_costs_later_readers_nothing() -> None:
    database = EventDatabase("postgresql://user:very-secret@127.0.0.1:1/events")

    database.check()
    with pytest.raises(DatabaseAway) as caught:
        count(database)

    assert str(caught.value) == database.problem
    assert "very-secret" not in str(caught.value)


def test_a_question_that_takes_too_long_is_not_blamed_on_the_url(postgresql: PostgresServer) -> None:
    url = postgresql.create_database()
    engine = open_engine(url)
    active(engine)
    engine.dispose()
    database = EventDatabase(url)

    with pytest.raises(DatabaseSlow, match="too long to answer: ask about a shorter time"), database.reading() as one:
        one.execute(sa.text("SET LOCAL statement_timeout = '10ms'"))
        one.execute(sa.text("SELECT pg_sleep(10)"))
    found = count(database)
    database._reader.dispose()

    assert found == 0
