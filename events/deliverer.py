"""Send what is in the outbox: one thread for each webhook, so that one that hangs delays no other.

Threads work while this recorder is the active one. A delivery that was sent, but not noted when the process died, is
sent again by the next one. A database that is away is waited for; the recorder's loop reports it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

import sqlalchemy as sa

from events.database import DatabaseAway, database_errors
from events.outbox import Delivery, due_deliveries, note_delivered, note_failed
from events.rule_types import Webhook
from events.webhooks import NotAccepted, send
from pipeline.runtime import metrics

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.5


class Deliverer:
    """The threads that deliver. now: Unix seconds.

    Attributes:
        is_active: set while this recorder is the active one.
    """

    def __init__(self, engine: sa.Engine, webhooks: Sequence[Webhook], now: Callable[[], float] = time.time) -> None:
        self.is_active = threading.Event()
        self._engine = engine
        self._webhooks = webhooks
        self._now = now
        self._threads: dict[str, _Thread] = {}

    def start(self) -> None:
        """Start the threads."""
        self.use(self._webhooks)

    def use(self, webhooks: Sequence[Webhook]) -> None:
        """Deliver to these webhooks from now on, to new or changed ones after what is being sent to those before."""
        wanted = {webhook.name: webhook for webhook in webhooks}
        for name, thread in self._threads.items():
            if wanted.get(name) != thread.webhook:
                thread.stop.set()
        for name, webhook in wanted.items():
            before = self._threads.get(name)
            if before is None or before.stop.is_set():
                self._threads[name] = _Thread(webhook, self._deliver, before)

    def stop(self) -> None:
        """End the threads after what they are sending."""
        self.use([])

    def deliver_due(self, webhook: Webhook, stop: threading.Event | None = None) -> int:
        """Send what is due to a webhook, once each; return how many deliveries were tried.

        stop: ends it before the next delivery.

        Raises:
            DatabaseAway: the database does not answer.
        """
        with database_errors(), self._engine.begin() as connection:
            due = due_deliveries(connection, webhook.name, self._now())
        for number, delivery in enumerate(due):
            if (stop and stop.is_set()) or not self.is_active.is_set():
                return number
            self._deliver_one(webhook, delivery)
        return len(due)

    def _deliver(self, webhook: Webhook, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                tried = self.deliver_due(webhook, stop) if self.is_active.wait(POLL_INTERVAL_S) else 0
            except DatabaseAway:
                tried = 0
            if not tried:
                stop.wait(POLL_INTERVAL_S)

    def _deliver_one(self, webhook: Webhook, delivery: Delivery) -> None:
        try:
            send(webhook, delivery, self._now())
        except NotAccepted as error:
            log.warning("delivery %d of event %s to %s: %s", delivery.id, delivery.event_id, webhook.name, error)
            metrics.deliveries.labels("failed").inc()
            with database_errors(), self._engine.begin() as connection:
                note_failed(connection, delivery, str(error), self._now())
            return
        metrics.deliveries.labels("delivered").inc()
        with database_errors(), self._engine.begin() as connection:
            note_delivered(connection, delivery, self._now())


class _Thread:
    """A thread that delivers to one webhook until it is stopped. before: the one whose work it continues."""

    def __init__(
        self, webhook: Webhook, deliver: Callable[[Webhook, threading.Event], None], before: _Thread | None
    ) -> None:
        self.webhook = webhook
        self.stop = threading.Event()
        self._deliver = deliver
        self._before = before
        self._thread = threading.Thread(target=self._run, name=f"to-{webhook.name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        if self._before is not None:
            self._before._thread.join()
            self._before = None
        self._deliver(self.webhook, self.stop)
