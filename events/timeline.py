"""Read in which hours of a day events began, for each camera. Nothing here writes."""

from __future__ import annotations

import sqlalchemy as sa

from events.tables import EVENTS

HOUR_S = 3_600


def read_hours(
    connection: sa.Connection,
    begin: float,
    end: float,
    *,
    camera: str | None = None,
    kind: str | None = None,
    zone: str | None = None,
) -> dict[str, dict[int, int]]:
    """Return how many events began in each hour that has some, by camera and number of the hour, 0 for the first one.

    Args:
        begin, end: of the day, Unix seconds.
        camera, kind, zone: of the events that count; None for all.
    """
    number = ((EVENTS.c.started_at - begin) // HOUR_S).label("number")
    wanted = {EVENTS.c.camera: camera, EVENTS.c.kind: kind, EVENTS.c.zone: zone}
    query = (
        sa.select(EVENTS.c.camera, number, sa.func.count().label("count"))
        .where(EVENTS.c.started_at >= begin, EVENTS.c.started_at < end)
        .where(*(column == value for column, value in wanted.items() if value is not None))
        .group_by(EVENTS.c.camera, sa.text("number"))
        .order_by(EVENTS.c.camera)
    )
    found: dict[str, dict[int, int]] = {}
    for row in connection.execute(query):
        found.setdefault(row.camera, {})[int(row.number)] = row._mapping["count"]
    return found
