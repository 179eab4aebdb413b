"""Remove what is not kept once a minute, in a thread, so that the recorder does not wait for it."""

from __future__ import annotations

import logging
import threading
import time

import redis
import sqlalchemy as sa

from events.database import DatabaseAway
from events.retention import tidy
from pipeline.runtime.settings import Settings
from pipeline.runtime.worker_context import WorkerContext

log = logging.getLogger(__name__)

INTERVAL_S = 60.0


class Tidier:
    """The thread. is_active: set while this recorder is the active one."""

    def __init__(
        self, context: WorkerContext, settings: Settings, engine: sa.Engine, is_active: threading.Event
    ) -> None:
        self._context = context
        self._settings = settings
        self._engine = engine
        self._is_active = is_active
        self._stop = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="tidier", daemon=True).start()

    def stop(self) -> None:
        """End the thread after what it is doing."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._is_active.wait(1.0):
                self._tidy()
                self._stop.wait(INTERVAL_S)

    def _tidy(self) -> None:
        """Remove what is not kept, if Redis and the database answer; the recorder's loop reports it if they do not."""
        days, mb = self._settings.keep_days, self._settings.keep_mb
        try:
            at = self._context.clock.now()
            removed = tidy(self._engine, keep_days=days, keep_mb=mb, at=at, now=time.time(), pause=self._stop.wait)
        except (DatabaseAway, redis.RedisError) as error:
            log.info("%s could not remove old events, and tries again: %s", self._context.id, error)
            return
        if removed:
            log.info("%s removed %d events that are old or too many", self._context.id, removed)
