"""Read the counts of cameras by minute, hour or day: a span of time in, sums out. Nothing here writes.

Hours and days are those of a time zone. A change to or from summer time makes a day of 23 or 25 hours.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal

import sqlalchemy as sa
from msgspec import Struct

from events.tables import COUNTS, QUARTER_COUNTS, QUARTER_MIN

Period = Literal["minute", "hour", "day"]
MINUTES: dict[Period, int] = {"minute": 1, "hour": 60, "day": 1_440}
MAX_PERIODS = 3_000  # of one answer


class TooManyPeriods(ValueError):
    """A span of time with more periods than one answer has; says what to do."""


class PeriodCount(Struct, frozen=True, kw_only=True):
    """What was counted at a camera in a minute, an hour or a day.

    started_at: of the period, Unix seconds. people_s, masks_s: seconds times people, and people with a mask.
    share: of people_s, with a mask; None without people. most: people at once. frames: labelled ones.
    """

    camera: str
    started_at: float
    people_s: float
    masks_s: float
    share: float | None
    most: int
    frames: int


def read_counts(
    connection: sa.Connection,
    period: Period,
    *,
    since: float,
    until: float,
    camera: str | None = None,
    zone: tzinfo = UTC,
) -> list[PeriodCount]:
    """Return the counts of each period in which a camera had frames, by time and camera.

    Args:
        since, until: Unix seconds; every minute that begins in between counts.
        camera: None for each of them.
        zone: whose hours and days they are.

    Raises:
        TooManyPeriods: there are more than MAX_PERIODS between since and until.
    """
    first, end = -int(-since // 60), -int(-until // 60)
    if (end - first) / MINUTES[period] > MAX_PERIODS:
        raise TooManyPeriods(f"more than {MAX_PERIODS:,} periods between since and until: ask for longer ones")
    if first >= end:
        return []
    offsets = _period_offsets(period, zone, first, end)
    counted = _counted(first, end, camera, has_quarters=period != "minute" and _fit_quarters(offsets))
    number = (counted.c.minute + _shift(counted.c.minute, offsets)) // MINUTES[period]
    sums = [sa.func.sum(counted.c[name]).label(name) for name in ("people_s", "masks_s", "frames")]
    query = (
        sa.select(number.label("number"), counted.c.camera, sa.func.max(counted.c.most).label("most"), *sums)
        .group_by(sa.text("number"), counted.c.camera)
        .order_by(sa.text("number"), counted.c.camera)
    )
    return [_count(row, period, zone, first) for row in connection.execute(query)]


def _counted(first: int, end: int, camera: str | None, *, has_quarters: bool) -> sa.Subquery:
    """Return the rows between two Unix minutes, each with the minute in which it begins.

    has_quarters: whole quarters of an hour stand for their minutes.
    """
    from_quarter, to_quarter = -(-first // QUARTER_MIN), end // QUARTER_MIN
    if not has_quarters or from_quarter >= to_quarter:
        return _rows(COUNTS, COUNTS.c.minute, first, end, camera).subquery()
    minute, quarter = COUNTS.c.minute, QUARTER_COUNTS.c.quarter
    parts = [
        _rows(COUNTS, minute, first, from_quarter * QUARTER_MIN, camera),
        _rows(QUARTER_COUNTS, quarter, from_quarter, to_quarter, camera, minutes=QUARTER_MIN),
        _rows(COUNTS, minute, to_quarter * QUARTER_MIN, end, camera),
    ]
    return sa.union_all(*parts).subquery()


def _rows(
    table: sa.Table, unit: sa.ColumnElement[int], first: int, end: int, camera: str | None, minutes: int = 1
) -> sa.Select[Any]:
    """Return the rows of some units of time. unit: the column that numbers them. minutes: how long one is."""
    values = [table.c[name] for name in ("camera", "people_s", "masks_s", "most", "frames")]
    query = sa.select((unit * minutes).label("minute"), *values).where(unit >= first, unit < end)
    return query if camera is None else query.where(table.c.camera == camera)


def _period_offsets(period: Period, zone: tzinfo, first: int, end: int) -> list[tuple[int, int]]:
    """Return how many minutes to add to one so that whole periods begin at multiples of their length, and until when.

    For days that is the zone's offset at that minute. Hours do not change with summer time: all but one zone change by
    whole hours.
    """
    if period == "day":
        return list(_offsets(zone, first, end))
    return [(end, _offset(zone, first) % MINUTES[period])]


def _fit_quarters(offsets: list[tuple[int, int]]) -> bool:
    """Return whether no quarter of an hour is cut by an offset or by a change of it."""
    changes = [until for until, _ in offsets[:-1]]
    return all(number % QUARTER_MIN == 0 for number in (*changes, *(offset for _, offset in offsets)))


def _shift(minute: sa.ColumnElement[int], offsets: list[tuple[int, int]]) -> sa.ColumnElement[int]:
    *before, (_, last) = offsets
    if not before:
        return sa.literal(last)
    return sa.case(*((minute < until, offset) for until, offset in before), else_=last)


def _offsets(zone: tzinfo, first: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the zone's offsets from first to end, each with the minute in which it ends; in Unix minutes."""
    at = first
    while at < end:
        offset, following = _offset(zone, at), min(at + MINUTES["day"], end)
        if _offset(zone, following) == offset and following < end:
            at = following
            continue
        low, high = at, following  # the offset is in force at low; it has changed at high, or high is the end
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _offset(zone, middle) == offset else (low, middle)
        yield high, offset
        at = high


def _offset(zone: tzinfo, minute: int) -> int:
    """Return how far local time is ahead of UTC, in minutes."""
    ahead = datetime.fromtimestamp(minute * 60, zone).utcoffset()
    return int((ahead or timedelta()).total_seconds() // 60)


def _count(row: sa.Row[Any], period: Period, zone: tzinfo, first: int) -> PeriodCount:
    minute = row.number * MINUTES[period]
    if period == "day":
        started_at = (datetime(1970, 1, 1) + timedelta(minutes=minute)).replace(tzinfo=zone).timestamp()
    else:
        started_at = 60.0 * (minute - _offset(zone, first) % MINUTES[period])
    return PeriodCount(
        camera=row.camera,
        started_at=started_at,
        people_s=row.people_s,
        masks_s=row.masks_s,
        share=row.masks_s / row.people_s if row.people_s else None,
        most=row.most,
        frames=row.frames,
    )
