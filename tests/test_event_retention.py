"""What is older than some days goes, and the oldest events of a database that has grown too large."""

from __future__ import annotations

import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from databases import database, engine
from test_event_store import AT, OFFICE, active, closed, event, opened, stored

from events.count_reading import Period, read_counts
from events.database import DatabaseAway, database_errors, open_engine
from events.event_types import EventEvidence
from events.minute_counts import MinuteCount
from events.outbox import list_deliveries
from events.retention import MB, tidy
from events.room import free_room, used_bytes
from events.rule_types import DAY_S
from events.schema import update_schema
from events.store import Progress
from events.tables import COUNTS, DELIVERIES, EVENTS, EVIDENCE, QUARTER_COUNTS, THUMBNAILS
from events.thumbnails import Thumbnail

__all__ = ["database", "engine"]

START, STEP = 10_000, 100  # events that fill a database, and those that come between two looks at it
MINUTE_VALUES = {"frames": 900, "most": 3, "people_s": 30.0, "masks_s": 24.0}
PERIODS: tuple[Period, ...] = ("minute", "hour")
JPEG = Thumbnail(jpeg=b"a jpeg", captured_at=AT, blurred=True)


def fill(engine: sa.Engine, first: int, count: int) -> None:
    """Write events that have ended, in the order of time, with deliveries and evidence, and pictures of some."""
    random, numbers = Random(first), range(first, first + count)
    ids = {number: f"{number * 2_654_435_761 % 2**64:032x}" for number in numbers}  # in another order, as real ones are
    rows: dict[sa.Table, list[dict[str, Any]]] = {
        EVENTS: [_event_row(number, ids[number]) for number in numbers],
        DELIVERIES: [_delivery_row(number, ids[number]) for number in numbers],
        EVIDENCE: [{"event_id": one, "rule": "{}", "points": random.randbytes(200)} for one in ids.values()],
    }
    pictures = [(one, random.randbytes(9_000)) for number, one in ids.items() if number % 20 == 0]
    rows[THUMBNAILS] = [{"event_id": one, "jpeg": jpeg, "captured_at": AT, "blurred": True} for one, jpeg in pictures]
    with engine.begin() as connection:
        for table, values in rows.items():
            connection.execute(sa.insert(table), values)


def _event_row(number: int, event_id: str) -> dict[str, Any]:
    one = closed(number, id=event_id).event
    return {name: getattr(one, name) for name in one.__struct_fields__}


def _delivery_row(number: int, event_id: str) -> dict[str, Any]:
    times = {"created_at": AT, "next_at": AT, "finished_at": AT}
    return times | {
        "event_id": event_id,
        "phase": "closed",
        "receiver": "office",
        "camera": "door",
        "body": "x" * 400,
        "state": "delivered",
        "attempts": number % 3,
    }


def visible_bytes(engine: sa.Engine) -> int:
    """Return what a user sees: the size of the file, or of PostgreSQL's database."""
    if engine.dialect.name == "sqlite":
        return Path(str(engine.url.database)).stat().st_size
    with engine.begin() as connection:
        return int(connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())


def count(engine: sa.Engine, table: sa.Table) -> int:
    with engine.begin() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def no_pause(_seconds: float) -> None:
    """Go on at once."""


