"""Make a long history of events, as 20 cameras have it in 90 days: an empty database in, a full one out.

Events, deliveries and evidence come from one seed. Most events are about people by day, some rules are rare, and one
zone is: so that filters are tried that match nearly all events, some, and hardly any.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, cast

import msgspec
import sqlalchemy as sa

from events.tables import DELIVERIES, EVENTS, EVIDENCE

BEGIN = 1_750_000_000.0  # Unix seconds
DAYS = 90
DAY_S = 86_400
END = BEGIN + DAYS * DAY_S
CAMERAS = tuple(f"camera-{number:02}" for number in range(20))
MODEL = "lite-c215ca45"
BATCH = 20_000  # rows in one statement
DELIVERED = 0.3  # share of the events that a webhook wants


@dataclass(frozen=True)
class Kind:
    """A rule of the history. share: of all events. zones: in which of them; None for the whole picture."""

    rule: str
    kind: str
    share: float
    zones: tuple[str | None, ...] = (None,)


KINDS = (
    Kind("no-mask", "no_mask", 0.55),
    Kind("entrance-no-mask", "no_mask", 0.25, ("entrance", "entrance", "entrance", "till")),
    Kind("crowd", "people_without_mask", 0.12, ("entrance", None)),
    Kind("few-masks", "mask_share", 0.0699),
    Kind("offline", "camera_offline", 0.005),
    Kind("back", "camera_back", 0.005),
    Kind("vault", "no_mask", 0.0001, ("vault",)),
)
Row = dict[str, object]
COUNTS_OF_A_CAMERA = """
INSERT INTO counts (camera, minute, people_s, masks_s, most, frames)
WITH RECURSIVE minutes (minute) AS (
  SELECT CAST(:first AS BIGINT) UNION ALL SELECT minute + 1 FROM minutes WHERE minute < :last
)
SELECT :camera, minute, seed % 120, seed % 120 * (seed % 101) / 100.0, seed % 7, 1200
FROM (SELECT minute, minute * 7919 + CAST(:number AS BIGINT) * 104729 AS seed FROM minutes) AS seeded
"""
SUMS_OF_COUNTS = """
INSERT INTO quarter_counts (camera, quarter, people_s, masks_s, most, frames)
SELECT camera, minute / 15, SUM(people_s), SUM(masks_s), MAX(most), SUM(frames) FROM counts GROUP BY camera, minute / 15
"""


def fill(engine: sa.Engine, events: int, seed: int) -> None:
    """Write a history into an empty database whose schema is there, and let the database learn what is in it."""
    random = Random(seed)
    for number in range(0, events, BATCH):
        rows = [_event(random, one, events) for one in range(number, min(number + BATCH, events))]
        _load(engine, EVENTS, rows)
        _load(engine, EVIDENCE, [_evidence(random, row) for row in rows])
        _load(engine, DELIVERIES, [one for row in rows if random.random() < DELIVERED for one in _deliveries(row)])
    _fill_counts(engine)
    statement = "ANALYZE" if engine.dialect.name == "sqlite" else "VACUUM (ANALYZE)"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(statement)


def _event(random: Random, number: int, events: int) -> Row:
    kind = random.choices(KINDS, [one.share for one in KINDS])[0]
    day, hour = divmod(number * DAYS / events, 1)
    started_at = BEGIN + day * DAY_S + (6 + 14 * hour) * 3_600 + random.random()  # by day
    lasts_s = 2 + random.expovariate(1 / 15)
    is_open = number >= events - 5
    has_track = kind.kind == "no_mask"
    return {
        "id": f"{random.getrandbits(128):032x}",
        "rule": kind.rule,
        "kind": kind.kind,
        "camera": random.choice(CAMERAS),
        "zone": random.choice(kind.zones),
        "subject": str(number) if has_track else "",
        "track": number if has_track else None,
        "started_at": started_at,
        "opened_at": started_at + 2,
        "ended_at": None if is_open else started_at + lasts_s,
        "people": random.randint(1, 5),
        "confidence": random.uniform(0.6, 0.99) if has_track else None,
        "share": random.random() / 2 if kind.kind == "mask_share" else None,
        "model": MODEL,
    }


def _evidence(random: Random, event: Row) -> Row:
    pairs = [(25 * number, random.randint(600, 990)) for number in range(random.randint(0, 60))]
    rule = json.dumps({"kind": event["kind"], "name": event["rule"], "seconds": 5.0, "cameras": [], "zone": None})
    packed = msgspec.msgpack.encode((175_000_000_000, pairs))
    return {"event_id": event["id"], "rule": rule, "measure": "confidence", "points": packed}


def _deliveries(event: Row) -> Iterator[Row]:
    for phase in ("opened", "closed"):
        at = event["opened_at"]
        yield {
            "event_id": event["id"],
            "phase": phase,
            "receiver": "office",
            "camera": event["camera"],
            "body": json.dumps({"phase": phase, "event": event}),
            "state": "delivered",
            "attempts": 1,
            "created_at": at,
            "next_at": at,
            "finished_at": at,
            "error": None,
        }


def _fill_counts(engine: sa.Engine) -> None:
    """Write a count of each minute and camera, each unlike the one before."""
    first = int(BEGIN // 60)
    span = {"first": first, "last": first + DAYS * 1_440 - 1}
    for number, camera in enumerate(CAMERAS):
        with engine.begin() as connection:
            connection.execute(sa.text(COUNTS_OF_A_CAMERA), span | {"camera": camera, "number": number})
    with engine.begin() as connection:
        connection.exec_driver_sql(SUMS_OF_COUNTS)


def _load(engine: sa.Engine, table: sa.Table, rows: Sequence[Row]) -> None:
    """Write rows the fast way of each database."""
    if not rows:
        return
    names = list(rows[0])
    values = [tuple(row.values()) for row in rows]
    with engine.begin() as connection, contextlib.closing(connection.connection.cursor()) as cursor:
        if engine.dialect.name == "sqlite":
            marks = ", ".join("?" * len(names))
            cursor.executemany(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})", values)  # noqa: S608
            return
        with cast(Any, cursor).copy(f"COPY {table.name} ({', '.join(names)}) FROM STDIN") as copy:
            for one in values:
                copy.write_row(one)
