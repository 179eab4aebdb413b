"""Run as many workers of a kind as there is work for: how busy they are in, workers started and stopped out.

A worker is started when those that there are were busy nearly all the time for two seconds, up to the cores that may be
used. One is stopped when the others could have done its work for a minute, down to one.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence

import redis

from pipeline.bus.connection import Redis
from pipeline.bus.messages import Heartbeat
from pipeline.bus.status import read_heartbeats
from pipeline.runtime.children import Children
from pipeline.runtime.cores import available_cores

ADJUST_INTERVAL_S = 1.0
GROW_BUSY, GROW_S = 0.75, 2.0
SHRINK_BUSY, SHRINK_S = 0.5, 60.0  # the share that each of the others would be busy


class Scaler:
    """Decide how many workers there are to be. Pure: the clock is an argument."""

    def __init__(self) -> None:
        self._too_few_since: float | None = None
        self._too_many_since: float | None = None

    def wanted(self, now: float, busy: Sequence[float], most: int) -> int:
        """Return how many workers there are to be.

        Args:
            now: monotonic, seconds.
            busy: of each worker that there is, the share of the last second in which it worked, 0 to 1.
            most: at most so many, at least 1.
        """
        count, work = len(busy), sum(busy)
        too_few = count < most and work >= GROW_BUSY * count
        too_many = count > most or (count > 1 and work <= SHRINK_BUSY * (count - 1))
        self._too_few_since = (self._too_few_since or now) if too_few else None
        self._too_many_since = (self._too_many_since or now) if too_many else None
        if self._too_few_since is not None and now - self._too_few_since >= GROW_S:
            self._too_few_since = None
            return count + 1
        if self._too_many_since is not None and now - self._too_many_since >= SHRINK_S:
            self._too_many_since = None
            return count - 1
        return count


class WorkerPool:
    """The workers of one kind, among the child processes of this one. command: their subcommand; one of them runs."""

    def __init__(self, children: Children, command: str) -> None:
        self._children = children
        self._command = command
        self._scaler = Scaler()

    def adjust(self, beats: Sequence[Heartbeat], now: float, most: int) -> None:
        """Start or stop a worker if the heartbeats of all of them say so; those of other machines are ignored."""
        pids, host = self._children.pids(self._command), socket.gethostname()
        busy = {beat.pid: beat.busy for beat in beats if beat.host == host and beat.pid in pids}
        if len(busy) < len(pids):  # one is starting, or has died
            return
        wanted = self._scaler.wanted(now, list(busy.values()), most)
        if wanted > len(pids):
            self._children.start_another(self._command)
        elif wanted < len(pids):
            self._children.stop_newest(self._command)


class PoolSupervisor:
    """Adjust pools once a second, by the heartbeats in Redis; an error of Redis leaves them as they are."""

    def __init__(self, pools: Sequence[WorkerPool], client: Redis) -> None:
        self._pools = pools
        self._client = client
        self._next_at = 0.0

    def adjust(self) -> None:
        """Adjust the pools if it is time; call it repeatedly."""
        now = time.monotonic()
        if not self._pools or now < self._next_at:
            return
        self._next_at = now + ADJUST_INTERVAL_S
        with contextlib.suppress(redis.RedisError):
            beats = read_heartbeats(self._client)
            for pool in self._pools:
                pool.adjust(beats, now, available_cores())
