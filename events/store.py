"""What the active recorder writes: events, deliveries, counts, and what it continues from, in one transaction.

Exactly one recorder is active: the one whose token is in the table `lease`, which each transaction renews or fails. So
a recorder that was suspended writes nothing after another one has taken over. All methods raise DatabaseAway.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import sqlalchemy as sa

from events.camera_watch import CameraState
from events.database import database_errors
from events.event_types import Change, Event, EventEvidence
from events.evidence import add_evidence, update_evidence
from events.minute_counts import MinuteCount
from events.outbox import add_deliveries, note_missing_receivers
from events.receiver_types import ReceiverSettings
from events.schema import update_schema
from events.tables import CAMERA_STATES, COUNTS, EVENTS, LEASE, POSITIONS, QUARTER_COUNTS, QUARTER_MIN
from events.thumbnails import Thumbnail, add_thumbnail

log = logging.getLogger(__name__)

LEASE_S = 3.0  # a recorder that has written nothing for longer may be replaced
MAX_AHEAD_S = 60.0  # a lease that ends later than that is of a time before the clock was set back


class LeaseLost(Exception):
    """Another recorder has taken over."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a recorder continues from. positions: the ID of the last result by stream. states: by camera."""

    positions: dict[str, bytes]
    states: dict[str, CameraState]


@dataclass(frozen=True, slots=True)
class Progress:
    """What a recorder has found since it last wrote, and where it is now.

    counts: by camera and Unix minute. evidence, thumbnails: of events that are open, by event ID.
    forgotten: cameras that are out of use, which have no state any more.
    """

    positions: Mapping[str, bytes] = field(default_factory=dict)
    states: Mapping[str, CameraState] = field(default_factory=dict)
    changes: Sequence[Change] = ()
    forgotten: Collection[str] = ()
    counts: Mapping[str, Mapping[int, MinuteCount]] = field(default_factory=dict)
    evidence: Mapping[str, EventEvidence] = field(default_factory=dict)
    thumbnails: Mapping[str, Thumbnail] = field(default_factory=dict)


