"""The words of the pages about events. Pure functions of what was recorded."""

from __future__ import annotations

from events.event_types import Event

# What the kinds of events are called in lists and filters.
KINDS = {
    "no_mask": "No mask",
    "people_without_mask": "Several people without masks",
    "mask_share": "Few masks",
    "camera_offline": "Camera offline",
    "camera_unlabelled": "Frames without labels",
    "camera_back": "Camera back",
}


def kind_text(kind: str) -> str:
    """Return what a kind is called; kinds of other versions of maskwatch are shown by their name."""
    return KINDS.get(kind, kind.replace("_", " "))


def event_title(event: Event) -> str:
    """Return an event in a few words, for example "No mask for 12 s"."""
    if event.kind == "people_without_mask":
        people = "1 person without mask" if event.people == 1 else f"{event.people} people without masks"
        return f"{people}{_lasted(event)}"
    if event.kind == "mask_share" and event.share is not None:
        return f"Masks in only {percent_text(event.share)} of the time"
    if event.kind == "camera_back":
        return kind_text(event.kind)
    return f"{kind_text(event.kind)}{_lasted(event)}"


def duration_text(seconds: float) -> str:
    """Return a duration, for example "8 s", "2 min 5 s", "3 h 20 min" or "2 d 4 h"."""
    whole = round(seconds)
    for unit_s, unit, part_s, part in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit_s:
            rest = whole % unit_s // part_s
            return f"{whole // unit_s} {unit} {rest} {part}" if rest else f"{whole // unit_s} {unit}"
    return f"{whole} s"


def people_time_text(seconds: float) -> str:
    """Return the times of people added up, in hours and minutes, for example "61 h 20 min"; "8 s" below a minute."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return duration_text(seconds)
    return f"{minutes // 60:,} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def percent_text(share: float | None) -> str:
    """Return a share, for example "93 %"; a dash without one. Shares of nearly all or nothing are not rounded to it."""
    if share is None:
        return "–"
    return f"{min(max(round(share * 100), 0 if share == 0 else 1), 100 if share == 1 else 99)} %"


def _lasted(event: Event) -> str:
    if event.ended_at is None:
        return ", not over yet"
    return f" for {duration_text(max(event.ended_at - event.started_at, 0))}"
