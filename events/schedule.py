"""Return whether a rule is in force at a time, by its hours and weekdays. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from events.rule_types import WEEKDAYS, Weekday

MINUTES_OF_DAY = 1_440


def in_force(hours: Sequence[str], weekdays: Sequence[Weekday], timezone: ZoneInfo, at: float) -> bool:
    """Return whether a time is in one of the parts of the day, on one of the weekdays; empty ones hold always.

    Args:
        hours: as in a rule, for example 22:00-06:00, which belongs to the day on which it begins.
        at: Unix seconds.
    """
    if not hours and not weekdays:
        return True
    local = datetime.fromtimestamp(at, timezone)
    minute, today = local.hour * 60 + local.minute, local.weekday()
    for begin, end in map(_minutes, hours or ["00:00-24:00"]):
        passes_midnight = end <= begin
        if begin <= minute < (MINUTES_OF_DAY if passes_midnight else end) and _holds(weekdays, today):
            return True
        if passes_midnight and minute < end and _holds(weekdays, (today - 1) % len(WEEKDAYS)):
            return True
    return False


def _holds(weekdays: Sequence[Weekday], day: int) -> bool:
    return not weekdays or WEEKDAYS[day] in weekdays


def _minutes(part: str) -> tuple[int, int]:
    begin, _, end = part.partition("-")
    return _minute_of(begin), _minute_of(end)


def _minute_of(time: str) -> int:
    hour, _, minute = time.partition(":")
    return int(hour) * 60 + int(minute)
