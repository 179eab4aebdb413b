"""Some days of events, deliveries and counts of three cameras, written through the recorder's own store."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import sqlalchemy as sa

from events.database import open_engine
from events.event_types import Change, Event, EventEvidence, Measure, event_id
from events.minute_counts import MinuteCount
from events.outbox import due_deliveries, note_delivered, note_failed
from events.rule_types import DAY_S, CameraOffline, NoMask, Rule, Webhook
from events.store import Progress, Store
from events.thumbnails import Thumbnail

OFFICE = Webhook(name="office", url="https://example.com/events", secret="sixteen letters!")
RULES: dict[str, Rule] = {
    "no_mask": NoMask(name="no-mask", cooldown_s=60),
    "camera_offline": CameraOffline(name="camera-offline"),
}
HOURS = range(7, 21)  # of a day, in which people come
PLACES = [("door", "entrance"), ("door", None), ("lobby", None), ("yard", None)]
KINDS = ["no_mask"] * 6 + ["people_without_mask", "mask_share", "camera_offline", "camera_back"]


@dataclass(frozen=True)
class Recorded:
    """What was written. events: newest first, as a page lists them."""

    url: str
    events: list[Event]


def record_days(
    url: str, first: float, days: int = 3, a_day: int = 110, seed: int = 7, thumbnail: Thumbnail | None = None
) -> Recorded:
    """Write some days into a new database.

    Args:
        first: when the first day begins, Unix seconds.
        a_day: events.
        thumbnail: of events about one person; None for none.
    """
    chance = random.Random(seed)
    events = sorted(
        (event for day in range(days) for event in _events(first + day * DAY_S, a_day, chance)),
        key=lambda event: (event.started_at, event.id),
    )
    counts = {camera: dict(_minutes(first, days, chance)) for camera in ("door", "lobby", "yard")}
    changes = [change for event in events for change in _changes(event, chance)]
    at = first + days * DAY_S
    engine = open_engine(url)
    store = Store(engine, "test", [OFFICE], now=lambda: at)
    assert store.take_over(at) is not None
    pictured = {event.id: thumbnail for event in events if event.track} if thumbnail else {}
    store.write(Progress(changes=changes, counts=counts, thumbnails=pictured), at)
    _deliver(engine, at)
    engine.dispose()
    return Recorded(url, events[::-1])


def _events(midnight: float, number: int, chance: random.Random) -> Iterator[Event]:
    for _ in range(number):
        kind = chance.choice(KINDS)
        camera, zone = chance.choice(PLACES)
        is_of_camera = kind.startswith("camera")
        started_at = midnight + 3_600 * chance.triangular(HOURS.start, HOURS.stop, 12)
        lasted = round(chance.expovariate(1 / 40), 2) + 5
        track = chance.randrange(1, 4_000) if kind == "no_mask" else None
        rule = kind.replace("_", "-")
        yield Event(
            id=event_id(rule, camera, str(track or ""), started_at),
            rule=rule,
            kind=kind,
            camera=camera,
            zone=None if is_of_camera else zone,
            subject=str(track or ""),
            track=track,
            started_at=started_at,
            opened_at=started_at + 5,
            ended_at=started_at + lasted,
            people=0 if is_of_camera else 1 if track else chance.randrange(2, 6),
            confidence=None if is_of_camera else round(chance.uniform(0.8, 0.999), 3),
            share=round(chance.uniform(0.3, 0.7), 2) if kind == "mask_share" else None,
            model=None if is_of_camera else "lite-c215ca45",
        )


def _changes(event: Event, chance: random.Random) -> list[Change]:
    """Return how an event opened and closed, with how confident its labels were meanwhile."""
    rule = RULES.get(event.kind)
    measure: Measure | None = "confidence" if event.track else None
    steps = range(min(int(4 * (event.opened_at - event.started_at)) + 40, 120) if measure else 0)
    points = [(event.started_at + step / 4, min(chance.gauss(0.96, 0.02), 1.0)) for step in steps]
    settings = msgspec.json.encode(rule).decode() if rule else None
    evidence = EventEvidence(rule=settings, measure=measure, points=points)
    opened = msgspec.structs.replace(event, ended_at=None)
    return [Change(phase=phase, event=one, evidence=evidence) for phase, one in (("opened", opened), ("closed", event))]


def _minutes(first: float, days: int, chance: random.Random) -> Iterator[tuple[int, MinuteCount]]:
    """Yield the counts of minutes: most people at noon, most masks in the morning."""
    for day in range(days):
        for minute in range(60 * HOURS.start, 60 * HOURS.stop):
            crowd = 1.5 + 2.5 * math.sin(math.pi * (minute / 60 - HOURS.start) / len(HOURS)) + chance.uniform(-1, 1)
            people_s = round(60 * max(crowd, 0) * chance.choice((0, 0.4, 1)), 1)
            share = 0.95 - 0.02 * (minute / 60 - HOURS.start) + chance.uniform(-0.06, 0.04)
            number = int((first + day * DAY_S) // 60) + minute
            most = math.ceil(people_s / 60) + chance.randrange(2) if people_s else 0
            yield number, MinuteCount(people_s=people_s, masks_s=round(people_s * share, 1), most=most, frames=1_200)


def _deliver(engine: sa.Engine, at: float) -> None:
    """Let the office accept the oldest deliveries of each camera, and refuse those after them."""
    with engine.begin() as connection:
        for _ in range(20):
            for one in due_deliveries(connection, OFFICE.name, at):
                note_delivered(connection, one, at + 1)
        for one in due_deliveries(connection, OFFICE.name, at):
            note_failed(connection, one, "the receiver answered 503 <b>busy</b>", at + 1)
