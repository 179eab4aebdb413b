"""What the queue of one Redis still holds: frames without an outcome, and entries that workers hold."""

from __future__ import annotations

from typing import Any, cast

from pipeline.bus.keys import GROUP
from pipeline.bus.messages import FILE_PREFIX
from pipeline.bus.shards import Bus, Shard
from pipeline.bus.status import WORK_STREAMS

MAX_PENDING = 1000

Held = tuple[str, bytes]  # a stream and the ID of an entry


def standing_frames(bus: Bus, cameras: list[str]) -> list[str]:
    """Return the IDs of the cameras' frames without an outcome."""
    keys = ((bus.shard_of(name), name) for name in cameras)
    return [
        frame_id.decode()
        for shard, name in keys
        for frame_id in cast(list[bytes], shard.client.hkeys(shard.key("standing", name)))
    ]


def pending_entries(bus: Bus) -> set[Held]:
    """Return the entries that workers hold."""
    return {
        (key, entry["message_id"])
        for shard in bus.shards
        for key in map(shard.key, WORK_STREAMS)
        if _has_group(shard, key)
        for entry in cast(list[Any], shard.client.xpending_range(key, GROUP, "-", "+", MAX_PENDING))
    }


def leftovers(bus: Bus) -> list[str]:
    """Return what is left of a queue in which nothing should be, in words."""
    counts: dict[str, int] = {}
    for shard in bus.shards:
        hashes = [shard.key(stage, part) for stage in ("frames", "faces") for part in ("waiting", "taken", "alone")]
        names = [name.decode() for name in cast(list[bytes], shard.client.zrange(shard.key("cameras"), 0, -1))]
        hashes += [shard.key("standing", name) for name in names if name.startswith(FILE_PREFIX)]
        counts |= {key: shard.client.xlen(key) for key in map(shard.key, WORK_STREAMS)}
        counts |= {key: shard.client.hlen(key) for key in hashes}
    return [f"{count} in {key}" for key, count in counts.items() if count]


def _has_group(shard: Shard, key: str) -> bool:
    groups = cast(list[Any], shard.client.xinfo_groups(key)) if shard.client.exists(key) else []
    return any(group["name"] == GROUP.encode() for group in groups)
