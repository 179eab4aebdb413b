"""Send what is in the outbox: one thread for each receiver, so that one that hangs delays no other.

Threads work while this recorder is the active one, by its own knowledge and by the database's; a receiver that shows
states is shown them by its thread, too. What became of a delivery is written before the next one is sent, so a database
that is away, or full, makes no receiver get anything twice. What was sent, but not written when the process died, is
sent again by the next one. The recorder's loop reports a database that is away.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from events.database import DatabaseAway, database_errors
from events.open_receivers import Surroundings, open_receiver
from events.outbox import Delivery, due_deliveries, note_delivered, note_failed, one_line
from events.receiver_types import ReceiverSettings
from events.receivers import NotAccepted, Receiver, StateReceiver
from pipeline.runtime import metrics

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.5
LEAVE_S = 2.0  # in which receivers are told that this recorder ends
MAX_HANG_S = 60.0  # how long a receiver whose settings have changed waits for what is still being sent by those before


class Deliverer:
    """The threads that deliver.

    Args:
        now: Unix seconds.
        surroundings: what receivers show besides events.
        has_lease: returns whether this recorder is the active one, by the database. Another one may have taken over
            while this one's loop waits for Redis.

    Attributes:
        is_active: set while this recorder is the active one.
    """

    def __init__(
        self,
        engine: sa.Engine,
        receivers: Sequence[ReceiverSettings] = (),
        now: Callable[[], float] = time.time,
        surroundings: Surroundings | None = None,
        has_lease: Callable[[sa.Connection], bool] = lambda _connection: True,
    ) -> None:
        self.is_active = threading.Event()
        self._engine = engine
        self._now = now
        self._has_lease = has_lease
        around = surroundings or Surroundings()
        self._lanes = {one.name: _Lane(one, around, now) for one in receivers}

    def start(self) -> None:
        """Start the threads."""
        for lane in self._lanes.values():
            lane.start(self._deliver)

    def use(self, receivers: Sequence[ReceiverSettings], surroundings: Surroundings) -> None:
        """Deliver to these receivers from now on, to new or changed ones after what is being sent to those before."""
        wanted = {one.name: one for one in receivers}
        for name, lane in self._lanes.items():
            if wanted.get(name) != lane.settings or surroundings != lane.surroundings:
                lane.stop.set()
        for name, settings in wanted.items():
            before = self._lanes.get(name)
            if before is None or before.stop.is_set():
                self._lanes[name] = _Lane(settings, surroundings, self._now)
                self._lanes[name].start(self._deliver, before)

    def stop(self) -> None:
        """End the threads after what they are sending; wait a moment for those that say that nobody is active."""
        for lane in self._lanes.values():
            lane.stop.set()
        ends = time.monotonic() + LEAVE_S
        for lane in self._lanes.values():
            if isinstance(lane.receiver, StateReceiver):
                lane.join(max(ends - time.monotonic(), 0.0))

    def deliver_due(self, settings: ReceiverSettings) -> int:
        """Send what is due to a receiver, once each; return how many deliveries were tried.

        Raises:
            DatabaseAway: the database does not answer.
        """
        return self._deliver_due(self._lanes[settings.name])

    def _deliver_due(self, lane: _Lane) -> int:
        with database_errors(), self._engine.begin() as connection:
            self._note(connection, lane)
            due = due_deliveries(connection, lane.settings.name, self._now()) if lane.has_lease else []
        lane.outcome = None
        for number, delivery in enumerate(due):
            if lane.stop.is_set() or not self.is_active.is_set() or not lane.has_lease:
                return number
            lane.outcome = _Outcome(delivery, _attempt(lane.receiver, delivery))
            with database_errors(), self._engine.begin() as connection:
                self._note(connection, lane)
            lane.outcome = None
        return len(due)

    def _note(self, connection: sa.Connection, lane: _Lane) -> None:
        """Write what became of the last delivery, and find out whether this recorder may send the next one."""
        outcome = lane.outcome
        if outcome is not None and outcome.error is None:
            note_delivered(connection, outcome.delivery, self._now())
        elif outcome is not None:
            note_failed(connection, outcome.delivery, str(outcome.error), self._now())
        lane.has_lease = self._has_lease(connection)

    def _deliver(self, lane: _Lane) -> None:
        while not lane.stop.is_set():
            is_active = self.is_active.wait(POLL_INTERVAL_S)
            try:
                tried = self._deliver_due(lane) if is_active else 0
            except DatabaseAway:
                tried = 0
            if isinstance(lane.receiver, StateReceiver):
                _show_states(lane.receiver, is_active=is_active and lane.has_lease)
            if not tried:
                lane.stop.wait(POLL_INTERVAL_S)
        if isinstance(lane.receiver, StateReceiver):
            lane.receiver.leave(ends=self.is_active.is_set() and lane.has_lease)


class _Outcome(NamedTuple):
    """What became of a delivery. error: None if it was accepted."""

    delivery: Delivery
    error: str | None


class _Lane:
    """A receiver, and the thread that delivers to it until it is stopped.

    Attributes:
        outcome: of the last delivery, until it is written.
        has_lease: whether this recorder was the active one when the database was last asked.
    """

    def __init__(self, settings: ReceiverSettings, surroundings: Surroundings, now: Callable[[], float]) -> None:
        self.settings = settings
        self.surroundings = surroundings
        self.receiver = open_receiver(settings, surroundings, now)
        self.stop = threading.Event()
        self.outcome: _Outcome | None = None
        self.has_lease = True
        self._thread: threading.Thread | None = None

    def start(self, deliver: Callable[[_Lane], None], before: _Lane | None = None) -> None:
        """Start the thread. before: the lane whose work it continues."""

        def run() -> None:
            if before is not None:
                before.join(MAX_HANG_S)
                self.outcome = before.outcome
            deliver(self)

        self._thread = threading.Thread(target=run, name=f"to-{self.settings.name}", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until the thread has ended."""
        if self._thread is not None:
            self._thread.join(timeout_s)


def _show_states(receiver: StateReceiver, *, is_active: bool) -> None:
    if is_active:
        receiver.refresh()
    else:
        receiver.leave(ends=False)


def _attempt(receiver: Receiver, delivery: Delivery) -> str | None:
    """Send a delivery; return why it was not accepted, in one line, or None."""
    try:
        receiver.send(delivery)
    except NotAccepted as error:
        reason = one_line(str(error))
    except Exception as error:  # noqa: BLE001 -- code of others runs here, and the thread must go on
        at = traceback.extract_tb(error.__traceback__)[-1]
        # without the error's text, which may hold a secret
        reason = f"an unexpected {type(error).__name__} in {at.filename}, line {at.lineno}; please report it"
    else:
        metrics.deliveries.labels("delivered").inc()
        return None
    log.warning("delivery %d of event %s to %s: %s", delivery.id, delivery.event_id, delivery.receiver, reason)
    metrics.deliveries.labels("failed").inc()
    return reason
