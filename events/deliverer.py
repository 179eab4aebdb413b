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
        self._stop = threading.Event()

    def start(self) -> None:
        """Start the threads."""
        for webhook in self._webhooks:
            threading.Thread(target=self._deliver, args=(webhook,), name=f"to-{webhook.name}", daemon=True).start()

    def stop(self) -> None:
        """End the threads after what they are sending."""
        self._stop.set()

    def deliver_due(self, webhook: Webhook) -> int:
        """Send what is due to a webhook, once each; return how many deliveries were tried.

        Raises:
            DatabaseAway: the database does not answer.
        """
        with database_errors(), self._engine.begin() as connection:
            due = due_deliveries(connection, webhook.name, self._now())
        for number, delivery in enumerate(due):
            if self._stop.is_set() or not self.is_active.is_set():
                return number
            self._deliver_one(webhook, delivery)
        return len(due)

    def _deliver(self, webhook: Webhook) -> None:
        while not self._stop.is_set():
            try:
                tried = self.deliver_due(webhook) if self.is_active.wait(POLL_INTERVAL_S) else 0
            except DatabaseAway:
                tried = 0
            if not tried:
                self._stop.wait(POLL_INTERVAL_S)

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
