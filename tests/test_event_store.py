"""Events and what a recorder continues from are written together, once, by one recorder at a time."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from databases import database, engine, sqlite_engine
from event_scenes import Person, scene

from events.camera_watch import CameraWatch
from events.database import DatabaseAway, open_engine
from events.event_list import describe_event
from events.event_types import Change, Event
from events.locations import sqlite_url
from events.minute_counts import MinuteCount
from events.outbox import list_deliveries
from events.reading import EventFilter, read_events
from events.rule_file import parse_rules
from events.rule_types import Webhook
from events.schema import update_schema
from events.store import LEASE_S, LeaseLost, Progress, Store
from events.tables import COUNTS, METADATA

__all__ = ["database", "engine", "sqlite_engine"]

OFFICE = Webhook(name="office", url="https://example.com/", secret="sixteen letters!")
AT = 1_700_000_000.0


def event(number: int = 1, **values: object) -> Event:
    fields = {"id": f"{number:032x}", "rule": "bare", "kind": "no_mask", "camera": "door", "subject": str(number)}
    return msgspec.convert(fields | {"started_at": AT + number, "opened_at": AT + number + 5} | values, Event)


def opened(number: int = 1, **values: object) -> Change:
    return Change(phase="opened", event=event(number, **values))


def closed(number: int = 1, **values: object) -> Change:
    return Change(phase="closed", event=event(number, ended_at=AT + number + 9, **values))


def active(engine: sa.Engine, name: str = "one", *webhooks: Webhook, at: float = AT) -> Store:
    """Return a store whose recorder is active."""
    store = Store(engine, name, webhooks, now=lambda: at)
    assert store.take_over(at) is not None
    return store


def stored(engine: sa.Engine) -> list[Event]:
    with engine.begin() as connection:
        return read_events(connection, EventFilter()).events


def test_a_change_is_written_once_with_a_delivery_for_each_phase(engine: sa.Engine) -> None:
    store = active(engine, "one", OFFICE)

    for changes in ([opened()], [opened()], [closed(people=3)], [closed(), opened()]):
        store.write(Progress(changes=changes), AT)

    assert stored(engine) == [closed(people=3).event]
    with engine.begin() as connection:
        deliveries = list_deliveries(connection)
    assert [(one.phase, one.state) for one in deliveries] == [("closed", "pending"), ("opened", "pending")]


def test_a_new_file_can_be_read_by_its_user_alone(sqlite_engine: sa.Engine) -> None:
    active(sqlite_engine)

    assert Path(str(sqlite_engine.url.database)).stat().st_mode & 0o777 == 0o600


def test_a_database_that_was_replaced_by_an_empty_one_gets_its_tables(engine: sa.Engine) -> None:
    store = active(engine)
    with engine.begin() as connection:
        METADATA.drop_all(connection)
        connection.exec_driver_sql("DROP TABLE alembic_version")

    with pytest.raises(DatabaseAway):
        store.take_over(AT)

    assert store.take_over(AT) is not None


def test_only_webhooks_that_want_a_rule_get_its_events(engine: sa.Engine) -> None:
    other = msgspec.structs.replace(OFFICE, name="other", rules=["offline"])
    store = active(engine, "one", OFFICE, other)

    store.write(Progress(changes=[opened()]), AT)

    with engine.begin() as connection:
        assert [one.receiver for one in list_deliveries(connection)] == ["office"]


def test_what_was_written_is_continued(engine: sa.Engine) -> None:
    rules = parse_rules("[[rules]]\nkind = 'no_mask'\nname = 'bare'\n")
    watch = CameraWatch("door", rules)
    for one in scene([Person(1, 0, 20, bare=[(0, 20)])], 10):
        watch.add(one)
    store = active(engine)
    store.write(Progress(positions={"{s0}:results": b"7-1"}, states={"door": watch.state}), AT)
    store.write(Progress(positions={"{s0}:results": b"8-1"}), AT)
    store.let_go()

    snapshot = Store(engine, "two", []).take_over(AT)

    assert snapshot is not None
    assert snapshot.positions == {"{s0}:results": b"8-1"}
    assert snapshot.states == {"door": watch.state}


def test_one_recorder_is_active_until_its_lease_ends(engine: sa.Engine) -> None:
    first = active(engine, "one")
    second = Store(engine, "two", [])

    early = second.take_over(AT + LEASE_S - 0.1)
    first.write(Progress(), AT + 1)
    renewed = second.take_over(AT + LEASE_S + 0.5)
    late = second.take_over(AT + LEASE_S + 1.1)

    assert (early, renewed) == (None, None)
    assert late is not None


def test_a_recorder_that_was_replaced_writes_nothing(engine: sa.Engine) -> None:
    first = active(engine, "one")
    active(engine, "two", at=AT + 60)

    with pytest.raises(LeaseLost):
        first.write(Progress(changes=[opened()], positions={"a": b"1-1"}), AT + 61)

    assert stored(engine) == []


def test_a_lease_of_a_time_before_the_clock_was_set_back_is_none(engine: sa.Engine) -> None:
    active(engine, "one")

    assert Store(engine, "two", []).take_over(AT - 3_600) is not None


def test_counts_of_a_minute_add_up(engine: sa.Engine) -> None:
    store = active(engine)

    for most in (2, 1):
        count = MinuteCount(people_s=1.5, masks_s=0.5, most=most, frames=3)
        store.write(Progress(counts={"door": {28_333_333: count}}), AT)

    with engine.begin() as connection:
        (row,) = connection.execute(sa.select(COUNTS))
    assert tuple(row) == ("door", 28_333_333, 3.0, 1.0, 2, 6)


def test_nothing_of_a_write_that_fails_stays(engine: sa.Engine) -> None:
    store = active(engine)
    wrong = msgspec.structs.replace(event(2), started_at=event(1).started_at, subject="1")

    with pytest.raises(DatabaseAway):
        store.write(Progress(changes=[opened(), Change(phase="opened", event=wrong)]), AT)

    assert stored(engine) == []


def test_the_schema_is_that_of_the_tables_and_updating_it_again_changes_nothing(engine: sa.Engine) -> None:
    update_schema(engine)
    update_schema(engine)

    with engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_the_database_of_a_newer_version_is_left_alone(engine: sa.Engine) -> None:
    active(engine).write(Progress(changes=[opened()]), AT)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(DatabaseAway, match="9999"):
        Store(engine, "two", []).take_over(AT + 60)

    assert stored(engine) == [event()]


@pytest.mark.parametrize("content", [b"", b"this is no database" * 100], ids=["a file in the way", "no database"])
def test_a_database_that_cannot_be_used_is_away_until_it_can(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "events.db"
    place = tmp_path if content else tmp_path / "folder"
    (file if content else place).write_bytes(content)
    engine = open_engine(sqlite_url(place / "events.db"))
    store = Store(engine, "one", [])

    with pytest.raises(DatabaseAway):
        store.take_over(AT)
    (file if content else place).unlink()

    assert store.take_over(AT) is not None
    engine.dispose()


IMPATIENT = {"sqlite": {"timeout": 0.05}, "postgresql": {"options": "-c lock_timeout=50ms"}}


def test_a_database_that_somebody_locks_is_away_meanwhile(engine: sa.Engine) -> None:
    store = active(engine)
    impatient = sa.create_engine(engine.url, connect_args=IMPATIENT[engine.dialect.name])

    with engine.begin() as other:
        if engine.dialect.name == "postgresql":
            other.exec_driver_sql("LOCK TABLE lease")
        with pytest.raises(DatabaseAway, match="lock"):
            Store(impatient, "two", []).take_over(AT + 60)
    store.write(Progress(changes=[opened()]), AT)

    assert stored(engine) == [event()]
    impatient.dispose()


def test_an_event_is_described_in_a_line() -> None:
    line = describe_event(closed(zone="entrance", track=7, confidence=0.93).event)

    assert "9.0 s" in line
    assert line.endswith("no_mask               in entrance  track 7  confidence 93%")
    assert "open" in describe_event(event())
