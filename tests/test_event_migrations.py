"""A database that an earlier version has written is brought up to date, and keeps what is in it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from databases import database, engine
from test_event_store import stored

from events.event_types import Change, EventEvidence
from events.evidence import read_evidence
from events.outbox import list_deliveries
from events.schema import MIGRATIONS, update_schema
from events.store import Progress, Store
from events.tables import METADATA, QUARTER_COUNTS, VERSIONS
from events.thumbnails import read_thumbnail

__all__ = ["database", "engine"]

ROWS = Path(__file__).with_name("first_schema_rows.json")  # written by the version that had the first schema
BASE64 = "base64:"


def first_rows() -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each table as the first schema has them."""
    tables = json.loads(ROWS.read_text())
    return {name: [{key: _value(one) for key, one in row.items()} for row in rows] for name, rows in tables.items()}


def _value(stored_value: Any) -> Any:
    if isinstance(stored_value, str) and stored_value.startswith(BASE64):
        return base64.b64decode(stored_value.removeprefix(BASE64))
    return stored_value


def make_first_database(engine: sa.Engine) -> None:
    """Create the first schema, and fill it."""
    Path(str(engine.url.database)).parent.mkdir(exist_ok=True)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        first = sa.MetaData()
        first.reflect(connection)
        connection.execute(sa.delete(first.tables["lease"]))
        for table in first.sorted_tables:
            if rows := first_rows().get(table.name):
                connection.execute(sa.insert(table), rows)


def test_the_versions_that_readers_know_are_those_of_the_migrations() -> None:
    found = [one.revision for one in ScriptDirectory(str(MIGRATIONS)).walk_revisions()]

    assert list(VERSIONS) == found


def test_all_rows_of_the_first_schema_survive(engine: sa.Engine) -> None:
    make_first_database(engine)

    update_schema(engine)

    before = first_rows()
    with engine.begin() as connection:
        after = {
            name: [dict(row._mapping) for row in connection.execute(sa.select(METADATA.tables[name]))]
            for name in before
        }
    assert min(len(rows) for rows in before.values()) > 0
    for name, rows in before.items():
        found = [{key: row[key] for key in rows[0]} for row in after[name]]
        assert sorted(found, key=str) == sorted(rows, key=str), name


def test_counts_of_the_first_schema_are_summed_by_quarter(engine: sa.Engine) -> None:
    make_first_database(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE counts SET people_s = 13, masks_s = 4"))  # of minute 28,333,333 at the door
        for camera, minute in (("door", 28_333_334), ("door", 28_333_335), ("yard", 28_333_335)):
            connection.execute(sa.text(f"INSERT INTO counts VALUES ('{camera}', {minute}, 2, 1, 3, 5)"))  # noqa: S608

    update_schema(engine)

    with engine.begin() as connection:
        rows = sorted(tuple(row) for row in connection.execute(sa.select(QUARTER_COUNTS)))
    assert rows == [("door", 1_888_888, 15, 5, 3, 78), ("door", 1_888_889, 2, 1, 3, 5), ("yard", 1_888_889, 2, 1, 3, 5)]


def test_a_recorder_of_an_older_version_that_does_not_sum_counts_by_quarter_writes_nothing_more(
    engine: sa.Engine,
) -> None:
    make_first_database(engine)
    older = sa.text("UPDATE lease SET expires_at = 5003, token = 'older'")
    with engine.begin() as connection:
        connection.execute(older)

    snapshot = Store(engine, "newer", []).take_over(5_000)

    assert snapshot is not None
    with engine.begin() as connection:
        assert connection.execute(sa.text("SELECT token FROM lease")).scalar_one() == "newer"


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_migration_of_many_rows_may_take_longer_than_other_statements(engine: sa.Engine) -> None:
    make_first_database(engine)
    impatient = sa.create_engine(engine.url, connect_args={"options": "-c statement_timeout=500ms"})

    @sa.event.listens_for(impatient, "before_cursor_execute")
    def take_long(_connection: sa.Connection, cursor: Any, statement: str, *_: object) -> None:
        if "INSERT INTO quarter_counts" in statement:
            cursor.execute("SELECT pg_sleep(1)")

    update_schema(impatient)
    impatient.dispose()

    with engine.begin() as connection:
        assert connection.execute(sa.select(QUARTER_COUNTS)).all()


def test_a_recorder_continues_in_a_database_of_the_first_schema(engine: sa.Engine) -> None:
    make_first_database(engine)
    store = Store(engine, "two", [])

    snapshot = store.take_over(1_700_000_000.0)
    (open_one,) = [one for one in stored(engine) if one.ended_at is None]
    ended = msgspec.structs.replace(open_one, ended_at=open_one.started_at + 9)
    evidence = EventEvidence(rule="{}", measure="confidence", points=[(open_one.started_at, 0.9)])
    store.write(Progress(changes=[Change(phase="closed", event=ended, evidence=evidence)]), 1_700_000_001.0)

    assert snapshot is not None
    assert snapshot.positions == {"{s0}:results": b"1700000000000-7"}
    with engine.begin() as connection:
        assert read_evidence(connection, ended.id) == evidence
        assert read_thumbnail(connection, ended.id) is None
        assert len(list_deliveries(connection)) == len(first_rows()["deliveries"])
    assert ended in stored(engine)
