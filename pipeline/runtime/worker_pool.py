"""Run as many workers of a kind as there is work for: how busy they are in, workers started and stopped out.

A worker is started when those that there are were busy nearly all the time for two seconds, up to the cores that may be
used. One is stopped when the others could have done its work for five minutes, down to one.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import redis

from pipeline.bus.connection import connect
from pipeline.bus.messages import Heartbeat
from pipeline.bus.status import read_heartbeats
from pipeline.runtime.children import Children
from pipeline.runtime.cores import available_cores

log = logging.getLogger(__name__)

COMMANDS = {"detector": "detect", "classifier": "classify"}  # by role
READ_INTERVAL_S = 1.0  # between two looks at the heartbeats
MAX_GAP_S = 3.0  # after a longer time without a look, what was seen before does not count
GROW_BUSY, GROW_S = 0.75, 2.0
SHRINK_BUSY, SHRINK_S = 0.5, 300.0  # the share that each of the others would be busy
RETRY_S = 60.0  # after a worker could not start, none is started for this long


class Scaler:
    """Decide how many workers there are to be. Pure: the clock is an argument."""

    def __init__(self) -> None:
        self._too_few_since: float | None = None
        self._too_many_since: float | None = None
        self._seen_at = float("-inf")

    def wanted(self, now: float, busy: Sequence[float], max_workers: int) -> int:
        """Return how many workers there are to be.

        Args:
            now: monotonic, seconds.
            busy: of each worker that there is, the share of the last second in which it worked, 0 to 1.
            max_workers: how many there may be, at least 1.
        """
        count, work = len(busy), sum(busy)
        if now - self._seen_at > MAX_GAP_S:
            self._too_few_since = self._too_many_since = None
        self._seen_at = now
        too_few = count < max_workers and work >= GROW_BUSY * count
        too_many = count > max_workers or (count > 1 and work <= SHRINK_BUSY * (count - 1))
        self._too_few_since = _since(self._too_few_since, now) if too_few else None
        self._too_many_since = _since(self._too_many_since, now) if too_many else None
        if self._too_few_since is not None and now - self._too_few_since >= GROW_S:
            self._too_few_since = None
            return count + 1
        if self._too_many_since is not None and now - self._too_many_since >= SHRINK_S:
            self._too_many_since = None
            return count - 1
        return count


class WorkerPool:
    """The workers of one kind, among the child processes of this one. role: of COMMANDS; one of them runs."""

    def __init__(self, children: Children, role: str) -> None:
        self._children = children
        self._role = role
        self._command = COMMANDS[role]
        self._scaler = Scaler()
        self._count = 1
        self._grow_at = 0.0

    def adjust(self, beats: Sequence[Heartbeat], now: float, max_workers: int) -> None:
        """Start or stop a worker if the heartbeats of all of them say so; others are ignored. now: monotonic."""
        pids, host = self._children.pids(self._command), socket.gethostname()
        if len(pids) < self._count:  # one could not start
            self._grow_at = now + RETRY_S
        self._count = len(pids)
        busy = {beat.pid: beat.busy for beat in beats if (beat.role, beat.host) == (self._role, host)}
        if not pids <= busy.keys():  # one is starting, or has died
            return
        wanted = self._scaler.wanted(now, [busy[pid] for pid in pids], max_workers)
        if wanted > len(pids) and now >= self._grow_at:
            try:
                self._children.start_another(self._command)
            except OSError as error:
                log.warning("no further %s can be started: %s", self._role, error)
                self._grow_at = now + RETRY_S
        elif wanted < len(pids):
            self._children.stop_newest(self._command)
        self._count = len(self._children.pids(self._command))


@contextlib.contextmanager
def reading_heartbeats(redis_url: str) -> Iterator[queue.SimpleQueue[list[Heartbeat]]]:
    """Read all heartbeats once a second while the block runs, in a thread, since Redis may hang; yield their queue."""
    found: queue.SimpleQueue[list[Heartbeat]] = queue.SimpleQueue()
    ended = threading.Event()

    def read() -> None:
        with connect(redis_url) as client:
            while not ended.wait(READ_INTERVAL_S):
                with contextlib.suppress(redis.RedisError):
                    found.put(read_heartbeats(client))

    threading.Thread(target=read, name="heartbeats", daemon=True).start()
    try:
        yield found
    finally:
        ended.set()


def adjust_pools(pools: Sequence[WorkerPool], found: queue.SimpleQueue[list[Heartbeat]]) -> None:
    """Adjust the pools if heartbeats have been read; call it repeatedly."""
    with contextlib.suppress(queue.Empty):
        beats = found.get_nowait()
        for pool in pools:
            pool.adjust(beats, time.monotonic(), available_cores())


def _since(earlier: float | None, now: float) -> float:
    return now if earlier is None else earlier
