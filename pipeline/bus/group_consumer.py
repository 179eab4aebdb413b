"""Read the streams of a stage as one consumer of their groups: raw entries out, tickets with the frame they stand for.

Which shards are read depends on the live workers of this role (homes.py). Entries of workers that died are reclaimed.
Groups are created when Redis does not know them. In a cluster, shards whose node has failed are left out while others
answer. Other Redis errors are raised to the caller.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, cast

import redis
from redis.exceptions import NoScriptError

from pipeline.bus.cluster import STALE
from pipeline.bus.dedicated_connection import Command, DedicatedConnection
from pipeline.bus.homes import home_shards
from pipeline.bus.keys import GROUP, PROCESSES
from pipeline.bus.scripts import Script
from pipeline.bus.settling import StreamEntry
from pipeline.bus.shards import Bus, Shard, Stage

RECLAIM_IDLE_MS = 2_000  # an entry that its worker has not renewed for this long is reclaimed by another
RECLAIM_INTERVAL_S = 0.5
IDLE_CONSUMER_MS = 60_000  # a consumer that was silent for this long and holds nothing is deleted
FILES_EVERY = 10  # every tenth time, complete frames are taken before live ones
IDLE_S = 0.002  # a worker that has waited for longer than this is idle
HOMES_INTERVAL_S = 1.0
AWAY_S = 1.0  # a shard whose node has failed is left out for this long, while others answer
HEARTBEAT_S = 5.0  # a worker whose last heartbeat is older is not live


class RawEntry(NamedTuple):
    """An entry as it is in Redis. data: pixels or crops, if they came with it.

    known: the camera's known faces, b"" if there are none; None if they did not come with it.
    deaths: how many processes died while they worked on it alone; None unless it was reclaimed.
    """

    at: StreamEntry
    fields: dict[bytes, bytes]
    data: bytes | None = None
    deliveries: int = 1
    deaths: int | None = None
    known: bytes | None = None


@dataclass(slots=True)
class _ShardState:
    """What this process remembers of a shard.

    away_until: its node has failed, and is asked again then. last_ticket: the ID of the last ticket that was delivered
    to it. reclaim_from: where the search for silent workers goes on.
    """

    away_until: float = 0.0
    last_ticket: bytes = b"0-0"
    reclaim_at: float = 0.0
    reclaim_from: list[Any] = field(default_factory=lambda: [1, "0-0"])


class GroupConsumer:
    """Read a stage as one consumer. consumer: this process' ID, which begins with its role."""

    def __init__(self, bus: Bus, connection: DedicatedConnection, stage: Stage, consumer: str) -> None:
        self._bus = bus
        self._client = bus.client
        self._connection = connection
        self._stage: Stage = stage
        self._consumer = consumer
        self._states: dict[int, _ShardState] = {}
        self._homes: list[Shard] = []
        self._homes_at = 0.0
        self._takes = itertools.count(1)
        self._is_idle = False  # the last read had to wait: another try to take at once would mostly be in vain
        self._remove_idle_at = time.monotonic() + IDLE_CONSUMER_MS / 1000
        self._take_script = Script(bus.client, "take")
        self._reclaim_script = Script(bus.client, "reclaim")
        self._groups_script = Script(bus.client, "create_groups")
        self._leave_group_script = Script(bus.client, "leave_group")

    def read(self, count: int, block_ms: int, *, run: int = 1, reclaim: bool = True) -> list[RawEntry]:
        """Return up to `count` entries, or none after `block_ms`. A reclaimed one comes alone, if `reclaim` is set.

        Live frames come first, and every tenth time those of files. A process that had to wait may get one of each.

        run: up to so many frames of files come together, if others wait besides.
        """
        if reclaim and (entries := self._reclaim()):
            return entries
        return ([] if self._is_idle else self._take(count, run)) or self._wait(count, block_ms)

    def renew(self, entries: Sequence[StreamEntry]) -> None:
        """Reset the idle time of entries, so that no other process reclaims them."""
        by_stream: dict[str, list[Any]] = {}
        for at in entries:
            by_stream.setdefault(at.shard.key(at.stream), []).append(at.id)
        for stream, ids in by_stream.items():
            self._connection.execute_command("XCLAIM", stream, GROUP, self._consumer, 0, *ids, "JUSTID")

    def leave_group(self) -> None:
        """Leave the groups in which this process holds nothing; entries that it holds are reclaimed by others."""
        for shard in (self._bus.shards[number] for number in self._states):
            for stream in shard.stage_keys(self._stage)[:2]:
                with contextlib.suppress(redis.ResponseError):  # NOGROUP: there is no group to leave
                    self._retire(stream, self._consumer)

    def remove_idle_consumers(self) -> None:
        """Delete consumers that are silent and hold nothing; a live one is created again by its next read."""
        self._remove_idle_at = time.monotonic() + IDLE_CONSUMER_MS / 1000
        for shard in self._reachable(self._home_shards()):
            for stream in shard.stage_keys(self._stage)[:2]:
                for consumer in cast(list[Any], self._client.xinfo_consumers(stream, GROUP)):
                    if consumer["idle"] > IDLE_CONSUMER_MS and consumer["pending"] == 0:
                        self._retire(stream, consumer["name"])

    def _retire(self, stream: str, consumer: str | bytes) -> None:
        self._leave_group_script(keys=[stream], args=[GROUP, consumer])

    def _take(self, count: int, run: int) -> list[RawEntry]:
        """Take what waits in the home shards or, when nothing does, in one of the others."""
        take_number = next(self._takes)
        first = "files" if take_number % FILES_EVERY == 0 else ""
        homes = self._reachable(self._home_shards())
        start = take_number % len(homes)
        others = self._reachable([shard for shard in self._bus.shards if shard not in self._homes])
        for shard in [*homes[start:], *homes[:start], *random.sample(others, min(1, len(others)))]:
            if entries := self._take_from(shard, [count, first, run]):
                return entries
        return []

    def _take_from(self, shard: Shard, args: Sequence[Any]) -> list[RawEntry]:
        before = shard.clock.monotonic()
        command = [GROUP, self._consumer, *args]
        call = partial(self._take_script, shard.stage_keys(self._stage), command, self._connection)
        return self._taken(shard, before, self._in_groups(shard, call))

    def _taken(self, shard: Shard, before: float, answer: Any) -> list[RawEntry]:
        if not answer:
            return []
        seconds, micros, rows = answer
        shard.clock.compare(before, (seconds, micros))
        entries = [
            RawEntry(_at(shard, stream, id_), _paired(flat), data, known=known or b"")
            for stream, id_, flat, data, known in rows
        ]
        self._note_tickets(shard, [entry.at.id for entry in entries if entry.at.stream == self._stage])
        return entries

    def _wait(self, count: int, block_ms: int) -> list[RawEntry]:
        """Wait for a new entry in one home shard, and take its frame, in one round trip."""
        homes = self._reachable(self._home_shards())
        shard = homes[next(self._takes) % len(homes)]
        keys, last_ticket = shard.stage_keys(self._stage), self._state(shard).last_ticket
        if len(homes) > 1:
            block_ms = max(1, block_ms // (4 * len(homes)))
        wait: Command = ("XREADGROUP", "GROUP", GROUP, self._consumer, "COUNT", 1, "BLOCK", block_ms)
        wait += (b"STREAMS", *keys[:2], ">", ">")
        take_args = [GROUP, self._consumer, count, "", 1, b"(" + last_ticket, "+"]

        def wait_and_take() -> tuple[Any, Any]:
            found, taken = self._connection.execute_commands(wait, self._take_script.command(keys, take_args))
            if isinstance(taken, NoScriptError):
                taken = self._take_script(keys, take_args, self._connection)
            for answer in (found, taken):
                if isinstance(answer, redis.ResponseError):
                    raise answer
            return found, taken

        before = shard.clock.monotonic()
        found, taken = self._in_groups(shard, wait_and_take, again=False) or (None, None)
        self._is_idle = len(self._bus.shards) == 1 and shard.clock.monotonic() - before > IDLE_S
        tickets, others = _parted(shard, keys[0], found)
        entries = self._taken(shard, before, taken)
        earlier = [id_ for id_ in tickets if _id_parts(id_) <= _id_parts(last_ticket)]
        if earlier:  # Redis' clock was set back, or a group that was lost was created again
            entries += self._take_from(shard, [count, "", 1, *(id_ for id_ in earlier for _ in range(2))])
        if not entries:
            self._note_tickets(shard, tickets)
        return entries + others

    def _note_tickets(self, shard: Shard, tickets: list[bytes]) -> None:
        if tickets:
            self._state(shard).last_ticket = tickets[-1]

    def _reclaim(self) -> list[RawEntry]:
        now = time.monotonic()
        if now > self._remove_idle_at:
            with contextlib.suppress(redis.ResponseError):  # NOGROUP: nobody has read yet
                self.remove_idle_consumers()
        for shard in self._reachable(self._home_shards()):
            state = self._state(shard)
            if now >= state.reclaim_at and (entry := self._reclaim_in(shard, state)):
                return [entry]
        return []

    def _reclaim_in(self, shard: Shard, state: _ShardState) -> RawEntry | None:
        before = shard.clock.monotonic()
        args = [GROUP, self._consumer, RECLAIM_IDLE_MS, *state.reclaim_from]
        answer = self._in_groups(
            shard, lambda: self._reclaim_script(shard.stage_keys(self._stage), args, self._connection)
        )
        if not answer:
            state.reclaim_at = time.monotonic() + RECLAIM_INTERVAL_S
            return None
        seconds, micros, state.reclaim_from, *reclaimed = answer
        shard.clock.compare(before, (seconds, micros))
        if not reclaimed:
            state.reclaim_at = time.monotonic() + RECLAIM_INTERVAL_S
            return None
        ((stream, id_, flat, deaths, deliveries),) = reclaimed
        return RawEntry(_at(shard, stream, id_), _paired(flat), deliveries=deliveries, deaths=deaths)

    def _home_shards(self) -> list[Shard]:
        """Return the shards that this process reads; they depend on which workers of its role are live."""
        shards = self._bus.shards
        if not self._homes or (len(shards) > 1 and time.monotonic() - self._homes_at > HOMES_INTERVAL_S):
            try:
                workers = self._live_workers() if len(shards) > 1 else []
                self._homes = [shards[number] for number in home_shards(self._consumer, workers, len(shards))]
            except STALE:  # the shards may be on other nodes than the heartbeats
                if not self._homes:
                    raise
            self._homes_at = time.monotonic()
        return self._homes

    def _live_workers(self) -> list[str]:
        """Return the IDs of the live workers of this role."""
        now = self._bus.clock.now()
        found = cast(list[bytes], self._client.zrangebyscore(PROCESSES, now - HEARTBEAT_S, now + HEARTBEAT_S))
        role = self._consumer.partition("-")[0] + "-"
        return [name for id_ in found if (name := id_.decode(errors="replace")).startswith(role)]

    def _reachable(self, shards: list[Shard]) -> list[Shard]:
        """Return the shards without those whose node has just failed; all of them if it is the node of each."""
        if len(shards) == 1:
            return shards
        now = time.monotonic()
        return [shard for shard in shards if self._state(shard).away_until <= now] or shards

    def _state(self, shard: Shard) -> _ShardState:
        if shard.number not in self._states:
            self._states[shard.number] = _ShardState()
        return self._states[shard.number]

    def _in_groups(self, shard: Shard, call: Callable[[], Any], *, again: bool = True) -> Any:
        """Call; create the shard's groups when Redis does not know them, at the start or after it lost its memory.

        Return None when the shard's node fails while those of other home shards answer.

        again: call again when groups were created; otherwise the answer is None.
        """
        state = self._state(shard)
        try:
            return call()
        except STALE:
            state.away_until = time.monotonic() + AWAY_S
            if all(self._state(home).away_until > time.monotonic() for home in self._homes):
                raise
            return None
        except redis.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self._groups_script(shard.stage_keys(self._stage), [GROUP])
            return call() if again else None


def _at(shard: Shard, stream: bytes | str, id_: bytes) -> StreamEntry:
    name = stream.decode() if isinstance(stream, bytes) else stream
    return StreamEntry(shard, name.removeprefix(shard.tag + ":"), id_)


def _parted(shard: Shard, live: str, found: Any) -> tuple[list[bytes], list[RawEntry]]:
    """Part what XREADGROUP has found into IDs of tickets and other entries. live: the key of the stream of tickets."""
    rows = found.items() if isinstance(found, dict) else found or []  # RESP3 or RESP2
    tickets, others = [], []
    for stream, entries in rows:
        for id_, flat in entries:
            if stream == live.encode() and flat and flat[0] == b"ticket":
                tickets.append(id_)
            else:
                others.append(RawEntry(_at(shard, stream, id_), _paired(flat or [])))
    return tickets, others


def _id_parts(id_: bytes) -> tuple[int, ...]:
    return tuple(int(part) for part in id_.split(b"-"))


def _paired(flat: list[bytes]) -> dict[bytes, bytes]:
    """Return the fields of an entry, which scripts return as one list."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
