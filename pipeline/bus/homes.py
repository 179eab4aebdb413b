"""Choose the shards that a worker reads. Pure.

Rendezvous hashing over the live workers of a role: each shard belongs to the two workers with the highest hashes for
it, so it has two homes where there are two workers, and a worker that comes or goes moves few shards. A worker that is
home to no shard reads the one for which its hash is highest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

HOMES = 2  # of a shard


def home_shards(worker: str, workers: Collection[str], shards: int) -> list[int]:
    """Return the numbers of the shards that a worker reads, at least one. workers: the live ones of its role."""
    everybody = {*workers, worker}
    homes = [
        shard
        for shard in range(shards)
        if worker in sorted(everybody, key=lambda one: _weight(one, shard), reverse=True)[:HOMES]
    ]
    return homes or [max(range(shards), key=lambda shard: _weight(worker, shard))]


def _weight(worker: str, shard: int) -> bytes:
    return hashlib.blake2b(f"{worker} {shard}".encode(), digest_size=8).digest()
