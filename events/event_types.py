"""An event and what changes it. Times are Unix seconds on Redis' clock."""

from __future__ import annotations

import hashlib
from typing import Literal

from msgspec import Struct

Phase = Literal["opened", "closed"]


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


class Change(Struct, frozen=True, kw_only=True):
    """An event as it is once it has opened or closed."""

    phase: Phase
    event: Event


def event_id(rule: str, camera: str, subject: str, started_at: float) -> str:
    """Return the ID of an event, 32 hexadecimal digits."""
    return hashlib.sha256(f"{rule} {camera} {subject} {started_at!r}".encode()).hexdigest()[:32]
