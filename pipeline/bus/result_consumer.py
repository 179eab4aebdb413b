"""Consume the streams `results` without a group: every consumer sees each result written since its position, once."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis

from pipeline.bus import messages
from pipeline.bus.cluster import Cluster
from pipeline.bus.messages import BadMessage, FrameResult
from pipeline.bus.shards import Shard

MAX_RESULTS = 256  # of one call and shard
READ_BLOCK_MS = 250  # a process that is asked to stop notices within this time
MAX_BATCHES = 16  # answers of Redis that wait for the reader; a thread with another one waits
ERROR_PAUSE_S = 0.2  # between tries of a thread while Redis fails
FOLLOW_INTERVAL_S = 0.01  # between two reads of a process that follows every camera: waking it costs more than a result
CHECK_INTERVAL_S = 1.0  # without results for this long, check that the stream still goes on from where we are

log = logging.getLogger(__name__)

Fields = dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Some results, and where to go on after them. positions: the ID of the last entry by stream."""

    results: list[FrameResult]
    positions: Mapping[str, bytes]


class ResultConsumer:
    """Read the results of some shards; in a cluster each of several by a thread of its own.

    Args:
        interval_s: from an answer of Redis with results to the next question, so that those of many cameras come
            together. An answer with as many as one may hold is followed by the next question at once.
        positions: the ID of the last entry that was read, by stream; a stream without one is read from now on.

    Attributes:
        positions: the same for what `read()` has returned so far.
    """

    def __init__(
        self, shards: Sequence[Shard], *, interval_s: float = 0.0, positions: Mapping[str, bytes] | None = None
    ) -> None:
        self.shards = shards
        self._follower: _Follower | None = None
        self._threads: list[_FollowerThread] = []
        self._found: queue.Queue[_Batch | redis.RedisError] = queue.Queue(MAX_BATCHES)
        begun = {} if positions is None else positions
        if len(shards) > 1 and isinstance(shards[0].client, Cluster):
            self._threads = [_FollowerThread(shard, self._found, interval_s, begun) for shard in shards]
            self.positions = {name: id_ for one in self._threads for name, id_ in one.positions.items()}
        else:
            self._follower = _Follower(shards, interval_s, begun)
            self.positions = dict(self._follower.positions)

    def set_interval(self, interval_s: float) -> None:
        """Change how long to wait after an answer with results, also for what waits now."""
        for one in [self._follower] if self._follower else [thread.follower for thread in self._threads]:
            one.set_interval(interval_s)

    def read(self, block_ms: int = READ_BLOCK_MS) -> list[FrameResult]:
        """Return the results since the last call; wait at most `block_ms` for the first.

        Raises:
            redis.RedisError: Redis failed; in a cluster each of the nodes that hold results.
        """
        if self._follower:
            return self._taken(self._follower.read(block_ms))
        results: list[FrameResult] = []
        ends = time.monotonic() + block_ms / 1000
        with contextlib.suppress(queue.Empty):
            while True:
                found = self._found.get(timeout=0.0 if results else max(0.0, ends - time.monotonic()))
                if not isinstance(found, redis.RedisError):
                    results += self._taken(found)
                elif not results and all(thread.has_failed for thread in self._threads):
                    raise found
        return results

    def close(self) -> None:
        """End the threads."""
        for thread in self._threads:
            thread.ended.set()

    def _taken(self, batch: _Batch) -> list[FrameResult]:
        self.positions.update(batch.positions)
        return batch.results


class _Follower:
    """Follow the results of shards that one call can read."""

    def __init__(self, shards: Sequence[Shard], interval_s: float, positions: Mapping[str, bytes]) -> None:
        self._client = shards[0].client
        self._interval_s = interval_s
        self._has_changed = threading.Event()  # the interval
        self._answered_at = float("-inf")  # with all results that there were
        streams = [shard.key("results") for shard in shards]
        self.positions = {name: positions.get(name) or self._newest_id(name) for name in streams}
        self._checked_at = time.monotonic()

    def set_interval(self, interval_s: float) -> None:
        if interval_s != self._interval_s:
            self._interval_s = interval_s
            self._has_changed.set()

    def read(self, block_ms: int) -> _Batch:
        self._pause()
        rows = entries_by_stream(self._client.xread(cast(Any, self.positions), count=MAX_RESULTS, block=block_ms))
        if not rows:
            self._check_ids()
        elif max(map(len, rows.values())) < MAX_RESULTS:
            self._answered_at = time.monotonic()
        results = []
        for stream, entries in rows.items():
            for id_, fields in entries:
                self.positions[stream] = id_
                try:
                    results.append(messages.decode(FrameResult, fields.get(b"record", b"")))
                except BadMessage as error:
                    log.warning("skipped invalid message %s on %s: %s", id_.decode(), stream, error)
        return _Batch(results, dict(self.positions))

    def _pause(self) -> None:
        """Wait until the interval since the last answer has passed, although it may change meanwhile."""
        while (left_s := self._answered_at + self._interval_s - time.monotonic()) > 0:
            self._has_changed.wait(left_s)
            self._has_changed.clear()

    def _check_ids(self) -> None:
        """Begin again where a stream has lower IDs: Redis lost its memory, and its clock was set back."""
        if time.monotonic() - self._checked_at < CHECK_INTERVAL_S:
            return
        self._checked_at = time.monotonic()
        for stream, last_id in self.positions.items():
            if _id_parts(self._newest_id(stream)) < _id_parts(last_id):
                self.positions[stream] = b"0-0"

    def _newest_id(self, stream: str) -> bytes:
        newest = cast(list[Any], self._client.xrevrange(stream, count=1))
        return cast(bytes, newest[0][0]) if newest else b"0-0"


class _FollowerThread(threading.Thread):
    """Follow the results of one shard; put them, and the errors of Redis, into a queue."""

    def __init__(
        self,
        shard: Shard,
        found: queue.Queue[_Batch | redis.RedisError],
        interval_s: float,
        positions: Mapping[str, bytes],
    ) -> None:
        super().__init__(name=f"results-{shard.tag}", daemon=True)
        self.ended = threading.Event()
        self.has_failed = False  # the last time that it asked
        self.follower = _Follower([shard], interval_s, positions)
        self.positions = dict(self.follower.positions)  # at the start
        self._results = found
        self.start()

    def run(self) -> None:
        """Follow until `ended`; Thread.start() calls it."""
        while not self.ended.is_set():
            try:
                found: _Batch | redis.RedisError = self.follower.read(READ_BLOCK_MS)
            except redis.RedisError as error:
                found = error
            self.has_failed = isinstance(found, redis.RedisError)
            if isinstance(found, redis.RedisError):
                self.ended.wait(ERROR_PAUSE_S)
            if isinstance(found, redis.RedisError) or found.results:
                self._put(found)

    def _put(self, found: _Batch | redis.RedisError) -> None:
        while not self.ended.is_set():
            with contextlib.suppress(queue.Full):
                self._results.put(found, timeout=READ_BLOCK_MS / 1000)
                return


def entries_by_stream(answer: Any) -> dict[str, list[tuple[bytes, Fields]]]:
    """Return the entries in an answer of XREAD or XREADGROUP by stream, in RESP2 or RESP3."""
    if not answer:
        return {}
    rows = answer if isinstance(answer, list) else [(stream, entries[0]) for stream, entries in answer.items()]
    return {stream.decode(): list(entries) for stream, entries in rows}


def _id_parts(id_: bytes) -> tuple[int, ...]:
    return tuple(int(part) for part in id_.split(b"-"))