class Store:
    """The database, as one recorder uses it.

    Args:
        token: of this recorder, unlike that of any other.
        receivers: to which events are delivered.
        now: the time at which deliveries are due, in Unix seconds.
    """

    def __init__(
        self, engine: sa.Engine, token: str, receivers: Sequence[ReceiverSettings], now: Callable[[], float] = time.time
    ) -> None:
        self._engine = engine
        self._token = token
        self._receivers = receivers
        self._now = now
        self._is_ready = False

    def use(self, receivers: Sequence[ReceiverSettings]) -> None:
        """Deliver events that are written from now on to these receivers; note which pending ones have none."""
        self._receivers = receivers
        with database_errors(), self._engine.begin() as connection:
            missing = note_missing_receivers(connection, receivers)
        if missing:
            log.warning("%d pending deliveries are to receivers that are not in the rules: they die a day old", missing)

    def has_lease(self, connection: sa.Connection) -> bool:
        """Return whether no other recorder has taken over since this one did."""
        return connection.execute(sa.select(LEASE.c.token)).scalar() == self._token

    def take_over(self, at: float) -> Snapshot | None:
        """Become the active recorder and return what to continue from; None while another one is active.

        at: the present time, on a clock that all recorders share.
        """
        if not self._is_ready:
            update_schema(self._engine)
        self._is_ready = False  # until it answers: it may have been replaced, or restored from a copy
        free = (LEASE.c.token == self._token) | (LEASE.c.expires_at < at) | (LEASE.c.expires_at > at + MAX_AHEAD_S)
        with database_errors(), self._engine.begin() as connection:
            is_ours = self._renew(connection, free, at)
            self._is_ready = True
            if not is_ours:
                return None
            positions = {row.stream: row.last_id.encode() for row in connection.execute(sa.select(POSITIONS))}
            states = {row.camera: row.state for row in connection.execute(sa.select(CAMERA_STATES))}
        return Snapshot(positions, {camera: _decoded(state) for camera, state in states.items()})

    def write(self, progress: Progress, at: float) -> None:
        """Write progress and renew the lease, all or nothing.

        Raises:
            LeaseLost: another recorder is active; nothing was written.
        """
        with database_errors(), self._engine.begin() as connection:
            if not self._renew(connection, LEASE.c.token == self._token, at):
                raise LeaseLost
            for change in progress.changes:
                if _write_event(connection, change):
                    add_evidence(connection, change.event.id, change.evidence)
                    add_deliveries(connection, change, self._receivers, self._now())
            for event_id, evidence in progress.evidence.items():
                update_evidence(connection, event_id, evidence)
            for event_id, thumbnail in progress.thumbnails.items():
                add_thumbnail(connection, event_id, thumbnail)
            for camera, minutes in progress.counts.items():
                for minute, count in minutes.items():
                    _add_count(connection, COUNTS, {"camera": camera, "minute": minute}, count)
                    quarter = {"camera": camera, "quarter": minute // QUARTER_MIN}
                    _add_count(connection, QUARTER_COUNTS, quarter, count)
            for stream, last_id in progress.positions.items():
                _put(connection, POSITIONS, {"stream": stream}, {"last_id": last_id.decode()})
            if progress.forgotten:
                connection.execute(sa.delete(CAMERA_STATES).where(CAMERA_STATES.c.camera.in_(progress.forgotten)))
            for camera, state in progress.states.items():
                _put(connection, CAMERA_STATES, {"camera": camera}, {"state": msgspec.msgpack.encode(state)})

    def let_go(self) -> None:
        """Let another recorder take over at once."""
        with database_errors(), self._engine.begin() as connection:
            connection.execute(sa.update(LEASE).where(LEASE.c.token == self._token).values(expires_at=0.0))

    def _renew(self, connection: sa.Connection, condition: sa.ColumnElement[bool], at: float) -> bool:
        """Return whether the lease is ours, until LEASE_S from now."""
        changed = connection.execute(
            sa.update(LEASE).where(LEASE.c.id == 1, condition).values(token=self._token, expires_at=at + LEASE_S)
        )
        return changed.rowcount == 1


def _decoded(state: bytes) -> CameraState:
    """Return a stored state; a new one if it is of another version of maskwatch."""
    try:
        return msgspec.msgpack.decode(state, type=CameraState)
    except msgspec.DecodeError:
        return CameraState()


def _write_event(connection: sa.Connection, change: Change) -> bool:
    """Write an event that has opened or closed; return whether that is news."""
    event = change.event
    found = connection.execute(sa.select(EVENTS.c.ended_at).where(EVENTS.c.id == event.id)).first()
    if found is None:
        connection.execute(sa.insert(EVENTS).values(msgspec.structs.asdict(event)))
        return True
    if change.phase == "opened" or found.ended_at is not None:
        return False
    connection.execute(sa.update(EVENTS).where(EVENTS.c.id == event.id).values(_closing(event)))
    return True


def _closing(event: Event) -> dict[str, object]:
    return {name: getattr(event, name) for name in ("ended_at", "people", "confidence", "share", "model")}


def _add_count(connection: sa.Connection, table: sa.Table, key: Mapping[str, object], count: MinuteCount) -> None:
    """Add what was counted in a minute to a row, new or not."""
    where = [table.c[name] == value for name, value in key.items()]
    before = connection.execute(sa.select(table).where(*where)).first()
    if before is None:
        connection.execute(sa.insert(table).values({**key, **msgspec.structs.asdict(count)}))
        return
    values = {name: getattr(before, name) + getattr(count, name) for name in ("people_s", "masks_s", "frames")}
    connection.execute(sa.update(table).where(*where).values(values | {"most": max(before.most, count.most)}))


def _put(connection: sa.Connection, table: sa.Table, key: dict[str, str], values: dict[str, object]) -> None:
    """Write a row, new or not; only the active recorder writes such rows."""
    where = [table.c[name] == value for name, value in key.items()]
    if connection.execute(sa.update(table).where(*where).values(values)).rowcount == 0:
        connection.execute(sa.insert(table).values(key | values))
