"""Measure how fast the pages about records and the API answer when a database holds a million events:

    python -m bench.million_events

It fills an empty database with events, deliveries and evidence of 20 cameras in 90 days, and their counts per minute,
and asks each question 20 times, each time about something else. Pages are those that the viewer renders, all of what
they read included; the other questions are what the API reads. It uses a file of SQLite of about 1.7 GB in a temporary
folder, or what --database names: postgresql://USER:PASSWORD@HOST/NAME. The exit status is 1 if a median is above its
limit: 200 ms to open History, 300 ms for a filter or a day's figures, a second for those of longer periods.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import sqlalchemy as sa
from flask.testing import FlaskClient

from bench.event_history import BEGIN, CAMERAS, DAY_S, DAYS, END, fill
from bench.record_pages import (
    Address,
    compliance,
    history_of_a_camera,
    history_of_a_day,
    open_page,
    page_client,
)
from events.count_reading import Period, read_counts
from events.database import has_schema, open_engine
from events.evidence import read_evidence
from events.locations import sqlite_url
from events.outbox import list_deliveries
from events.reading import EventFilter, read_deliveries_of, read_event, read_events
from events.schema import update_schema
from events.tables import EVENTS
from events.thumbnails import with_thumbnails

OPENING_MS = 200.0
FILTER_MS = 300.0
FIGURES_MS = 1_000.0  # of a chart of up to 2,600,000 counts
TIMES = 20
PAGE = 50

Ask = Callable[[sa.Connection, Random], Any]


@dataclass(frozen=True)
class Question:
    """Something that a page asks. limit_ms: of its median."""

    name: str
    ask: Ask
    limit_ms: float = FILTER_MS


def main() -> int:
    """Fill a database and measure; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", help="of SQLite or PostgreSQL, empty; default: a temporary file of SQLite")
    parser.add_argument("--events", type=int, default=1_000_000, help="default: 1000000")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mw-") as folder:
        url = given.database or sqlite_url(Path(folder) / "events.db")
        engine = open_engine(url)
        if has_schema(engine):
            parser.error("--database: it holds events already; name an empty one")
        update_schema(engine)
        started = time.monotonic()
        fill(engine, given.events, given.seed)
        print(f"{engine.dialect.name}: {given.events:,} events, filled in {time.monotonic() - started:.0f} s")
        engine.dispose()
        return measure(url, given.seed)


def measure(url: str, seed: int) -> int:
    """Print the times of all questions about a database; return 1 if one is too slow."""
    engine, slow = open_engine(url, read_only=True), False
    for question in questions(url):
        random, times_ms = Random(seed), []
        for _ in range(TIMES):
            with engine.begin() as connection:
                started = time.perf_counter()
                question.ask(connection, random)
                times_ms.append((time.perf_counter() - started) * 1_000)
        median, worst = statistics.median(times_ms), max(times_ms)
        is_slow = median > question.limit_ms
        slow |= is_slow
        note = "  TOO SLOW" if is_slow else ""
        print(
            f"{question.name:<46} median {median:7.1f} ms  worst {worst:7.1f} ms  limit {question.limit_ms:.0f}{note}"
        )
    engine.dispose()
    return int(slow)


def questions(url: str) -> list[Question]:
    """Return what the pages and the API ask. url: of the database."""
    return [
        *_pages(page_client(url)),
        *_filters(),
        Question("a page deep in the list", _deep_page),
        Question("one event, its evidence and deliveries", _one_event),
        Question("newest deliveries", lambda connection, _: list_deliveries(connection)),
        Question("dead deliveries", lambda connection, _: list_deliveries(connection, state="dead")),
        Question("deliveries to one that got none", lambda connection, _: list_deliveries(connection, receiver="none")),
        Question("a camera's day of events", lambda connection, random: _day(connection, random, 1_000)),
        Question("hours of a day, all cameras", lambda *given: _counts(*given, period="hour", days=1)),
        Question("hours of a week, all cameras", lambda *given: _counts(*given, period="hour", days=7), FIGURES_MS),
        Question("days of 30 days, one camera", lambda *given: _counts(*given, period="day", days=30, camera=True)),
    ]


