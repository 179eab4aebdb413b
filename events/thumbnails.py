"""Keep a small picture of events whose rule is about faces, if `--thumbnails` asks for it."""

from __future__ import annotations

import sqlalchemy as sa
from msgspec import Struct

from events.tables import EVENTS, THUMBNAILS


class Thumbnail(Struct, frozen=True, kw_only=True):
    """A picture of an event. captured_at: when its frame was captured. blurred: whether faces cannot be recognized."""

    jpeg: bytes
    captured_at: float
    blurred: bool


def read_thumbnail(connection: sa.Connection, event_id: str) -> Thumbnail | None:
    """Return the picture of an event; None if it has none."""
    columns = (THUMBNAILS.c.jpeg, THUMBNAILS.c.captured_at, THUMBNAILS.c.blurred)
    row = connection.execute(sa.select(*columns).where(THUMBNAILS.c.event_id == event_id)).first()
    return None if row is None else Thumbnail(**row._mapping)


def with_thumbnails(connection: sa.Connection, event_ids: list[str]) -> set[str]:
    """Return which of these events have a picture, without reading the pictures."""
    found = sa.select(THUMBNAILS.c.event_id).where(THUMBNAILS.c.event_id.in_(event_ids))
    return set(connection.execute(found).scalars())


def add_thumbnail(connection: sa.Connection, event_id: str, thumbnail: Thumbnail) -> None:
    """Write the picture of an event, unless it has one or was removed meanwhile."""
    has_event = connection.execute(sa.select(EVENTS.c.id).where(EVENTS.c.id == event_id)).first()
    if has_event and not with_thumbnails(connection, [event_id]):
        connection.execute(sa.insert(THUMBNAILS).values(event_id=event_id, **_values(thumbnail)))


def _values(thumbnail: Thumbnail) -> dict[str, bytes | float | bool]:
    return {"jpeg": thumbnail.jpeg, "captured_at": thumbnail.captured_at, "blurred": thumbnail.blurred}
