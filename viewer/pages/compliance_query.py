"""The question in the address of the Compliance page: its parameters in, a checked question out, and addresses back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Literal, get_args

from msgspec import Struct

from viewer.pages.history_query import BadQuestion, check_name, check_year, page_url

Step = Literal["hour", "day"]
MAX_DAYS: dict[Step, int] = {"hour": 62, "day": 2_920}  # of a period: what a page can show, and one query answers
HOURLY_DAYS = 3  # longest period that is shown by hour unless the reader chooses


class ComplianceQuery(Struct, frozen=True, kw_only=True):
    """Which counts a reader asks for: from the first day to the last one, both included. camera: None for all."""

    camera: str | None = None
    first: date
    last: date
    by: Step


class PeriodLink(Struct, frozen=True, kw_only=True):
    """A link to a period that readers often want."""

    name: str
    url: str
    is_shown: bool


def compliance_query(parameters: Mapping[str, str], today: date) -> ComplianceQuery:
    """Return the question in the parameters of an address; without any, the counts of today by hour.

    Raises:
        BadQuestion: a day cannot be read, the last one is before the first, there are too many, or no camera can have
            the name.
    """
    camera = parameters.get("camera") or None
    check_name(camera, "camera")
    last = _day(parameters.get("to", ""), "Last day", today)
    first = _day(parameters.get("from", ""), "First day", min(last, today))
    days = (last - first).days + 1
    if days < 1:
        raise BadQuestion(f"The last day must not be before the first one: {last} is before {first}.")
    by = _step(parameters.get("by", ""), days)
    if days > MAX_DAYS[by]:
        raise BadQuestion(f"That is {days:,} days; by {by} at most {MAX_DAYS[by]:,} can be shown: choose fewer.")
    return ComplianceQuery(camera=camera, first=first, last=last, by=by)


def compliance_url(query: ComplianceQuery, page: str = "compliance") -> str:
    """Return the address that asks a question. page: the name of the route."""
    days = {"from": query.first.isoformat(), "to": query.last.isoformat()}
    return page_url(page, {"camera": query.camera, **days, "by": query.by})


def period_links(query: ComplianceQuery, today: date) -> list[PeriodLink]:
    """Return the links to periods that readers often want, of the same camera."""
    periods: dict[str, tuple[int, int]] = {
        "Today": (0, 0),
        "Yesterday": (1, 1),
        "7 days": (6, 0),
        "30 days": (29, 0),
        "90 days": (89, 0),
    }
    links = []
    for name, (first, last) in periods.items():
        days = today - timedelta(days=first), today - timedelta(days=last)
        by: Step = "hour" if first - last < HOURLY_DAYS else "day"
        wanted = ComplianceQuery(camera=query.camera, first=days[0], last=days[1], by=by)
        is_shown = (query.first, query.last) == days
        links.append(PeriodLink(name=name, url=compliance_url(wanted), is_shown=is_shown))
    return links


def _day(text: str, name: str, default: date) -> date:
    if not text:
        return default
    try:
        return check_year(date.fromisoformat(text))
    except ValueError as error:
        raise BadQuestion(f"{name}: {text!r:.80} is no day; write for example 2026-01-31.") from error


def _step(text: str, days: int) -> Step:
    if not text:
        return "hour" if days <= HOURLY_DAYS else "day"
    for step in get_args(Step):
        if step == text:
            return step  # type: ignore[no-any-return]
    raise BadQuestion(f"By: {text!r:.80} is neither hour nor day.")