def _pages(client: FlaskClient) -> list[Question]:
    """Return pages, each opened as a browser does."""
    addresses: dict[str, tuple[Address, float]] = {
        "History opens": (lambda _: "/history", OPENING_MS),
        "History of a day": (history_of_a_day, FILTER_MS),
        "History by camera, kind and zone": (history_of_a_camera, FILTER_MS),
        "Compliance of a day": (compliance(1, "hour"), FILTER_MS),
        "Compliance of a week by hour": (compliance(7, "hour"), FIGURES_MS),
        "Compliance of 30 days, one camera": (compliance(30, "day", one_camera=True), FILTER_MS),
        "Compliance of 30 days": (compliance(30, "day"), FIGURES_MS),
        "Compliance of 12 weeks": (compliance(84, "day"), FIGURES_MS),
    }
    pages = [Question(name, _opening(client, address), limit_ms) for name, (address, limit_ms) in addresses.items()]
    of_one = Question("page of an event", lambda *given: open_page(client, f"/history/{_event_id(*given)}"))
    return [*pages, of_one]


def _opening(client: FlaskClient, address: Address) -> Ask:
    """Return what opens a page at an address that is drawn."""
    return lambda _, random: open_page(client, address(random))


def _filters() -> list[Question]:
    """Return filters that match many events, some, hardly any, and none."""
    several: dict[str, Any] = {"kind": "people_without_mask", "zone": "entrance"}
    fixed: dict[str, dict[str, Any]] = {
        "filter by a common kind": {"kind": "no_mask"},
        "filter by a rare kind": {"kind": "camera_offline"},
        "filter by a zone": {"zone": "till"},
        "filter by a rare zone": {"zone": "vault"},
        "filter by a common rule": {"rule": "no-mask"},
        "filter by a rare rule": {"rule": "vault"},
        "filter by an unknown rule": {"rule": "gone"},
        "filter by open events": {"open_only": True},
        "filter by kind and zone": several,
        "filter by kind and zone that never meet": {"kind": "mask_share", "zone": "vault"},
        "filter by common kind and zone that never meet": {"kind": "mask_share", "zone": "entrance"},
        "filter by rule and kind that never meet": {"rule": "no-mask", "kind": "mask_share"},
    }
    return [
        Question("filter by camera", lambda *given: _page(*given, camera=True)),
        Question("filter by time", lambda *given: _page(*given, days=1)),
        *(Question(name, lambda *given, chosen=chosen: _page(*given, **chosen)) for name, chosen in fixed.items()),
        Question("filter by camera, kind, zone", lambda *given: _page(*given, camera=True, **several)),
        Question("filter by camera, kind, zone and time", lambda *given: _page(*given, camera=True, days=7, **several)),
        Question("filter by camera and a rare kind", lambda *given: _page(*given, camera=True, kind="camera_back")),
        Question("filter by camera and a rare zone", lambda *given: _page(*given, camera=True, zone="vault")),
        Question("filter by camera, rule, open ones", lambda *given: _page(*given, camera=True, open_only=True)),
    ]


def _page(connection: sa.Connection, random: Random, *, camera: bool = False, days: float = 0, **wanted: Any) -> None:
    """Read the first page of a filter, at a camera and in days that are drawn, if asked for."""
    if camera:
        wanted["camera"] = random.choice(CAMERAS)
    if days:
        wanted["since"] = random.uniform(BEGIN, END - days * DAY_S)
        wanted["until"] = wanted["since"] + days * DAY_S
    page = read_events(connection, EventFilter(**wanted), limit=PAGE)
    with_thumbnails(connection, [event.id for event in page.events])


def _deep_page(connection: sa.Connection, random: Random) -> None:
    deep = read_events(connection, EventFilter(until=random.uniform(BEGIN, END)), limit=1)
    read_events(connection, EventFilter(), limit=PAGE, cursor=deep.next_cursor)


def _one_event(connection: sa.Connection, random: Random) -> None:
    event_id = _event_id(connection, random)
    read_event(connection, event_id)
    read_evidence(connection, event_id)
    read_deliveries_of(connection, event_id)


def _event_id(connection: sa.Connection, random: Random) -> str:
    """Return the ID of a drawn event."""
    prefix = f"{random.getrandbits(124):032x}"
    return connection.execute(sa.select(sa.func.min(EVENTS.c.id)).where(EVENTS.c.id >= prefix)).scalar() or ""


def _day(connection: sa.Connection, random: Random, limit: int) -> None:
    since = BEGIN + random.randrange(DAYS) * DAY_S
    wanted = EventFilter(camera=random.choice(CAMERAS), since=since, until=since + DAY_S)
    read_events(connection, wanted, limit=limit)


def _counts(connection: sa.Connection, random: Random, *, period: Period, days: int, camera: bool = False) -> None:
    since = BEGIN + random.randrange(DAYS - days + 1) * DAY_S
    chosen = random.choice(CAMERAS) if camera else None
    read_counts(connection, period, since=since, until=since + days * DAY_S, camera=chosen)


if __name__ == "__main__":
    sys.exit(main())
