"""Send what is in the outbox: one thread for each receiver, so that one that hangs delays no other.

Threads work while this recorder is the active one; a receiver that shows states is shown them by its thread, too. A
delivery that was sent, but not noted when the process died, is sent again by the next one. A database that is away is
waited for; the recorder's loop reports it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

import sqlalchemy as sa

from events.database import DatabaseAway, database_errors
from events.open_receivers import Surroundings, open_receiver
from events.outbox import Delivery, due_deliveries, note_delivered, note_failed
from events.receiver_types import ReceiverSettings
from events.receivers import NotAccepted, Receiver, StateReceiver
from pipeline.runtime import metrics

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.5
LEAVE_S = 2.0  # in which receivers are told that this recorder ends


class Deliverer:
    """The threads that deliver. surroundings: what receivers show besides events. now: Unix seconds.

    Attributes:
        is_active: set while this recorder is the active one.
    """

    def __init__(
        self,
        engine: sa.Engine,
        receivers: Sequence[ReceiverSettings] = (),
        now: Callable[[], float] = time.time,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.is_active = threading.Event()
        self._engine = engine
        self._now = now
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
            due = due_deliveries(connection, lane.settings.name, self._now())
        for number, delivery in enumerate(due):
            if lane.stop.is_set() or not self.is_active.is_set():
                return number
            self._deliver_one(lane.receiver, delivery)
        return len(due)

    def _deliver(self, lane: _Lane) -> None:
        while not lane.stop.is_set():
            is_active = self.is_active.wait(POLL_INTERVAL_S)
            if isinstance(lane.receiver, StateReceiver):
                _show_states(lane.receiver, is_active=is_active)
            try:
                tried = self._deliver_due(lane) if is_active else 0
            except DatabaseAway:
                tried = 0
            if not tried:
                lane.stop.wait(POLL_INTERVAL_S)
        if isinstance(lane.receiver, StateReceiver):
            lane.receiver.leave(ends=self.is_active.is_set())

    def _deliver_one(self, receiver: Receiver, delivery: Delivery) -> None:
        try:
            receiver.send(delivery)
        except NotAccepted as error:
            log.warning("delivery %d of event %s to %s: %s", delivery.id, delivery.event_id, delivery.receiver, error)
            metrics.deliveries.labels("failed").inc()
            with database_errors(), self._engine.begin() as connection:
                note_failed(connection, delivery, str(error), self._now())
            return
        metrics.deliveries.labels("delivered").inc()
        with database_errors(), self._engine.begin() as connection:
            note_delivered(connection, delivery, self._now())


class _Lane:
    """A receiver, and the thread that delivers to it until it is stopped."""

    def __init__(self, settings: ReceiverSettings, surroundings: Surroundings, now: Callable[[], float]) -> None:
        self.settings = settings
        self.surroundings = surroundings
        self.receiver = open_receiver(settings, surroundings, now)
        self.stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, deliver: Callable[[_Lane], None], before: _Lane | None = None) -> None:
        """Start the thread. before: the lane whose work it continues."""

        def run() -> None:
            if before is not None:
                before.join()
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
