"""Send a process' heartbeat to Redis once a second, except while one of its loops is stuck.

A process without a heartbeat does not count as live: `maskwatch health` fails. Redis errors are ignored here: the main
loop reports them, and the next heartbeat is a retry.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

import redis

from pipeline.bus.clock import Clock
from pipeline.bus.connection import Redis
from pipeline.bus.keys import heartbeat_key
from pipeline.bus.messages import PROCESSES, Heartbeat, encode
from pipeline.bus.scripts import Script
from pipeline.runtime import metrics
from pipeline.runtime.watchdog import STUCK_S, Watchdog

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
TTL_MS = 5_000
PROCESS_RETENTION_S = 60  # how long a dead process stays in the set of processes


class HeartbeatSender:
    """Send heartbeats.

    Args:
        report: returns the heartbeat to send, given the time on Redis' clock.
    """

    def __init__(
        self, client: Redis, clock: Clock, watchdog: Watchdog, process_id: str, report: Callable[[float], Heartbeat]
    ) -> None:
        self._client = client
        self._clock = clock
        self._watchdog = watchdog
        self._id = process_id
        self._report = report
        self._stuck = False
        self._script = Script(client, "beat")

    def send_until(self, stop: threading.Event) -> None:
        """Send a heartbeat every second until `stop` is set, then delete it."""
        while not stop.is_set():
            if not self._is_stuck():
                with contextlib.suppress(redis.RedisError):
                    self._send(self._clock.now())
            stop.wait(INTERVAL_S)
        with contextlib.suppress(redis.RedisError):
            self._client.delete(heartbeat_key(self._id))
            self._client.zrem(PROCESSES, self._id)

    def _send(self, now: float) -> None:
        beat = encode(self._report(now))
        self._script(
            keys=[heartbeat_key(self._id), PROCESSES], args=[beat, TTL_MS, self._id, now, now - PROCESS_RETENTION_S]
        )

    def _is_stuck(self) -> bool:
        """Poll the watchdog; log when a loop gets stuck and when it recovers."""
        age_s = self._watchdog.poll()
        metrics.loop_age_s.set(age_s)
        if (age_s > STUCK_S) != self._stuck:
            self._stuck = age_s > STUCK_S
            if self._stuck:
                log.error("%s is stuck and sends no heartbeat; it is in %s", self._id, self._watchdog.slowest_stack())
            else:
                log.warning("%s is no longer stuck", self._id)
        return self._stuck
