"""Read which cameras have counts. Nothing here writes."""

from __future__ import annotations

import sqlalchemy as sa

from events.reading import read_values
from events.tables import QUARTER_COUNTS


def read_counted_cameras(connection: sa.Connection) -> list[str]:
    """Return the cameras that have counts, sorted."""
    return read_values(connection, QUARTER_COUNTS.c.camera)
