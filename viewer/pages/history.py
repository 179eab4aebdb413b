"""The History page: events, newest first, by filters, and a timeline of a day. It works without scripts."""

from __future__ import annotations

from datetime import tzinfo

import msgspec
from flask import Flask, Response, request, url_for
from msgspec import Struct
from sqlalchemy import Connection

from events.event_database import EventDatabase
from events.event_types import Event
from events.reading import EventChoices, EventFilter, read_choices, read_events
from events.thumbnails import with_thumbnails
from events.timeline import read_hours
from viewer.pages.event_texts import event_title
from viewer.pages.history_query import HistoryQuery, history_query, history_url
from viewer.pages.rendering import FAILURES, PageRenderer
from viewer.pages.time_zones import day_bounds, local, reader_zone, today
from viewer.pages.timeline import Timeline, make_timeline

EVENTS_A_PAGE = 50


class ListedEvent(Struct, frozen=True, kw_only=True):
    """An event as the list shows it. picture_url: None without a picture."""

    kind: str
    title: str
    place: str
    url: str
    began_iso: str
    began_time: str
    began_day: str
    picture_url: str | None


class FoundEvents(Struct, frozen=True, kw_only=True):
    """What the page shows of the database. older_url: None on the last page; newest_url: None on the first one."""

    choices: EventChoices
    timeline: Timeline
    events: list[ListedEvent]
    older_url: str | None
    newest_url: str | None


def add_history(app: Flask, database: EventDatabase, pages: PageRenderer) -> None:
    """Add the page."""

    @app.get("/history")
    def history() -> Response:
        zone = reader_zone()
        try:
            query = history_query(request.args, zone)
            with database.reading() as connection:
                found = find_events(connection, query, zone)
        except FAILURES as error:
            return pages.failure("history.html", zone, error)
        return pages.render("history.html", zone, asked=query, found=found)


def find_events(connection: Connection, query: HistoryQuery, zone: tzinfo) -> FoundEvents:
    """Return what the page shows.

    Raises:
        BadCursor: no page has given the cursor of the question.
    """
    since, until = (None if one is None else one.timestamp() for one in (query.since, query.until))
    wanted = EventFilter(camera=query.camera, kind=query.kind, zone=query.zone, since=since, until=until)
    page = read_events(connection, wanted, limit=EVENTS_A_PAGE, cursor=query.cursor)
    pictured = with_thumbnails(connection, [event.id for event in page.events])
    day = query.day(today(zone))
    hours = read_hours(connection, *day_bounds(day, zone), camera=query.camera, kind=query.kind, zone=query.zone)
    older, newest = (msgspec.structs.replace(query, cursor=cursor) for cursor in (page.next_cursor, None))
    return FoundEvents(
        choices=read_choices(connection),
        timeline=make_timeline(query, day, today(zone), hours, zone),
        events=[_listed(event, zone, has_picture=event.id in pictured) for event in page.events],
        older_url=history_url(older) if page.next_cursor else None,
        newest_url=history_url(newest) if query.cursor else None,
    )


def event_place(event: Event) -> str:
    """Return where an event was, for example "door, in entrance"."""
    return f"{event.camera}, in {event.zone}" if event.zone else event.camera


def _listed(event: Event, zone: tzinfo, *, has_picture: bool) -> ListedEvent:
    began = local(event.started_at, zone)
    return ListedEvent(
        kind=event.kind,
        title=event_title(event),
        place=event_place(event),
        url=url_for("event", event_id=event.id),
        began_iso=began.isoformat(),
        began_time=f"{began:%H:%M:%S}",
        began_day=f"{began:%a %-d %b %Y}",
        picture_url=url_for("event_picture", event_id=event.id) if has_picture else None,
    )