def test_what_is_older_than_the_days_goes_with_all_that_belongs_to_it(engine: sa.Engine) -> None:
    store = active(engine, "one", OFFICE)
    counts = {"door": {int(AT // 60): MinuteCount(frames=1), int(AT // 60) + 1_440: MinuteCount(frames=2)}}
    pictures = {event(number).id: JPEG for number in (1, 2)}
    changes = [opened(1), closed(1), closed(DAY_S), opened(2)]
    store.write(Progress(changes=changes, counts=counts, thumbnails=pictures), AT)

    removed = tidy(engine, keep_days=7, keep_mb=100, at=AT + 7.5 * DAY_S, now=AT + 7.5 * DAY_S, pause=no_pause)

    assert removed == 1
    assert [one.subject for one in stored(engine)] == [str(DAY_S), "2"]
    with engine.begin() as connection:
        assert len(list_deliveries(connection)) == 2
        assert [row.frames for row in connection.execute(sa.select(COUNTS))] == [2]
        assert [row.frames for row in connection.execute(sa.select(QUARTER_COUNTS))] == [2]
    assert (count(engine, EVIDENCE), count(engine, THUMBNAILS)) == (2, 1)


def test_hours_and_minutes_of_what_is_kept_have_equal_sums(engine: sa.Engine) -> None:
    store, begin = active(engine), int(AT // 900) * 15
    store.write(Progress(counts={"door": {begin + step: MinuteCount(frames=1) for step in range(60)}}), AT)
    sums = []

    for minute in (7, 15, 44):
        tidy(engine, keep_days=1, keep_mb=100, at=(begin + minute) * 60 + DAY_S, now=AT, pause=no_pause)
        with engine.begin() as connection:
            found = [read_counts(connection, one, since=AT - 7_200, until=AT + 7_200) for one in PERIODS]
        sums.append([sum(count.frames for count in counts) for counts in found])

    assert sums == [[60, 60], [45, 45], [30, 30]]


def test_an_event_stays_until_its_messages_are_delivered_or_dead(engine: sa.Engine) -> None:
    active(engine, "one", OFFICE).write(Progress(changes=[opened(1), closed(1)]), AT)
    late = {"keep_days": 0.5, "keep_mb": 100, "at": AT + 0.7 * DAY_S, "pause": no_pause}

    while_pending = tidy(engine, now=AT + 0.7 * DAY_S, **late)
    when_dead = tidy(engine, now=AT + 1.1 * DAY_S, **late)

    assert (while_pending, when_dead) == (0, 1)


def test_room_that_cannot_be_given_back_is_an_error_of_the_database(database: str, engine: sa.Engine) -> None:
    active(engine)
    fill(engine, 10, 500)
    with engine.begin() as connection:
        connection.execute(sa.delete(THUMBNAILS))
    failing = open_engine(database, read_only=True)  # SQLite refuses to cut its file

    def end_connection(_connection: sa.Connection, cursor: Any, statement: str, *_: object) -> None:
        if statement.startswith("VACUUM"):  # of PostgreSQL
            pid = cursor.connection.info.backend_pid
            with engine.begin() as other:
                other.execute(sa.select(sa.func.pg_terminate_backend(pid)))

    sa.event.listen(failing, "before_cursor_execute", end_connection)
    with pytest.raises(DatabaseAway), database_errors():
        free_room(failing, MB, no_pause)
    failing.dispose()


def test_a_database_that_grows_stays_within_five_percent_of_what_was_set(engine: sa.Engine) -> None:
    active(engine)
    empty = visible_bytes(engine) if engine.dialect.name == "postgresql" else 0  # its own tables come on top
    fill(engine, 0, START)
    limit_mb, sizes = (visible_bytes(engine) - empty) / MB, []

    for number in range(START, START + 8 * STEP, STEP):
        fill(engine, number, STEP)
        tidy(engine, keep_days=9, keep_mb=limit_mb, at=AT, now=AT, pause=no_pause)
        sizes.append((visible_bytes(engine) - empty) / MB / limit_mb)

    assert max(sizes) <= 1.05, sizes
    assert min(sizes) >= 0.95, sizes
    assert stored(engine)[0].subject == str(START + 8 * STEP - 1)
    assert count(engine, EVENTS) == count(engine, DELIVERIES) == count(engine, EVIDENCE)


def test_a_database_shrinks_when_a_smaller_size_is_set_and_open_events_stay(engine: sa.Engine) -> None:
    active(engine).write(Progress(changes=[opened(1)]), AT)
    empty = visible_bytes(engine) if engine.dialect.name == "postgresql" else 0
    fill(engine, 10, 6_000)

    removed = tidy(engine, keep_days=9, keep_mb=3, at=AT, now=AT, pause=no_pause)

    assert removed > 2_000
    assert (visible_bytes(engine) - empty) / MB <= 1.05 * 3
    assert count(engine, EVENTS) == 6_001 - removed
    with engine.begin() as connection:
        assert connection.execute(sa.select(EVENTS.c.id).where(EVENTS.c.ended_at.is_(None))).scalar() == event(1).id


def test_counts_that_fill_a_database_do_not_cost_all_its_events(engine: sa.Engine) -> None:
    active(engine)
    fill(engine, 0, 400)
    oldest = int(AT // 60)
    rows = [{"camera": "door", "minute": oldest + number} | MINUTE_VALUES for number in range(100_000)]
    with engine.begin() as connection:
        connection.execute(sa.insert(COUNTS), rows)
    limit_mb = used_bytes(engine) / MB - 0.01

    removed = [tidy(engine, keep_days=900, keep_mb=limit_mb, at=AT, now=AT, pause=no_pause) for _ in range(5)]

    assert used_bytes(engine) / MB <= limit_mb
    assert sum(removed) <= 0.1 * 400
    assert 0.9 * 100_000 <= count(engine, COUNTS) < 100_000


def test_a_recorder_writes_while_many_events_are_removed(engine: sa.Engine) -> None:
    store = active(engine)
    fill(engine, 10, 3_000)
    paused, written = threading.Event(), threading.Event()

    def pause(_seconds: float) -> None:
        paused.set()
        assert written.wait(30)

    thread = threading.Thread(target=lambda: tidy(engine, keep_days=9, keep_mb=1, at=AT, now=AT, pause=pause))
    thread.start()
    assert paused.wait(30)
    left = count(engine, EVENTS)
    store.write(Progress(changes=[opened(1)], evidence={event(1).id: EventEvidence()}), AT)
    written.set()
    thread.join()

    assert left > 2_000
    assert count(engine, EVENTS) < left


def test_a_database_without_events_has_nothing_to_remove(engine: sa.Engine) -> None:
    update_schema(engine)

    assert tidy(engine, keep_days=9, keep_mb=1, at=AT, now=AT, pause=no_pause) == 0
