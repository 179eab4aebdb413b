"""Read the counts of cameras by minute, hour or day: a span of time in, sums out. Nothing here writes.

Hours and days are those of a time zone. A change to or from summer time makes a day of 23 or 25 hours.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal

import sqlalchemy as sa
from msgspec import Struct

from events.tables import COUNTS

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
    number = (COUNTS.c.minute + _shift(period, zone, first, end)) // MINUTES[period]
    sums = [sa.func.sum(COUNTS.c[name]).label(name) for name in ("people_s", "masks_s", "frames")]
    query = (
        sa.select(number.label("number"), COUNTS.c.camera, sa.func.max(COUNTS.c.most).label("most"), *sums)
        .where(COUNTS.c.minute >= first, COUNTS.c.minute < end)
        .group_by(sa.text("number"), COUNTS.c.camera)
        .order_by(sa.text("number"), COUNTS.c.camera)
    )
    if camera is not None:
        query = query.where(COUNTS.c.camera == camera)
    return [_count(row, period, zone, first) for row in connection.execute(query)]


def _shift(period: Period, zone: tzinfo, first: int, end: int) -> sa.ColumnElement[int]:
    """Return how many minutes to add to one, in Unix minutes, so that whole periods begin at multiples of their length.

    For days that is the zone's offset at that minute. Hours do not change with summer time: all but one zone change by
    whole hours.
    """
    if period != "day":
        return sa.literal(_offset(zone, first) % MINUTES[period])
    *before, (_, last) = _offsets(zone, first, end)
    if not before:
        return sa.literal(last)
    return sa.case(*((COUNTS.c.minute < until, offset) for until, offset in before), else_=last)


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
