"""Describe an event in a line."""

from __future__ import annotations

from datetime import datetime

from events.event_types import Event


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
