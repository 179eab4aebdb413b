"""Watch a pipeline from outside, by a connection that is never cut: ledgers, captured and labelled frames.

A thread looks at Redis 20 times a second. What it finds to be wrong is put into `broken`.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast

import redis

from pipeline.bus.connection import Redis
from pipeline.bus.messages import FILE_PREFIX, BadMessage, FrameResult, decode
from pipeline.bus.shards import Bus, Shard, UnusableRedis
from pipeline.bus.status import Ledger, read_ledgers

INTERVAL_S = 0.05
NEWEST_RESULTS = 100  # looked at each time: about two seconds of a run's results
MAX_BROKEN = 5  # sentences about the same promise
LOST = "lost with Redis"

Capture = tuple[str, int]  # camera and start of its producer


class Observer(contextlib.AbstractContextManager["Observer"]):
    """Watch Redis until the block ends, and then close its client.

    Args:
        client: connected by connections that are never cut.
        shards: how many Redis holds.

    Attributes:
        captured: of each camera and start the highest number of a frame that was seen.
        labelled: when each labelled frame was first seen, on the monotonic clock, by camera, start and seq.
        broken: promises that were found broken, as sentences.
    """

    def __init__(self, client: Redis, shards: int = 1) -> None:
        self.captured: dict[Capture, int] = {}
        self.labelled: dict[tuple[str, int, int], float] = {}
        self.broken: list[str] = []
        self._client = client
        self._bus = Bus(client, shards)
        self._ledgers: dict[str, Ledger] = {}
        self._fates: collections.Counter[str] = collections.Counter()
        self._files_expire = False
        self._failing_over: set[str] = set()  # cameras not seen since their primary died
        self._entries: dict[tuple[str, int], bytes] = {}  # the entry in `results` of each frame and attempt
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="observer", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def memory_loss(self) -> Iterator[None]:
        """Let Redis lose its memory in the block: counts begin anew after it."""
        with self._lock:
            self.look()
            for name in list(self._ledgers):
                self._forget(name)
            yield

    @contextlib.contextmanager
    def failover(self, cameras: Collection[str]) -> Iterator[None]:
        """Let the primary of some cameras die in the block; its replica may lack what was written last.

        So when they are seen next, their counts may be those of an earlier moment, and frames may end again.
        """
        with self._lock:
            self.look()
            yield
            self._failing_over.update(cameras)
            self._entries.clear()

    def expect_expiry(self) -> None:
        """Expect that the counts of files begin anew: Redis' clock was set forward, and keys expire early."""
        self._files_expire = True

    def look(self) -> bool:
        """Look at everything now; return whether all of Redis answered."""
        with self._lock:
            try:
                shards = self._bus.shards
            except (redis.RedisError, UnusableRedis):
                return False
            answered = [self._look_at(shard) for shard in shards]
            return all(answered)

    def ledgers(self) -> dict[str, Ledger]:
        """Return the ledgers as they were last seen."""
        with self._lock:
            return dict(self._ledgers)

    def fates(self) -> dict[str, int]:
        """Return how many frames ended in each way, also those that Redis has forgotten."""
        with self._lock:
            fates = self._fates.copy()
            for ledger in self._ledgers.values():
                fates.update(_fates_of(ledger, "in flight"))
        return {fate: count for fate, count in sorted(fates.items()) if count}

    def newest_file(self) -> str:
        """Return the name of the newest run of `label`; "" when none was seen."""
        with self._lock:
            return next((camera for camera, _ in reversed(self.captured) if is_file(camera)), "")

    def labelled_after(
        self, moment: float, camera: str | None = None, captured: Mapping[Capture, int] | None = None
    ) -> float | None:
        """Return how long after a moment on the monotonic clock the first labelled frame was seen, seconds.

        Args:
            camera: whose frame; None for that of any. A run of `label` that was resumed has another name.
            captured: frames that are too old to count.
        """
        old = captured or {}
        with self._lock:
            times = [
                at - moment
                for (name, start, seq), at in self.labelled.items()
                if at > moment
                and (camera in (None, name) or (is_file(camera or "") and is_file(name)))
                and seq > old.get((name, start), -1)
            ]
        return min(times, default=None)

    def __exit__(self, *_: object) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()
        self._client.close()

    def _watch(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            self.look()

    def _look_at(self, shard: Shard) -> bool:
        try:
            cameras = self._cameras(shard)
            for name, ledger in read_ledgers(self._bus, cameras).items():
                self._check_ledger(name, ledger)
            self._note_results(cast(list[Any], shard.client.xrevrange(shard.key("results"), count=NEWEST_RESULTS)))
            for name in cameras:
                self._note_newest(shard, name)
        except redis.RedisError:
            return False
        return True

    def _cameras(self, shard: Shard) -> list[str]:
        found = {name.decode() for name in cast(list[bytes], shard.client.zrange(shard.key("cameras"), 0, -1))}
        return sorted(found | {name for name in self._ledgers if self._bus.shard_of(name) is shard})

    def _check_ledger(self, name: str, ledger: Ledger) -> None:
        before = self._ledgers.get(name, Ledger())
        if not ledger.balances and (before.balances or before.produced != ledger.produced):
            self._break(f"the ledger of {name} does not balance: {_text(ledger)}")
        if _decreased(before, ledger) and name not in self._failing_over:
            if not (is_file(name) and self._files_expire):
                self._break(f"counts of {name} decreased from {_text(before)} to {_text(ledger)}")
            self._forget(name)
        self._failing_over.discard(name)
        self._ledgers[name] = ledger

    def _note_results(self, rows: list[Any]) -> None:
        now = time.monotonic()
        for entry, fields in rows:
            try:
                result = decode(FrameResult, fields[b"record"])
            except BadMessage as error:
                self._break(f"a result cannot be read: {error}")
                continue
            self._note_captured(result.camera, result.start, result.seq)
            if self._entries.setdefault((result.frame_id, result.attempt), entry) != entry:
                self._break(f"{result.frame_id} ended twice")
            if result.outcome == "labelled":
                self.labelled.setdefault((result.camera, result.start, result.seq), now)

    def _note_newest(self, shard: Shard, name: str) -> None:
        newest = cast(bytes | None, shard.client.hget(shard.key("newest:frames", name), "last"))
        if newest is not None:
            start, seq, _attempt = map(int, newest.split(b":"))
            self._note_captured(name, start, seq)

    def _note_captured(self, camera: str, start: int, seq: int) -> None:
        self.captured[camera, start] = max(seq, self.captured.get((camera, start), -1))

    def _forget(self, name: str) -> None:
        """Add what a ledger counted to the total; Redis has forgotten it."""
        self._fates.update(_fates_of(self._ledgers.pop(name), LOST))
        self._entries.clear()

    def _break(self, sentence: str) -> None:
        if len(self.broken) < MAX_BROKEN and sentence not in self.broken:
            self.broken.append(sentence)


def is_file(camera: str) -> bool:
    """Return whether a camera's name is that of a run of `label`."""
    return camera.startswith(FILE_PREFIX)


def _fates_of(ledger: Ledger, in_flight: str) -> dict[str, int]:
    return {"labelled": ledger.labelled, **ledger.dropped, in_flight: ledger.in_flight}


def _decreased(before: Ledger, after: Ledger) -> bool:
    return (
        after.produced < before.produced
        or after.labelled < before.labelled
        or any(after.dropped.get(reason, 0) < count for reason, count in before.dropped.items())
    )


def _text(ledger: Ledger) -> str:
    parts = [f"{ledger.labelled} labelled", *(f"{n} {reason}" for reason, n in ledger.dropped.items())]
    return f"{ledger.produced} produced = {' + '.join(parts)} + {ledger.in_flight} in flight"
