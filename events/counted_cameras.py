"""Read which cameras have counts. Nothing here writes."""

from __future__ import annotations

import sqlalchemy as sa

from events.tables import COUNTS

MAX_CAMERAS = 1_000


def read_counted_cameras(connection: sa.Connection) -> list[str]:
    """Return the cameras that have counts, sorted; one search of the index for each, instead of reading every count."""
    cameras: list[str] = []
    found = connection.execute(sa.select(sa.func.min(COUNTS.c.camera))).scalar()
    while found is not None and len(cameras) < MAX_CAMERAS:
        cameras.append(found)
        found = connection.execute(sa.select(sa.func.min(COUNTS.c.camera)).where(COUNTS.c.camera > found)).scalar()
    return cameras
