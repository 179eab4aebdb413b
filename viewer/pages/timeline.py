"""The timeline of the History page: a day in, a row for each camera out, with the hours in which events began."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta, tzinfo

import msgspec
from msgspec import Struct

from events.timeline import HOUR_S
from viewer.pages.history_query import HistoryQuery, history_url, hour_bounds
from viewer.pages.time_zones import day_bounds, hour_text

LEVELS = 4  # shades of an hour with events
MAX_SHOWN = 99  # a greater count is shown as 99+


class Hour(Struct, frozen=True, kw_only=True):
    """One hour of a camera. hour: 0 to 23. level: how its count compares with the greatest one, 1 to LEVELS."""

    hour: int
    count: int
    count_text: str
    level: int
    text: str
    url: str


class CameraDay(Struct, frozen=True, kw_only=True):
    """A day of one camera."""

    camera: str
    total: int
    hours: list[Hour]


class Timeline(Struct, frozen=True, kw_only=True):
    """A day of all cameras that had events. after_url: None for today, and later."""

    day: date
    rows: list[CameraDay]
    before_url: str
    after_url: str | None


def make_timeline(
    query: HistoryQuery, day: date, today: date, found: Mapping[str, Mapping[int, int]], zone: tzinfo
) -> Timeline:
    """Return the timeline of a day. found: events by camera and number of the hour, as read_hours() returns them."""
    begin, end = day_bounds(day, zone)
    most = max((count for hours in found.values() for count in hours.values()), default=0)
    rows = []
    for camera, counts in found.items():
        numbers = range(math.ceil((end - begin) / HOUR_S))
        hours = [_hour(query, camera, begin + HOUR_S * number, counts.get(number, 0), most, zone) for number in numbers]
        rows.append(CameraDay(camera=camera, total=sum(counts.values()), hours=hours))
    return Timeline(
        day=day,
        rows=rows,
        before_url=_day_url(query, day - timedelta(days=1), zone),
        after_url=_day_url(query, day + timedelta(days=1), zone) if day < today else None,
    )


def _hour(query: HistoryQuery, camera: str, begin: float, count: int, most: int, zone: tzinfo) -> Hour:
    since, until = hour_bounds(begin, zone)
    asked = msgspec.structs.replace(query, camera=camera, since=since, until=until, cursor=None)
    return Hour(
        hour=since.hour,
        count=count,
        count_text=str(count) if count <= MAX_SHOWN else f"{MAX_SHOWN}+",
        level=math.ceil(LEVELS * count / most) if most else 0,
        text=f"{hour_text(since)} to {hour_text(until)}: {count} {'event' if count == 1 else 'events'}",
        url=history_url(asked),
    )


def _day_url(query: HistoryQuery, day: date, zone: tzinfo) -> str:
    since = datetime.combine(day, time(), zone)
    return history_url(msgspec.structs.replace(query, since=since, until=since + timedelta(days=1), cursor=None))
