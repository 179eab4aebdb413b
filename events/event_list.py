"""List events of the database, and describe one in a line."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from events.event_types import Event
from events.tables import EVENTS


def list_events(
    connection: sa.Connection,
    *,
    camera: str | None = None,
    kind: str | None = None,
    since: float | None = None,
    until: float | None = None,
    limit: int = 100,
) -> list[Event]:
    """Return the newest events, newest first.

    Args:
        camera, kind: None for all.
        since, until: when they began, Unix seconds; None for any time.
    """
    query = sa.select(EVENTS).order_by(EVENTS.c.started_at.desc(), EVENTS.c.id.desc()).limit(limit)
    if camera is not None:
        query = query.where(EVENTS.c.camera == camera)
    if kind is not None:
        query = query.where(EVENTS.c.kind == kind)
    if since is not None:
        query = query.where(EVENTS.c.started_at >= since)
    if until is not None:
        query = query.where(EVENTS.c.started_at < until)
    return [Event(**row._mapping) for row in connection.execute(query)]


def describe_event(event: Event) -> str:
    """Return an event as a line for people, with local times."""
    began = datetime.fromtimestamp(event.started_at).strftime("%Y-%m-%d %H:%M:%S")
    lasted = "open" if event.ended_at is None else f"{event.ended_at - event.started_at:.1f} s"
    parts = [f"{began}  {lasted:>9}  {event.camera:<20} {event.rule:<20} {event.kind:<20}"]
    if event.zone:
        parts.append(f"in {event.zone}")
    if event.track is not None:
        parts.append(f"track {event.track}")
    elif event.people:
        parts.append(f"{event.people} people")
    if event.share is not None:
        parts.append(f"{event.share:.0%} masks")
    if event.confidence is not None:
        parts.append(f"confidence {event.confidence:.0%}")
    return "  ".join(parts).rstrip()
