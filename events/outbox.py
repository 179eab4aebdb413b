"""The outbox: deliveries that are written together with their events, and what became of each of them.

A delivery is pending until its receiver has accepted it or a day has passed; then it is delivered, or dead. Those of a
camera go to a receiver in the order in which they were written: none is due before the one ahead of it has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import Struct

from events.event_types import Change, Event, Phase
from events.receiver_types import ReceiverSettings
from events.rule_types import DAY_S
from events.tables import DELIVERIES

FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 300.0
MAX_ERROR = 300  # characters
NEVER_TRIED = "never tried: an earlier message was not accepted for as long, or no recorder was active"
NO_RECEIVER = "no receiver in the rules has this name"


class Delivery(Struct, frozen=True, kw_only=True):
    """A delivery and its fate. state: pending, delivered or dead. next_at: of its next attempt, while pending."""

    id: int
    event_id: str
    phase: str
    receiver: str
    camera: str
    body: str
    state: str
    attempts: int
    created_at: float
    next_at: float
    finished_at: float | None
    error: str | None

    @property
    def key(self) -> str:
        """By which a receiver drops what it gets twice."""
        return f"{self.event_id}-{self.phase}"


class Message(Struct, frozen=True, kw_only=True):
    """What a receiver gets, as JSON."""

    phase: Phase
    event: Event


class NoSuchDelivery(ValueError):
    """There is no delivery with this ID."""


def add_deliveries(
    connection: sa.Connection, change: Change, receivers: Sequence[ReceiverSettings], now: float
) -> None:
    """Write a delivery to each receiver that wants events of this rule, or was told that the event has opened."""
    told: set[str] = set()
    if change.phase == "closed":
        opened = (DELIVERIES.c.event_id == change.event.id) & (DELIVERIES.c.phase == "opened")
        told = set(connection.execute(sa.select(DELIVERIES.c.receiver).where(opened)).scalars())
    body = msgspec.json.encode(Message(phase=change.phase, event=change.event)).decode()
    for receiver in receivers:
        if receiver.rules and change.event.rule not in receiver.rules and receiver.name not in told:
            continue
        values = {
            "event_id": change.event.id,
            "phase": change.phase,
            "receiver": receiver.name,
            "camera": change.event.camera,
            "body": body,
            "state": "pending",
            "attempts": 0,
            "created_at": now,
            "next_at": now,
        }
        connection.execute(sa.insert(DELIVERIES).values(values))


def due_deliveries(connection: sa.Connection, receiver: str, now: float) -> list[Delivery]:
    """Return the oldest pending delivery of each camera to a receiver, if its time has come; oldest first.

    A time that is further ahead than the longest pause is of a clock that was wrong, and counts as come.
    """
    pending = (DELIVERIES.c.state == "pending") & (DELIVERIES.c.receiver == receiver)
    oldest = sa.select(sa.func.min(DELIVERIES.c.id)).where(pending).group_by(DELIVERIES.c.camera)
    has_come = (DELIVERIES.c.next_at <= now) | (DELIVERIES.c.next_at > now + MAX_PAUSE_S)
    due = sa.select(DELIVERIES).where(DELIVERIES.c.id.in_(oldest), has_come)
    return [_delivery(row) for row in connection.execute(due.order_by(DELIVERIES.c.id))]


def note_delivered(connection: sa.Connection, delivery: Delivery, now: float) -> None:
    """Write that a receiver has accepted a delivery."""
    _finish(connection, delivery, {"state": "delivered", "finished_at": now, "error": None})


def note_failed(connection: sa.Connection, delivery: Delivery, error: str, now: float) -> None:
    """Write that an attempt has failed: the next one follows after a pause that doubles. error: see one_line()."""
    pause_s = min(FIRST_PAUSE_S * 2.0 ** min(delivery.attempts, 20), MAX_PAUSE_S)
    _finish(connection, delivery, {"next_at": now + pause_s, "error": error})


def give_up(connection: sa.Connection, now: float) -> int:
    """Let deliveries die that were pending for a day; return how many. Those that were never tried say why."""
    late = (DELIVERIES.c.state == "pending") & (DELIVERIES.c.created_at < now - DAY_S)
    reason = sa.func.coalesce(DELIVERIES.c.error, NEVER_TRIED)
    dead = sa.update(DELIVERIES).where(late).values(state="dead", finished_at=now, error=reason)
    return connection.execute(dead).rowcount


def note_missing_receivers(connection: sa.Connection, receivers: Sequence[ReceiverSettings]) -> int:
    """Say of pending deliveries to other receivers than these why they are not sent; return how many there are."""
    pending, names = DELIVERIES.c.state == "pending", [one.name for one in receivers]
    back = pending & DELIVERIES.c.receiver.in_(names) & (DELIVERIES.c.error == NO_RECEIVER)
    connection.execute(sa.update(DELIVERIES).where(back).values(error=None))
    missing = pending & DELIVERIES.c.receiver.not_in(names)
    return connection.execute(sa.update(DELIVERIES).where(missing).values(error=NO_RECEIVER)).rowcount


def list_deliveries(
    connection: sa.Connection,
    *,
    state: str | None = None,
    receiver: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[Delivery]:
    """Return the newest deliveries, newest first. state, receiver: None for all. before: only those with lower IDs."""
    query = sa.select(DELIVERIES).order_by(DELIVERIES.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(DELIVERIES.c.id < before)
    if state:
        query = query.where(DELIVERIES.c.state == state)
    if receiver:
        query = query.where(DELIVERIES.c.receiver == receiver)
    return [_delivery(row) for row in connection.execute(query)]


def read_delivery(connection: sa.Connection, delivery_id: int) -> Delivery | None:
    """Return a delivery, None if there is none with this ID."""
    row = connection.execute(sa.select(DELIVERIES).where(DELIVERIES.c.id == delivery_id)).first()
    return None if row is None else _delivery(row)


def describe_delivery(delivery: Delivery) -> str:
    """Return a delivery and its fate as a line for people."""
    what = f"{delivery.id:>8}  {delivery.state:<9}  {delivery.receiver:<20} {delivery.camera:<20}"
    tried = f"{delivery.phase} {delivery.event_id}  {delivery.attempts} attempts"
    return f"{what} {tried}" + (f"  {delivery.error}" if delivery.error else "")


def replay_delivery(connection: sa.Connection, delivery_id: int, now: float) -> None:
    """Send a delivery again, whatever became of it: it is pending as if it were new.

    Raises:
        NoSuchDelivery: there is none with this ID.
    """
    fresh = {"state": "pending", "attempts": 0, "created_at": now, "next_at": now, "finished_at": None, "error": None}
    found = connection.execute(sa.update(DELIVERIES).where(DELIVERIES.c.id == delivery_id).values(fresh))
    if found.rowcount == 0:
        raise NoSuchDelivery(f"there is no delivery {delivery_id}; `maskwatch deliveries list` shows them")


def one_line(error: str) -> str:
    """Return an error in a line of MAX_ERROR letters that can be shown and stored, whatever a receiver answered."""
    shown = "".join(letter if letter.isprintable() else " " for letter in error)
    return " ".join(shown.split())[:MAX_ERROR]


def _finish(connection: sa.Connection, delivery: Delivery, values: dict[str, Any]) -> None:
    """End an attempt, unless the delivery was given up or replayed meanwhile."""
    same = (
        DELIVERIES.c.id == delivery.id,
        DELIVERIES.c.state == "pending",
        DELIVERIES.c.created_at == delivery.created_at,
    )
    connection.execute(sa.update(DELIVERIES).where(*same).values(values | {"attempts": delivery.attempts + 1}))


def _delivery(row: sa.Row[Any]) -> Delivery:
    return Delivery(**row._mapping)
