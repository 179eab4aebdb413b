"""What is done to recorders, Redis and the database while a scene is fed, at moments that a seed draws."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FIRST, LAST = 0.08, 0.92  # shares of the scene between which faults happen
Kind = Literal["kill", "redis", "database"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """at: seconds of the scene. recorder: the number of the one that is killed."""

    at: float
    kind: Kind
    recorder: int = 0


def draw_faults(rng: random.Random, seconds: float, *, recorders: int, kills: int) -> list[Fault]:
    """Return when each recorder is killed so many times, Redis restarts and the database goes away, in order."""
    kinds: list[tuple[Kind, int]] = [("kill", number) for number in range(recorders) for _ in range(kills)]
    kinds += [("redis", 0), ("database", 0)]
    faults = [Fault(at=rng.uniform(FIRST, LAST) * seconds, kind=kind, recorder=recorder) for kind, recorder in kinds]
    return sorted(faults, key=lambda fault: fault.at)


@contextlib.contextmanager
def database_outages(database: Path) -> Iterator[DatabaseOutages]:
    """Yield what locks a SQLite file; it is free when the block ends."""
    outages = DatabaseOutages(database)
    yield outages
    outages.end()


class DatabaseOutages:
    """A connection that holds a SQLite file for itself for some time."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, seconds: float) -> None:
        """Lock the file for so long; return when it is locked."""
        locked = threading.Event()
        self._thread = threading.Thread(target=self._lock, args=(seconds, locked), name="outage")
        self._thread.start()
        locked.wait()

    def end(self) -> None:
        """Free the file."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _lock(self, seconds: float, locked: threading.Event) -> None:
        with contextlib.closing(sqlite3.connect(self._database, isolation_level=None, timeout=60)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            locked.set()
            self._ended.wait(seconds)
            connection.execute("COMMIT")
