"""`maskwatch record` several times on one Redis and database, to be killed and started again."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import redis

from pipeline.bus.connection import Redis
from pipeline.bus.status import read_heartbeats

POLL_INTERVAL_S = 0.02
ACTIVE = "active"


class TookTooLong(Exception):
    """Something that was waited for did not happen; says what."""


class Recorders(contextlib.AbstractContextManager["Recorders"]):
    """Recorders that are killed when the block ends.

    Args:
        options: of the command, where Redis, the database and the rules are.
        log: what they print is added to it.
    """

    def __init__(self, count: int, options: list[str], log: Path) -> None:
        self._command = [sys.executable, "-m", "maskwatch", "record", *options]
        self._log = log
        self._processes = [self._start() for _ in range(count)]

    def kill(self, number: int) -> None:
        """Kill one with SIGKILL, and start another in its place."""
        self._processes[number].kill()
        self._processes[number].wait()
        self._processes[number] = self._start()

    def is_active(self, client: Redis) -> bool:
        """Return whether one of them is active; not one that is dead, whose heartbeat may outlive it."""
        pids = {one.pid for one in self._processes}
        with contextlib.suppress(redis.RedisError):
            return any(beat.state == ACTIVE and beat.pid in pids for beat in read_heartbeats(client))
        return False

    def __exit__(self, *_: object) -> None:
        """Kill all."""
        for one in self._processes:
            one.kill()
            one.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)


def wait_for(condition: Callable[[], bool], within_s: float, what: str) -> None:
    """Wait until a condition holds.

    Raises:
        TookTooLong: it did not in time.
    """
    ends = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > ends:
            raise TookTooLong(f"not within {within_s:g} s: {what}")
        time.sleep(POLL_INTERVAL_S)
