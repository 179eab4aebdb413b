"""The shards of the pipeline's keys: all keys of a camera are in one shard, and begin with its tag, as in {s0}:frames.

So each script touches one slot, and the same code runs on one Redis and on a cluster. The number of shards is held in
Redis, and is the same for all processes. Redis errors are raised to the caller.
"""

from __future__ import annotations

import binascii
import contextlib
import time
from collections.abc import Sequence
from typing import Literal, cast, get_args

from redis.exceptions import NoPermissionError

from pipeline.bus.clock import Clock
from pipeline.bus.cluster import Cluster, run_on_primaries
from pipeline.bus.connection import Redis
from pipeline.bus.keys import SHARDS

# The last characters of the shards' tags, in an order that spreads them evenly over three primaries of a cluster. One
# character each, so that the patterns of Redis' users match exactly.
DIGITS = "0231674b85ca9fedgihjmlkpqntuoxyrsvwz"
MAX_SHARDS = len(DIGITS)
ASK_INTERVAL_S = 1.0

Stage = Literal["frames", "faces"]


class UnusableRedis(Exception):
    """Redis answers, but must not be used as it is; says why, and what to do."""


class Shard:
    """The keys of some cameras. tag: begins each of them. clock: of the node that holds them."""

    def __init__(self, client: Redis, number: int, clock: Clock) -> None:
        self.client = client
        self.number = number
        self.clock = clock
        self.tag = tag_of(number)
        self._stage_keys = {stage: self._keys_of(stage) for stage in get_args(Stage)}

    def key(self, *parts: str) -> str:
        """Return a key of this shard, for example key("ledger", "door")."""
        return ":".join((self.tag, *parts))

    def stage_keys(self, stage: Stage) -> list[str]:
        """Return the keys of a stage, in the order of lua/common.lua."""
        return self._stage_keys[stage]

    def camera_keys(self, camera: str) -> list[str]:
        """Return the keys of a camera that bringing or ending one of its frames needs, in the order of common.lua."""
        return [*(self.key(name, camera) for name in ("standing", "ledger", "recent")), self.key("results")]

    def _keys_of(self, stage: Stage) -> list[str]:
        parts = ("complete", "waiting", "order", "turns", "taken", "alone")
        return [self.key(stage), *(self.key(stage, part) for part in parts)]


class Bus:
    """The pipeline's data in one Redis or cluster.

    Args:
        shards: how many; None for as many as Redis holds, 1 if it holds none.
    """

    def __init__(self, client: Redis, shards: int | None = None) -> None:
        self.client = client
        self.clock = Clock(client)
        self._wanted = shards
        self._shards: tuple[Shard, ...] = ()
        self._ask_again_at = 0.0

    @property
    def shards(self) -> Sequence[Shard]:
        """All shards. Redis is asked for their number once, or once a second while neither it nor we know one.

        Raises:
            UnusableRedis: Redis holds another number, or evicts keys when its memory is full.
        """
        if time.monotonic() >= self._ask_again_at:
            check_eviction(self.client)
            held = self._held()
            count = held or self._wanted or 1
            if count != len(self._shards):
                self._shards = tuple(Shard(self.client, number, self._clock_of(number)) for number in range(count))
            self._ask_again_at = float("inf") if held or self._wanted else time.monotonic() + ASK_INTERVAL_S
        return self._shards

    def shard_of(self, camera: str) -> Shard:
        """Return the shard that holds a camera's keys."""
        return self.shards[binascii.crc_hqx(camera.encode(), 0) % len(self.shards)]

    def _clock_of(self, number: int) -> Clock:
        """Return the clock of a shard; the nodes of a cluster have their own."""
        return Clock(self.client, f"{tag_of(number)}:clock") if isinstance(self.client, Cluster) else self.clock

    def _held(self) -> int | None:
        """Return how many shards Redis holds."""
        held = cast(bytes | None, self.client.get(SHARDS)) or b""
        found = int(held) if held.isdigit() and 1 <= int(held) <= MAX_SHARDS else None
        if found and self._wanted and found != self._wanted:
            raise UnusableRedis(
                f"Redis holds {found} shards, --shards says {self._wanted}; leave --shards out, or stop all processes "
                "for a minute before you change it"
            )
        return found


def tag_of(number: int) -> str:
    """Return the hash tag of a shard."""
    return f"{{s{DIGITS[number]}}}"


def check_eviction(client: Redis) -> None:
    """Check that Redis keeps what it holds when its memory is full; users who may not ask do not check.

    Raises:
        UnusableRedis: it would evict keys.
    """
    with contextlib.suppress(NoPermissionError):
        for memory in run_on_primaries(client, "INFO", "memory"):
            policy = memory.get("maxmemory_policy", "noeviction")
            if policy != "noeviction":
                raise UnusableRedis(
                    f"Redis evicts keys when its memory is full (maxmemory-policy {policy}), which loses frames; set "
                    "maxmemory-policy noeviction"
                )
