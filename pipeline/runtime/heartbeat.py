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

from pipeline.bus.keys import PROCESSES, SHARDS, heartbeat_key
from pipeline.bus.messages import Heartbeat, encode
from pipeline.bus.scripts import Script
from pipeline.bus.shards import Bus, UnusableRedis
from pipeline.runtime import metrics
from pipeline.runtime.watchdog import STUCK_S, Watchdog

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
TTL_MS = 5_000
KEEPERS = ("camera-", "detector-", "classifier-")  # processes that keep the number of shards
SHARDS_TTL_MS = 60_000  # how long it is kept after the last of them has ended
PROCESS_RETENTION_S = 60  # how long a dead process stays in the set of processes


def send_heartbeats(
    bus: Bus,
    watchdog: Watchdog,
    process_id: str,
    report: Callable[[float], Heartbeat],
    stop: threading.Event,
) -> None:
    """Send the heartbeat that `report` returns for Redis' time, every second until `stop` is set; then delete it."""
    script, stuck = Script(bus.client, "beat"), False
    while not stop.is_set():
        stuck = _check_loops(watchdog, process_id, was_stuck=stuck)
        if not stuck:
            with contextlib.suppress(redis.RedisError, UnusableRedis):  # which the main loop reports
                keys = [heartbeat_key(process_id), PROCESSES]
                args = [encode(report(bus.clock.now())), TTL_MS, process_id, PROCESS_RETENTION_S]
                if process_id.startswith(KEEPERS):
                    keys, args = [*keys, SHARDS], [*args, len(bus.shards), SHARDS_TTL_MS]
                before = bus.clock.monotonic()
                bus.clock.compare(before, script(keys, args))
        stop.wait(INTERVAL_S)
    with contextlib.suppress(redis.RedisError):
        bus.client.delete(heartbeat_key(process_id))
        bus.client.zrem(PROCESSES, process_id)


def _check_loops(watchdog: Watchdog, process_id: str, *, was_stuck: bool) -> bool:
    """Return whether a loop is stuck; log when that changes."""
    age_s = watchdog.poll()
    metrics.loop_age_s.set(age_s)
    stuck = age_s > STUCK_S
    if stuck and not was_stuck:
        log.error("%s is stuck and sends no heartbeat; it is in %s", process_id, watchdog.slowest_stack())
    elif was_stuck and not stuck:
        log.warning("%s is no longer stuck", process_id)
    return stuck
