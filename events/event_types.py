"""An event and what changes it. Times are Unix seconds on Redis' clock."""

from __future__ import annotations

import hashlib
import re
from typing import Literal

from msgspec import Struct

from events.series import Point

Phase = Literal["opened", "closed"]
Measure = Literal["confidence", "people", "share"]

_EVENT_ID = re.compile(r"[0-9a-f]{32}")


class Event(Struct, frozen=True, kw_only=True):
    """Something that a rule names and that happened before one camera.

    id: made of rule, camera, subject and started_at, so that the same condition never makes a second event.
    subject: what tells conditions apart that begin at the same time: the number of a track, else empty.
    started_at: when the condition began. opened_at: when it had lasted long enough. ended_at: None while it lasts.
    people: the most at once. confidence: the lowest of the labels that it is built on; None without one.
    share: of the time that masks were worn, for rules about it; else None.
    """

    id: str
    rule: str
    kind: str
    camera: str
    zone: str | None = None
    subject: str = ""
    track: int | None = None
    started_at: float
    opened_at: float
    ended_at: float | None = None
    people: int = 0
    confidence: float | None = None
    share: float | None = None
    model: str | None = None


class EventEvidence(Struct, frozen=True, kw_only=True):
    """Why an event opened, and how it went.

    rule: the rule's settings at that time, as JSON; None if they are not known any more.
    measure: what the points are values of; None for events about a camera's state, which have no points.
    points: when, and the value then, in the order of time. See events/series.py for how many.
    """

    rule: str | None = None
    measure: Measure | None = None
    points: list[Point] = []


class Change(Struct, frozen=True, kw_only=True):
    """An event as it is once it has opened or closed, and what it is built on until then."""

    phase: Phase
    event: Event
    evidence: EventEvidence = EventEvidence()


def event_id(rule: str, camera: str, subject: str, started_at: float) -> str:
    """Return the ID of an event, 32 hexadecimal digits."""
    return hashlib.sha256(f"{rule} {camera} {subject} {started_at!r}".encode()).hexdigest()[:32]


def is_event_id(text: str) -> bool:
    """Return whether a text can be the ID of an event."""
    return _EVENT_ID.fullmatch(text) is not None
