"""What is older than some days goes, and the oldest events of a database that has grown too large."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from databases import database, engine
from test_event_store import AT, OFFICE, active, closed, opened, stored

from events.minute_counts import MinuteCount
from events.outbox import list_deliveries
from events.retention import MB, tidy, used_bytes
from events.rule_types import DAY_S
from events.store import Progress
from events.tables import COUNTS

__all__ = ["database", "engine"]

MANY = 5_000


def test_what_is_older_than_the_days_goes_with_its_deliveries_and_counts(engine: sa.Engine) -> None:
    store = active(engine, "one", OFFICE)
    counts = {"door": {int(AT // 60): MinuteCount(frames=1), int(AT // 60) + 1_440: MinuteCount(frames=2)}}
    store.write(Progress(changes=[opened(1), closed(1), closed(DAY_S), opened(2)], counts=counts), AT)

    removed = tidy(engine, keep_days=7, keep_mb=100, at=AT + 7.5 * DAY_S, now=AT)

    assert removed == 1
    assert [one.subject for one in stored(engine)] == [str(DAY_S), "2"]
    with engine.begin() as connection:
        assert len(list_deliveries(connection)) == 2
        assert [row.frames for row in connection.execute(sa.select(COUNTS))] == [2]


def test_the_oldest_events_of_a_database_that_is_too_large_go_until_it_is_small_enough(engine: sa.Engine) -> None:
    store = active(engine)
    store.write(Progress(changes=[*(closed(number) for number in range(MANY)), opened(MANY)]), AT)
    file = Path(str(engine.url.database))

    removed = [tidy(engine, keep_days=9, keep_mb=1, at=AT, now=AT) for _ in range(4)]

    kept = stored(engine)
    with engine.begin() as connection:
        assert used_bytes(connection) <= MB
    assert removed[0] > 0
    assert removed[-1] == 0
    assert len(kept) == min(MANY + 1 - sum(removed), 100)
    assert kept[0].subject == str(MANY)
    assert file.stat().st_size < 1.2 * MB
