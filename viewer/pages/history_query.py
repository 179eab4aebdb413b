"""The question in the address of the History page: its parameters in, a checked question out, and addresses back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta, tzinfo
from typing import Any, TypeVar

from flask import url_for
from msgspec import Struct

from viewer.pages.time_zones import is_shown_twice, local

Day = TypeVar("Day", bound=date)

MIN_YEAR, MAX_YEAR = 1971, 9_000
TIME_FORMAT = "%Y-%m-%dT%H:%M"  # of an input of the type datetime-local
_NAME = re.compile(r"[a-z0-9_-]{1,32}")  # of cameras, kinds and zones


class BadQuestion(ValueError):
    """A parameter that cannot be; says what to write."""


class HistoryQuery(Struct, frozen=True, kw_only=True):
    """Which events a reader asks for; None for any. since, until: local times, with their fold; until is no part of it.

    cursor: of the page; None for the first one.
    """

    camera: str | None = None
    kind: str | None = None
    zone: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    cursor: str | None = None

    @property
    def is_filtered(self) -> bool:
        """Whether some events are left out."""
        return bool(self.camera or self.kind or self.zone or self.since or self.until)

    @property
    def from_text(self) -> str:
        """The beginning as its input shows it."""
        return self.since.strftime(TIME_FORMAT) if self.since else ""

    @property
    def to_text(self) -> str:
        """The end as its input shows it."""
        return self.until.strftime(TIME_FORMAT) if self.until else ""

    def day(self, today: date) -> date:
        """Return the day whose timeline is shown: the first one asked for. today: without any."""
        if self.since:
            return self.since.date()
        return (self.until - timedelta(minutes=1)).date() if self.until else today


def history_query(parameters: Mapping[str, str], zone: tzinfo) -> HistoryQuery:
    """Return the question in the parameters of an address. zone: of its times.

    Raises:
        BadQuestion: a time cannot be read, or the end is not after the beginning.
    """
    since, until = (_time(parameters.get(name, ""), name, zone) for name in ("from", "to"))
    if since and until and since.timestamp() >= until.timestamp():
        raise BadQuestion(f"To must be later than from: {since:%Y-%m-%d %H:%M} is not before {until:%Y-%m-%d %H:%M}.")
    texts = {name: parameters.get(name) or None for name in ("camera", "kind", "zone", "cursor")}
    for name in ("camera", "kind", "zone"):
        check_name(texts[name], name)
    return HistoryQuery(**texts, since=since, until=until)


def history_url(query: HistoryQuery) -> str:
    """Return the address that asks a question."""
    parameters = {
        "camera": query.camera,
        "kind": query.kind,
        "zone": query.zone,
        "from": _exact_text(query.since),
        "to": _exact_text(query.until),
        "cursor": query.cursor,
    }
    return page_url("history", parameters)


def page_url(page: str, parameters: Mapping[str, str | None]) -> str:
    """Return the address of a page with those parameters that are not empty. page: the name of the route."""
    given: dict[str, Any] = {name: value for name, value in parameters.items() if value}
    return url_for(page, **given)


def hour_bounds(begin: float, zone: tzinfo) -> tuple[datetime, datetime]:
    """Return an hour as local times. begin: Unix seconds."""
    return local(begin, zone), local(begin + 3_600, zone)


def _time(text: str, name: str, zone: tzinfo) -> datetime | None:
    if not text:
        return None
    try:
        found = check_year(datetime.fromisoformat(text))
        return found.astimezone(zone) if found.tzinfo else found.replace(tzinfo=zone)
    except ValueError as error:
        raise BadQuestion(
            f"{name.capitalize()}: {text!r:.80} is no time; write for example 2026-01-31T08:00."
        ) from error


def _exact_text(at: datetime | None) -> str:
    """Return a local time for an address, with its offset where clocks show that time twice."""
    if at is None:
        return ""
    return at.isoformat(timespec="minutes") if is_shown_twice(at) else at.strftime(TIME_FORMAT)


def check_name(name: str | None, what: str) -> None:
    """Check that what a reader looks for can be the name of something; None is nothing that is looked for.

    Raises:
        BadQuestion: it cannot.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise BadQuestion(f"{what.capitalize()}: {name!a:.80} is no name; choose one from the list.")


def check_year(day: Day) -> Day:
    """Return a day or time of which there can be records.

    Raises:
        ValueError: its year is at an end of the calendar, where computing with times fails.
    """
    if not MIN_YEAR <= day.year <= MAX_YEAR:
        raise ValueError(f"the year is not one of {MIN_YEAR} to {MAX_YEAR}")
    return day
