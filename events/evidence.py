"""Keep what events are built on: the rule's settings when it opened, and how its value went until now.

Points are stored as MessagePack: a list of pairs, hundredths of a second since the first point but that of the first
one, which is in Unix time; and thousandths of the value. A point takes 5 to 7 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from events.event_types import EventEvidence
from events.series import Point
from events.tables import EVIDENCE

TIME_UNIT_S = 0.01
VALUE_UNIT = 0.001


def read_evidence(connection: sa.Connection, event_id: str) -> EventEvidence | None:
    """Return what an event is built on; None if it is not known, as of events of older versions."""
    row = connection.execute(sa.select(EVIDENCE).where(EVIDENCE.c.event_id == event_id)).first()
    if row is None:
        return None
    return EventEvidence(rule=row.rule, measure=row.measure, points=_unpacked(row.points))


def add_evidence(connection: sa.Connection, event_id: str, evidence: EventEvidence) -> None:
    """Write what an event is built on, new or not. The rule's settings stay those of the first time."""
    if update_evidence(connection, event_id, evidence):
        return
    values = {"event_id": event_id, "rule": evidence.rule, "measure": evidence.measure}
    connection.execute(sa.insert(EVIDENCE).values(values | {"points": _packed(evidence.points)}))


def update_evidence(connection: sa.Connection, event_id: str, evidence: EventEvidence) -> bool:
    """Write how an event went until now; return False if nothing is known of it."""
    same = EVIDENCE.c.event_id == event_id
    changed = connection.execute(sa.update(EVIDENCE).where(same).values(points=_packed(evidence.points)))
    return changed.rowcount == 1


def _packed(points: Sequence[Point]) -> bytes:
    begin = round(points[0][0] / TIME_UNIT_S) if points else 0
    pairs = [(round(at / TIME_UNIT_S) - begin, round(value / VALUE_UNIT)) for at, value in points]
    return msgspec.msgpack.encode((begin, pairs))


def _unpacked(packed: bytes) -> list[Point]:
    begin, pairs = msgspec.msgpack.decode(packed, type=tuple[int, list[tuple[int, int]]])
    return [((begin + at) * TIME_UNIT_S, value * VALUE_UNIT) for at, value in pairs]
