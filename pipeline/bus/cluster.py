"""The client of a Redis or Valkey Cluster: commands in, each sent to the primary that holds the slot of its first key.

Which primary holds which slot is asked (CLUSTER SLOTS) at the first command and after each failure, so the cluster may
start later than its clients. A command that a node declines with MOVED, and so has not run, is sent to the node that
MOVED names; no other command is sent twice. All errors are redis.RedisError, as those of a single Redis are.

The keys of a command must be in one slot. A pipeline may have keys of several slots and is sent slot by slot. While a
slot is being migrated key by key, its commands may fail with AskError or TryAgainError; repeat them later. WATCH and
Pub/Sub are not supported.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

import redis
from redis.client import Pipeline
from redis.crc import key_slot
from redis.exceptions import AuthenticationError, ClusterDownError, MovedError

Address: TypeAlias = tuple[str, int]
Found = TypeVar("Found")

MAX_ATTEMPTS = 5  # of a command that each node declines with MOVED
MAX_ASKED = 3  # nodes asked for the slots at a time; each may take 3 s, and a loop counts as stuck after 15 s
KEYLESS = {"ACL", "CLIENT", "CLUSTER", "CONFIG", "DBSIZE", "INFO", "PING", "SCRIPT", "TIME"}
# After one of these, another node may hold the slot.
STALE = (redis.ConnectionError, redis.TimeoutError, ClusterDownError)


class Cluster(redis.Redis):
    """A client of all primaries, with one client of a single Redis for each.

    Args:
        seeds: nodes to ask first.
        connect_node: returns the client of one node, without connecting.
    """

    def __init__(self, seeds: Sequence[Address], connect_node: Callable[[Address], redis.Redis]) -> None:
        self.seeds = seeds
        self._connect_node = connect_node
        self._nodes = {seed: connect_node(seed) for seed in seeds}
        self._primaries: dict[int, Address] = {}  # by slot; empty: ask again
        super().__init__(connection_pool=self._nodes[seeds[0]].connection_pool)

    def execute_command(self, *command: Any, **options: Any) -> Any:
        """Run a command on the primary that holds its key, or on any primary if it has none."""
        return self.follow(_slot_of(command), lambda node: _run(node, *command, **options))

    def pipeline(self, transaction: bool = True, _shard_hint: None = None) -> Pipeline:
        """Return a pipeline."""
        return ClusterPipeline(self, transaction=transaction)

    def run_on_primaries(self, *command: Any) -> list[Any]:
        """Run a command without keys on each primary."""
        slots = {address: slot for slot, address in (self._primaries or self._discover()).items()}
        return [self.follow(slot, lambda node: _run(node, *command)) for slot in slots.values()]

    def follow(self, slot: int | None, run: Callable[[redis.Redis], Found]) -> Found:
        """Call `run` with the client of the primary that holds a slot; again with another one after MOVED.

        slot: None for any.
        """
        for _ in range(MAX_ATTEMPTS):
            primaries = self._primaries or self._discover()
            address = primaries.get(random.choice(list(primaries)) if slot is None else slot)
            if address is None:
                self._primaries = {}
                raise ClusterDownError(f"no node holds slot {slot}")
            try:
                return run(self._node(address))
            except MovedError as moved:
                primaries[moved.slot_id] = (moved.host or address[0], moved.port)
            except STALE:
                self._primaries = {}
                raise
        raise ClusterDownError(f"the nodes do not agree on who holds slot {slot}")

    def close(self) -> None:
        """Close the connections to all nodes."""
        for node in list(self._nodes.values()):
            node.close()

    def _node(self, address: Address) -> redis.Redis:
        if address not in self._nodes:
            self._nodes[address] = self._connect_node(address)
        return self._nodes[address]

    def _discover(self) -> dict[int, Address]:
        """Return the primary of each slot as a node knows it, and remember all nodes that it knows."""
        failure: redis.RedisError = ClusterDownError("its nodes hold no slots; create the cluster")
        for asked in random.sample(list(self._nodes), min(MAX_ASKED, len(self._nodes))):
            try:
                ranges = _run(self._node(asked), "CLUSTER SLOTS")
            except AuthenticationError:  # a ConnectionError, too
                raise
            except STALE as error:
                failure = error
                continue
            if ranges:
                return self._remember(asked, ranges)
        raise failure

    def _remember(self, asked: Address, ranges: list[Any]) -> dict[int, Address]:
        known, primaries = list(self.seeds), {}
        for first, last, *nodes in ranges:
            # without a name: under the one at which it was asked
            addresses = [(node[0].decode() if node[0] else asked[0], node[1]) for node in nodes]
            known += addresses
            primaries.update(dict.fromkeys(range(first, last + 1), addresses[0]))
        self._nodes = {address: self._node(address) for address in known}
        self._primaries = primaries
        return primaries


class ClusterPipeline(Pipeline):
    """A pipeline that is sent slot by slot; as a transaction it may have keys of one slot only."""

    def __init__(self, cluster: Cluster, *, transaction: bool) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction, shard_hint=None)
        self._cluster = cluster
        self._transaction = transaction

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Run the commands and return their answers in the same order.

        raise_on_error: raise the first error; otherwise errors are answers, also that of a node that does not answer.
        """
        commands, scripts = self.command_stack, self.scripts
        self.reset()
        by_slot: dict[int | None, list[int]] = {}
        for number, (command, _) in enumerate(commands):
            by_slot.setdefault(_slot_of(command), []).append(number)
        if self._transaction and len(by_slot) > 1:
            raise redis.DataError("the keys of a transaction must be in one slot")
        answers: dict[int, Any] = {}
        for slot, numbers in by_slot.items():
            run = partial(_run_pipeline, [commands[number] for number in numbers], scripts, self._transaction)
            try:
                found = self._cluster.follow(slot, run)
            except STALE as error:
                if raise_on_error:
                    raise
                found = [error] * len(numbers)
            answers.update(zip(numbers, found, strict=True))
        in_order = [answers[number] for number in range(len(commands))]
        if raise_on_error:
            self.raise_first_error(commands, in_order)  # type: ignore[no-untyped-call]
        return in_order


