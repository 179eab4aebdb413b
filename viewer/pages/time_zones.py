"""The time zone of a reader: that of the browser, which static/time_zone.js writes into a cookie; else the server's."""

from __future__ import annotations

import os
import time
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

from flask import request

COOKIE = "maskwatch-time-zone"
MAX_NAME = 64  # characters
LOCAL_TIME = Path("/etc/localtime")  # a link to the zone of this machine


def reader_zone() -> tzinfo:
    """Return the time zone of the present request."""
    name = request.cookies.get(COOKIE, "")[:MAX_NAME]
    return named_zone(name) or _server_zone()


def named_zone(name: str) -> ZoneInfo | None:
    """Return the time zone of an IANA name; None if there is none."""
    try:
        return ZoneInfo(name) if name else None
    except (KeyError, OSError, ValueError):  # OSError: the name is that of a folder; KeyError: it is unknown
        return None


def zone_name(zone: tzinfo) -> str:
    """Return what a reader calls a time zone, for example Europe/Berlin."""
    return getattr(zone, "key", None) or datetime.now(zone).tzname() or "UTC"


def local(at: float, zone: tzinfo) -> datetime:
    """Return Unix seconds as a local time."""
    return datetime.fromtimestamp(at, zone)


def midnight(day: date, zone: tzinfo) -> float:
    """Return when a local day begins, Unix seconds."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()


def next_day(day: date) -> date:
    """Return the day after one."""
    return day + timedelta(days=1)


def day_bounds(day: date, zone: tzinfo) -> tuple[float, float]:
    """Return when a local day begins and when the next one does, Unix seconds; 23 to 25 hours lie between them."""
    return midnight(day, zone), midnight(next_day(day), zone)


def is_shown_twice(at: datetime) -> bool:
    """Return whether clocks show a local time twice, because they were set back."""
    return at.replace(fold=0).timestamp() < at.replace(fold=1).timestamp()


def hour_text(at: datetime) -> str:
    """Return a time of day, for example "14:00"; with the name of its offset where clocks show it twice."""
    return at.strftime("%H:%M %Z" if is_shown_twice(at) else "%H:%M")


def today(zone: tzinfo, now: float | None = None) -> date:
    """Return the present local day. now: Unix seconds; None for the present."""
    return local(time.time() if now is None else now, zone).date()


def _server_zone() -> tzinfo:
    """Return the zone of this machine by its name, because its offset of today is not that of other seasons."""
    linked = str(LOCAL_TIME.resolve()).partition("/zoneinfo/")[2]
    named = named_zone(os.environ.get("TZ", "").removeprefix(":") or linked)
    return named or datetime.now().astimezone().tzinfo or UTC
