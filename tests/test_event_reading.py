"""Events are read by filters and in pages, and counts by minute, hour and day."""

from __future__ import annotations

import base64
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from test_event_store import AT, OFFICE, active, closed, event, opened

from events.count_reading import MAX_PERIODS, Period, TooManyPeriods, read_counts
from events.database import open_engine
from events.locations import sqlite_url
from events.minute_counts import MinuteCount
from events.reading import BadCursor, EventFilter, read_choices, read_deliveries_of, read_event, read_events
from events.store import Progress, Store

BERLIN = ZoneInfo("Europe/Berlin")
TWO_POINTS = base64.urlsafe_b64encode(b"1.2.3 " + b"a" * 32).decode().rstrip("=")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    found = open_engine(sqlite_url(tmp_path / "events.db"))
    yield found
    found.dispose()


@pytest.fixture
def store(engine: sa.Engine) -> Store:
    return active(engine, "one", OFFICE)


def subjects(engine: sa.Engine, wanted: EventFilter, limit: int = 100) -> list[str]:
    with engine.begin() as connection:
        return [one.subject for one in read_events(connection, wanted, limit=limit).events]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (EventFilter(), ["4", "3", "2", "1"]),
        (EventFilter(camera="yard"), ["2"]),
        (EventFilter(kind="camera_offline"), ["3"]),
        (EventFilter(rule="away"), ["3"]),
        (EventFilter(zone="entrance"), ["4"]),
        (EventFilter(since=AT + 2, until=AT + 3), ["2"]),
        (EventFilter(open_only=True), ["3", "2", "1"]),
        (EventFilter(camera="door", kind="no_mask", until=AT + 4), ["1"]),
        (EventFilter(camera="' OR 1=1 --"), []),
    ],
)
def test_events_are_found_by_what_they_are_about_and_when(
    engine: sa.Engine, store: Store, wanted: EventFilter, expected: list[str]
) -> None:
    others = [opened(2, camera="yard"), opened(3, kind="camera_offline", rule="away"), closed(4, zone="entrance")]

    store.write(Progress(changes=[opened(1), *others]), AT)

    assert subjects(engine, wanted) == expected


def test_pages_hold_each_event_once_though_events_are_added_between_them(engine: sa.Engine, store: Store) -> None:
    same_start = [opened(number, started_at=AT) for number in range(1, 8)]
    store.write(Progress(changes=same_start), AT)

    with engine.begin() as connection:
        first = read_events(connection, EventFilter(), limit=3)
    store.write(Progress(changes=[opened(9)]), AT)
    with engine.begin() as connection:
        second = read_events(connection, EventFilter(), limit=3, cursor=first.next_cursor)
        third = read_events(connection, EventFilter(), limit=3, cursor=second.next_cursor)

    pages = [[one.subject for one in page.events] for page in (first, second, third)]
    assert pages == [["7", "6", "5"], ["4", "3", "2"], ["1"]]
    assert third.next_cursor is None


@pytest.mark.parametrize("cursor", ["", "x", "%%%", "AAAA", "bmFuIA", "é", "MSAyIDM", TWO_POINTS])
def test_a_cursor_that_no_page_has_given_is_refused(engine: sa.Engine, store: Store, cursor: str) -> None:
    store.write(Progress(changes=[opened()]), AT)

    with engine.begin() as connection, pytest.raises(BadCursor, match="leave it out"):
        read_events(connection, EventFilter(), cursor=cursor)


def test_one_event_is_read_with_its_deliveries(engine: sa.Engine, store: Store) -> None:
    store.write(Progress(changes=[opened(1), opened(2), closed(1)]), AT)

    with engine.begin() as connection:
        found = read_event(connection, event(1).id)
        phases = [one.phase for one in read_deliveries_of(connection, event(1).id)]
        missing = read_event(connection, "0" * 32)

    assert found == closed(1).event
    assert phases == ["opened", "closed"]
    assert missing is None


def test_filters_can_have_the_values_that_occur(engine: sa.Engine, store: Store) -> None:
    with engine.begin() as connection:
        before = read_choices(connection)
    store.write(Progress(changes=[opened(1), opened(2, camera="yard", zone="gate"), opened(3, rule="away")]), AT)
    with engine.begin() as connection:
        after = read_choices(connection)

    assert (before.cameras, before.kinds, before.rules, before.zones) == ([], [], [], [])
    assert (after.cameras, after.kinds) == (["door", "yard"], ["no_mask"])
    assert (after.rules, after.zones) == (["away", "bare"], ["gate"])


