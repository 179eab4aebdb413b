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
        receivers: Sequence[ReceiverSettings],
        now: Callable[[], float] = time.time,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.is_active = threading.Event()
        self._engine = engine
        self._now = now
        around = surroundings or Surroundings()
        self._settings = list(receivers)
        self._receivers = {one.name: open_receiver(one, around, now) for one in receivers}
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()

    def start(self) -> None:
        """Start the threads."""
        for one in self._settings:
            thread = threading.Thread(target=self._deliver, args=(one,), name=f"to-{one.name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End the threads after what they are sending; wait a moment for those that say that nobody is active."""
        self._stop.set()
        ends = time.monotonic() + LEAVE_S
        for settings, thread in zip(self._settings, self._threads, strict=False):
            if isinstance(self._receivers[settings.name], StateReceiver):
                thread.join(max(ends - time.monotonic(), 0.0))

    def deliver_due(self, settings: ReceiverSettings) -> int:
        """Send what is due to a receiver, once each; return how many deliveries were tried.

        Raises:
            DatabaseAway: the database does not answer.
        """
        with database_errors(), self._engine.begin() as connection:
            due = due_deliveries(connection, settings.name, self._now())
        for number, delivery in enumerate(due):
            if self._stop.is_set() or not self.is_active.is_set():
                return number
            self._deliver_one(self._receivers[settings.name], delivery)
        return len(due)

    def _deliver(self, settings: ReceiverSettings) -> None:
        receiver = self._receivers[settings.name]
        while not self._stop.is_set():
            is_active = self.is_active.wait(POLL_INTERVAL_S)
            if isinstance(receiver, StateReceiver):
                _show_states(receiver, is_active=is_active)
            try:
                tried = self.deliver_due(settings) if is_active else 0
            except DatabaseAway:
                tried = 0
            if not tried:
                self._stop.wait(POLL_INTERVAL_S)
        if isinstance(receiver, StateReceiver):
            receiver.leave(ends=self.is_active.is_set())

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


def _show_states(receiver: StateReceiver, *, is_active: bool) -> None:
    if is_active:
        receiver.refresh()
    else:
        receiver.leave(ends=False)
