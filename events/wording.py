"""Say in words what an event is, for people who get it by e-mail or on their telephones. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from events.event_types import Event
from events.outbox import Message

_OPENED = {
    "no_mask": "somebody without a mask",
    "people_without_mask": "people without masks",
    "mask_share": "few masks are worn",
    "camera_offline": "the camera is offline",
    "camera_unlabelled": "no frame of the camera is labelled",
    "camera_back": "the camera is back",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """How messages for people are written. timezone: of times in them. public_url: of the page; None for no links."""

    timezone: str = "UTC"
    public_url: str | None = None

    def title(self, message: Message) -> str:
        """Return a message in a line, for example `door: somebody without a mask`."""
        event = message.event
        what = f"{event.camera}: {_OPENED.get(event.kind, event.kind)}"
        return what if message.phase == "opened" else f"{what} (over after {_duration(event)})"

    def text(self, message: Message) -> str:
        """Return a message as lines: what, where, when, how long, what it is based on, and where to see more."""
        event = message.event
        lines = [self.title(message), "", f"Camera: {event.camera}"]
        if event.zone:
            lines.append(f"Zone: {event.zone}")
        lines.append(f"Began: {self._time(event.started_at)}")
        if event.ended_at is not None:
            lines.append(f"Ended: {self._time(event.ended_at)}, after {_duration(event)}")
        lines += [*_facts(event), f"Rule: {event.rule}"]
        if self.public_url:
            lines += ["", self.link(event)]
        return "\n".join(lines) + "\n"

    def link(self, event: Event) -> str:
        """Return the address of an event's page."""
        return f"{(self.public_url or '').rstrip('/')}/history/{event.id}"

    def _time(self, at: float) -> str:
        return datetime.fromtimestamp(at, ZoneInfo(self.timezone)).strftime("%Y-%m-%d %H:%M:%S %Z")


def _facts(event: Event) -> list[str]:
    lines = []
    if event.people:
        lines.append(f"People: {event.people}")
    if event.share is not None:
        lines.append(f"Masks worn: {event.share:.0%} of the time")
    if event.confidence is not None:
        lines.append(f"Confidence: {event.confidence:.0%}")
    return lines


def _duration(event: Event) -> str:
    """Return how long an event has lasted, for example `5 s` or `1 h 20 min`."""
    seconds = round((event.started_at if event.ended_at is None else event.ended_at) - event.started_at)
    minutes, hours = seconds // 60, seconds // 3600
    if seconds < 120:
        return f"{seconds} s"
    return f"{minutes} min" if hours == 0 else f"{hours} h {minutes % 60} min"
