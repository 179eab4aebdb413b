"""The operations on events: lists in pages, one event, counts, and deliveries, which can be sent again.

While the database is away, the application answers 503 at once.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Any
from zoneinfo import ZoneInfo

from flask import Response
from msgspec import UNSET, Struct

from events.count_reading import MINUTES, Period, TooManyPeriods, read_counts
from events.event_database import EventDatabase
from events.outbox import Delivery, NoSuchDelivery, list_deliveries, read_delivery, replay_delivery
from events.reading import BadCursor, EventFilter, read_deliveries_of, read_event, read_events
from viewer.api import event_types as types
from viewer.api.operations import NoParameters, Operation, json_response
from viewer.api.problems import ApiError

DEFAULT_PERIODS: dict[Period, int] = {"minute": 60, "hour": 24, "day": 30}  # counted without since
NO_EVENT = {404: "There is no such event."}
NO_DELIVERY = {404: "There is no such delivery."}


def event_operations(database: EventDatabase) -> list[Operation]:
    """Return the operations."""
    return [*_event_operations(database), _count_operation(database), *_delivery_operations(database)]


def _event_operations(database: EventDatabase) -> list[Operation]:
    def events(_path: NoParameters, query: types.EventParameters) -> Response:
        """List events, newest first, in pages: send next_cursor of one as cursor to get the next."""
        given = _given(query)
        limit, cursor, open_only = given.pop("limit"), given.pop("cursor", None), given.pop("open")
        try:
            with database.reading() as connection:
                page = read_events(connection, EventFilter(open_only=open_only, **given), limit=limit, cursor=cursor)
        except BadCursor as error:
            raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        return json_response(types.EventList(events=page.events, next_cursor=page.next_cursor))

    def event(path: types.OneEventParameters, _query: NoParameters) -> Response:
        """Return one event with its deliveries."""
        with database.reading() as connection:
            found, deliveries = read_event(connection, path.id), read_deliveries_of(connection, path.id)
        if found is None:
            raise ApiError(HTTPStatus.NOT_FOUND, f"there is no event {path.id}: /api/v1/events lists them")
        return json_response(types.EventWithDeliveries(event=found, deliveries=deliveries))

    return [
        Operation(
            path="/events",
            id="list_events",
            summary="List events",
            query_type=types.EventParameters,
            answer=types.EventList,
            handle=events,
        ),
        Operation(
            path="/events/{id}",
            id="get_event",
            summary="Get one event and its deliveries",
            path_type=types.OneEventParameters,
            answer=types.EventWithDeliveries,
            errors=NO_EVENT,
            handle=event,
        ),
    ]


def _count_operation(database: EventDatabase) -> Operation:
    def counts(_path: NoParameters, query: types.CountParameters) -> Response:
        """Count people and masks by camera and minute, hour or day: time of people, their share with a mask."""
        given = _given(query)
        until = given.get("until", time.time())
        since = given.get("since", max(0.0, until - DEFAULT_PERIODS[query.by] * MINUTES[query.by] * 60))
        zone = _zone(query.timezone)
        try:
            with database.reading() as connection:
                found = read_counts(
                    connection, query.by, since=since, until=until, camera=given.get("camera"), zone=zone
                )
        except TooManyPeriods as error:
            raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        return json_response(types.CountList(counts=found))

    return Operation(
        path="/counts",
        id="list_counts",
        summary="Count people and masks by minute, hour or day",
        query_type=types.CountParameters,
        answer=types.CountList,
        handle=counts,
    )


def _delivery_operations(database: EventDatabase) -> list[Operation]:
    def deliveries(_path: NoParameters, query: types.DeliveryParameters) -> Response:
        """List deliveries of events, newest first, in pages: send next_cursor of one as cursor to get the next."""
        given = _given(query)
        limit, before = given.pop("limit"), given.pop("cursor", None)
        with database.reading() as connection:
            found = list_deliveries(connection, limit=limit + 1, before=before, **given)
        following = str(found[limit - 1].id) if len(found) > limit else None
        return json_response(types.DeliveryList(deliveries=found[:limit], next_cursor=following))

    def replay(path: types.OneDeliveryParameters, _query: NoParameters) -> Response:
        """Send a delivery again, whatever became of it; return it, pending as if it were new."""
        try:
            with database.writing() as connection:
                replay_delivery(connection, path.id, time.time())
                return json_response(read_delivery(connection, path.id))
        except NoSuchDelivery as error:
            detail = f"there is no delivery {path.id}: /api/v1/deliveries lists them"
            raise ApiError(HTTPStatus.NOT_FOUND, detail) from error

    return [
        Operation(
            path="/deliveries",
            id="list_deliveries",
            summary="List deliveries of events",
            query_type=types.DeliveryParameters,
            answer=types.DeliveryList,
            handle=deliveries,
        ),
        Operation(
            method="POST",
            path="/deliveries/{id}/replay",
            id="replay_delivery",
            summary="Send a delivery again",
            scope="admin",
            path_type=types.OneDeliveryParameters,
            answer=Delivery,
            errors=NO_DELIVERY,
            handle=replay,
        ),
    ]


def _given(parameters: Struct) -> dict[str, Any]:
    """Return the parameters that have a value."""
    values = {name: getattr(parameters, name) for name in parameters.__struct_fields__}
    return {name: value for name, value in values.items() if value is not UNSET}


def _zone(name: str) -> ZoneInfo:
    """Return a time zone.

    Raises:
        ApiError: there is none of this name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:
        detail = f"timezone: {name!r} is unknown; write for example Europe/Berlin"
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, detail) from error