def run_at(client: redis.Redis, key: str, *command: Any) -> Any:
    """Run a command without keys on the server, of a cluster the primary, that holds a key."""
    if not isinstance(client, Cluster):
        return _run(client, *command)
    return client.follow(_slot_of_key(key), lambda node: _run(node, *command))


def run_at_key_of(client: redis.Redis, command: Sequence[Any], run: Callable[[redis.Redis], Found]) -> Found:
    """Call `run` with the client of the server, of a cluster the primary, that holds the first key of a command."""
    return client.follow(_slot_of(command), run) if isinstance(client, Cluster) else run(client)


def run_on_primaries(client: redis.Redis, *command: Any) -> list[Any]:
    """Run a command without keys on the server, or on each primary of a cluster."""
    return client.run_on_primaries(*command) if isinstance(client, Cluster) else [_run(client, *command)]


def server_time(client: redis.Redis, key: str) -> tuple[int, int]:
    """Return Unix seconds and microseconds on the clock of the server, of a cluster the primary, that holds a key."""
    seconds, micros = run_at(client, key, "TIME")
    return seconds, micros


def _run(client: Any, *command: Any, **options: Any) -> Any:
    return client.execute_command(*command, **options)  # redis-py leaves its types open


def _run_pipeline(commands: list[Any], scripts: set[Any], transaction: bool, node: redis.Redis) -> list[Any]:
    with node.pipeline(transaction=transaction) as pipe:
        pipe.command_stack, pipe.scripts = commands, scripts
        answers = pipe.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, ClusterDownError):
            raise answer
    if all(isinstance(answer, MovedError) for answer in answers):  # none has run
        raise answers[0]
    return answers


def _slot_of(command: Sequence[Any]) -> int | None:
    """Return the slot of a command's first key; None without keys. The command is as redis-py passes it."""
    name = command[0].upper()
    if name in ("EVAL", "EVAL_RO", "EVALSHA", "EVALSHA_RO"):
        return _slot_of_key(command[3]) if int(command[2]) else None
    if name in ("XREAD", "XREADGROUP"):
        return _slot_of_key(command[command.index(b"STREAMS") + 1])
    if name.split()[0] in KEYLESS or len(command) == 1:
        return None
    return _slot_of_key(command[1])


def _slot_of_key(key: str | bytes) -> int:
    return key_slot(key.encode() if isinstance(key, str) else key)
