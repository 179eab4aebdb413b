"""What an event is built on, as its page shows it: the rule as a sentence, and the points of its chart. Pure."""

from __future__ import annotations

from datetime import tzinfo

import msgspec
from msgspec import Struct

from events.event_types import EventEvidence, Measure
from events.rule_types import Rule
from viewer.pages.event_texts import percent_text
from viewer.pages.rule_texts import rule_sentence
from viewer.pages.time_zones import local

TITLES: dict[Measure, str] = {
    "confidence": "Confidence over time",
    "people": "People without masks over time",
    "share": "Share of masks over time",
}


class Point(Struct, frozen=True, kw_only=True):
    """One value. at: Unix seconds."""

    at: float
    value: float
    time_text: str
    value_text: str


class ShownSeries(Struct, frozen=True, kw_only=True):
    """How a value went. unit: percent, of values from 0 to 1, or people."""

    title: str
    unit: str
    points: list[Point]


def why_text(rule: str, evidence: EventEvidence | None) -> str:
    """Return why an event opened. rule: its name."""
    if evidence is None or evidence.rule is None:
        return f"Rule {rule} opened this event; its settings at that time are not known."
    try:
        return rule_sentence(msgspec.json.decode(evidence.rule, type=Rule))
    except msgspec.DecodeError:
        return f"Rule {rule} opened this event; its settings are of another version of maskwatch: {evidence.rule}"


def shown_series(evidence: EventEvidence | None, zone: tzinfo) -> ShownSeries | None:
    """Return the series of an event; None if there is nothing to draw."""
    if evidence is None or evidence.measure is None or not evidence.points:
        return None
    is_share = evidence.measure != "people"
    points = [
        Point(
            at=at,
            value=value,
            time_text=f"{local(at, zone):%H:%M:%S}.{int(at * 10) % 10}",
            value_text=percent_text(value) if is_share else f"{value:g}",
        )
        for at, value in evidence.points
    ]
    return ShownSeries(title=TITLES[evidence.measure], unit="percent" if is_share else "people", points=points)
