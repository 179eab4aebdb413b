"""The page of one event: the moment's details, why its rule fired, and what became of its deliveries."""

from __future__ import annotations

from datetime import tzinfo
from http import HTTPStatus

from flask import Flask, Response, url_for
from msgspec import Struct
from sqlalchemy import Connection

from events.database import DatabaseAway
from events.event_database import EventDatabase
from events.event_types import Event, is_event_id
from events.evidence import read_evidence
from events.outbox import Delivery
from events.reading import read_deliveries_of, read_event
from events.thumbnails import read_thumbnail, with_thumbnails
from viewer.pages.event_evidence import ShownSeries, shown_series, why_text
from viewer.pages.event_texts import duration_text, event_title, kind_text, percent_text
from viewer.pages.rendering import FAILURES, NoSuchEvent, PageRenderer, failure_status
from viewer.pages.time_zones import local, reader_zone


class Fate(Struct, frozen=True, kw_only=True):
    """A delivery as the page shows it."""

    receiver: str
    phase: str
    state: str
    attempts: int
    when: str
    error: str | None


class EventDetails(Struct, frozen=True, kw_only=True):
    """What the page shows of an event. facts: names and values. picture_url: None without a picture."""

    title: str
    facts: list[tuple[str, str]]
    picture_url: str | None
    why: str
    series: ShownSeries | None
    deliveries: list[Fate]


def add_event(app: Flask, database: EventDatabase, pages: PageRenderer) -> None:
    """Add the page."""

    @app.get("/history/<event_id>")
    def event(event_id: str) -> Response:
        zone = reader_zone()
        try:
            with database.reading() as connection:
                found = find_event(connection, event_id, zone)
        except FAILURES as error:
            return pages.failure("event.html", zone, error)
        return pages.render("event.html", zone, found=found)

    @app.get("/history/<event_id>/picture.jpg")
    def event_picture(event_id: str) -> Response:
        try:
            with database.reading() as connection:
                found = read_thumbnail(connection, event_id) if is_event_id(event_id) else None
        except DatabaseAway as error:
            return Response(f"{error}\n", failure_status(error), mimetype="text/plain")
        if found is None:
            return Response("this event has no picture\n", HTTPStatus.NOT_FOUND, mimetype="text/plain")
        return Response(found.jpeg, mimetype="image/jpeg")


def find_event(connection: Connection, event_id: str, zone: tzinfo) -> EventDetails:
    """Return what the page shows.

    Raises:
        NoSuchEvent: there is none with this ID.
    """
    event = read_event(connection, event_id) if is_event_id(event_id) else None
    if event is None:
        raise NoSuchEvent("there is no such event: it is older than what is kept, or the address is wrong")
    evidence = read_evidence(connection, event_id)
    return EventDetails(
        title=event_title(event),
        facts=event_facts(event, zone),
        picture_url=url_for("event_picture", event_id=event_id) if with_thumbnails(connection, [event_id]) else None,
        why=why_text(event.rule, evidence),
        series=shown_series(evidence, zone),
        deliveries=[_fate(one, zone) for one in read_deliveries_of(connection, event_id)],
    )


def event_facts(event: Event, zone: tzinfo) -> list[tuple[str, str]]:
    """Return what is known of an event, as names and values."""
    ended = "not over yet" if event.ended_at is None else time_text(event.ended_at, zone)
    lasted = None if event.ended_at is None else duration_text(max(event.ended_at - event.started_at, 0))
    facts = {
        "Kind": kind_text(event.kind),
        "Camera": event.camera,
        "Zone": event.zone,
        "Began": time_text(event.started_at, zone),
        "Rule fired": time_text(event.opened_at, zone),
        "Ended": ended,
        "Lasted": lasted,
        "Rule": event.rule,
        "Track": None if event.track is None else str(event.track),
        "People at once": str(event.people) if event.people else None,
        "Share of masks": None if event.share is None else percent_text(event.share),
        "Lowest confidence": None if event.confidence is None else percent_text(event.confidence),
        "Model": event.model,
    }
    return [(name, value) for name, value in facts.items() if value]


def time_text(at: float, zone: tzinfo) -> str:
    """Return a time with its day, for example "Sat 31 Jan 2026, 14:03:22". at: Unix seconds."""
    return local(at, zone).strftime("%a %-d %b %Y, %H:%M:%S")


def _fate(delivery: Delivery, zone: tzinfo) -> Fate:
    """Return a delivery in words: when it ended, or is tried next."""
    ended_at = delivery.finished_at
    return Fate(
        receiver=delivery.receiver,
        phase=delivery.phase,
        state=delivery.state,
        attempts=delivery.attempts,
        when=f"next {time_text(delivery.next_at, zone)}" if ended_at is None else time_text(ended_at, zone),
        error=delivery.error,
    )
