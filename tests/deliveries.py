"""What tests of deliveries share: a database, a clock that a test sets, and what became of deliveries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from test_event_store import AT

from events.database import open_engine
from events.deliverer import Deliverer
from events.event_types import Change
from events.locations import sqlite_url
from events.open_receivers import Surroundings
from events.outbox import Delivery, list_deliveries
from events.receiver_types import ReceiverSettings
from events.store import Progress, Store


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    found = open_engine(sqlite_url(tmp_path / "events.db"))
    yield found
    found.dispose()


class Clock:
    """The time of deliveries, as a test sets it."""

    def __init__(self) -> None:
        self.at = AT

    def now(self) -> float:
        return self.at


def written(engine: sa.Engine, settings: ReceiverSettings, clock: Clock, *changes: Change) -> None:
    """Write changes with their deliveries to a receiver, as the active recorder does."""
    store = Store(engine, "one", [settings], now=clock.now)
    assert store.take_over(clock.at) is not None
    store.write(Progress(changes=changes), clock.at)


def deliverer(
    engine: sa.Engine, settings: ReceiverSettings, clock: Clock, surroundings: Surroundings | None = None
) -> Deliverer:
    """Return a deliverer of the active recorder, whose threads were not started."""
    found = Deliverer(engine, [settings], clock.now, surroundings)
    found.is_active.set()
    return found


def fates(engine: sa.Engine) -> list[Delivery]:
    """Return all deliveries, oldest first."""
    with engine.begin() as connection:
        return list_deliveries(connection, limit=10_000)[::-1]