def counted(store: Store, *at: datetime) -> None:
    """Count a minute of two people, one with a mask, at each time."""
    minutes = {int(one.timestamp() // 60): MinuteCount(people_s=120, masks_s=60, most=2, frames=5) for one in at}
    store.write(Progress(counts={"door": minutes, "yard": dict(list(minutes.items())[:1])}), AT)


def summed(
    engine: sa.Engine, period: Period, zone: timezone | ZoneInfo, *span: datetime
) -> list[tuple[str, str, float]]:
    """Return local start, camera and seconds of people of each period."""
    since, until = (one.timestamp() for one in span)
    with engine.begin() as connection:
        found = read_counts(connection, period, since=since, until=until, zone=zone)
    starts = [datetime.fromtimestamp(one.started_at, zone).isoformat(" ", "minutes") for one in found]
    return [(start, one.camera, one.people_s) for start, one in zip(starts, found, strict=True)]


def test_counts_are_summed_by_minute_hour_and_day(engine: sa.Engine, store: Store) -> None:
    begin = datetime(2026, 1, 31, 10, 59, tzinfo=UTC)
    span = (begin, begin + timedelta(days=2))
    counted(store, begin, begin + timedelta(minutes=1), begin + timedelta(minutes=2), begin + timedelta(hours=20))

    minutes = summed(engine, "minute", UTC, *span)
    hours = summed(engine, "hour", UTC, *span)
    days = summed(engine, "day", UTC, *span)
    with engine.begin() as connection:
        yard = read_counts(connection, "day", since=AT, until=span[1].timestamp(), camera="yard")

    assert [one.camera for one in yard] == ["yard"]
    assert [one for one in minutes if one[1] == "yard"] == [("2026-01-31 10:59+00:00", "yard", 120)]
    assert [one for one in hours if one[1] == "door"] == [
        ("2026-01-31 10:00+00:00", "door", 120),
        ("2026-01-31 11:00+00:00", "door", 240),
        ("2026-02-01 06:00+00:00", "door", 120),
    ]
    assert days == [
        ("2026-01-31 00:00+00:00", "door", 360),
        ("2026-01-31 00:00+00:00", "yard", 120),
        ("2026-02-01 00:00+00:00", "door", 120),
    ]


def test_days_are_those_of_the_time_zone_and_may_have_23_hours(engine: sa.Engine, store: Store) -> None:
    starts = [datetime(2026, 3, day, 0, 0, tzinfo=BERLIN) for day in (28, 29, 30, 31)]
    counted(store, *(one + timedelta(minutes=step) for one in starts[:3] for step in (0, 5)))
    counted(store, *(datetime.fromtimestamp(one.timestamp() - 60, UTC) for one in starts[1:]))

    days = [one for one in summed(engine, "day", BERLIN, starts[0], starts[3]) if one[1] == "door"]

    assert days == [
        ("2026-03-28 00:00+01:00", "door", 360),
        ("2026-03-29 00:00+01:00", "door", 360),
        ("2026-03-30 00:00+02:00", "door", 360),
    ]


def test_hours_of_a_zone_begin_when_its_clocks_say_so(engine: sa.Engine, store: Store) -> None:
    india = timezone(timedelta(hours=5, minutes=30))
    begin = datetime(2026, 1, 31, 10, 29, tzinfo=UTC)
    counted(store, begin, begin + timedelta(minutes=1))

    hours = summed(engine, "hour", india, begin, begin + timedelta(hours=1))

    assert [one[0] for one in hours if one[1] == "door"] == ["2026-01-31 15:00+05:30", "2026-01-31 16:00+05:30"]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"])
def test_sums_are_those_of_the_minutes_whatever_the_span(engine: sa.Engine, store: Store, zone: str) -> None:
    """In spring of 2010 clocks in St. John's changed a minute after midnight, in the middle of a quarter of an hour."""
    local, random = ZoneInfo(zone), Random(7)
    begin = int(datetime(2010, 3, 12, tzinfo=UTC).timestamp() // 60)
    minutes = {begin + random.randrange(5_760): MinuteCount(people_s=random.randrange(60)) for _ in range(400)}
    midnight = begin + 1_440 * 2 + 210  # in St. John's
    minutes |= {midnight + step: MinuteCount(people_s=7) for step in range(-3, 4)}
    store.write(Progress(counts={"door": minutes}), AT)

    for number in range(20):
        first = begin + random.randrange(2_880)
        end = first + random.randrange(1, 2_880)
        period: Period = "hour" if number % 2 else "day"
        with engine.begin() as connection:
            found = read_counts(connection, period, since=first * 60, until=end * 60, zone=local)
        starts = [one.started_at for one in found]
        expected = [0.0] * len(found)
        for minute, count in minutes.items():
            if first <= minute < end:
                expected[bisect_right(starts, minute * 60) - 1] += count.people_s
        assert [one.people_s for one in found] == expected, f"by {period} from {first} to {end}"


def test_a_count_has_its_share_and_none_without_people(engine: sa.Engine, store: Store) -> None:
    counts = {1: MinuteCount(people_s=8, masks_s=6, most=3, frames=9), 2: MinuteCount(frames=4)}
    store.write(Progress(counts={"door": counts}), AT)

    with engine.begin() as connection:
        found = read_counts(connection, "minute", since=0, until=180)

    assert [(one.started_at, one.share, one.most, one.frames) for one in found] == [(60, 0.75, 3, 9), (120, None, 0, 4)]


def test_a_span_of_too_many_periods_is_refused(engine: sa.Engine, store: Store) -> None:
    with engine.begin() as connection, pytest.raises(TooManyPeriods, match="ask for longer ones"):
        read_counts(connection, "minute", since=0, until=60 * (MAX_PERIODS + 1))
