"""Forget a camera that is out of use: remove it from the list, with its counts. One that comes back is listed anew.

Recorders learn of it from the sorted set `forgotten` of its shard, and end its events. Steps are in an order in which
one that stops half way leaves the camera listed, so that it can be forgotten again.
"""

from __future__ import annotations

from typing import cast

from pipeline.bus import messages
from pipeline.bus.keys import FORGOTTEN_S
from pipeline.bus.messages import FILE_PREFIX
from pipeline.bus.shards import Bus

KEYS = ("standing", "ledger", "recent", "newest:frames", "known", "watched")


class CannotForget(Exception):
    """There is no such camera, or it runs; says what to do."""


def forget_camera(bus: Bus, camera: str) -> None:
    """Forget a camera.

    Raises:
        CannotForget: there is no such camera, or its producer runs.
        redis.RedisError: Redis failed.
    """
    unknown = CannotForget(f"there is no camera {camera!a:.80}: `maskwatch status` lists them")
    if camera.startswith(FILE_PREFIX):
        raise CannotForget(f"{camera} is no camera but files, which leave the list by themselves")
    if not messages.is_camera_name(camera):
        raise unknown
    shard = bus.shard_of(camera)
    client, cameras = shard.client, shard.key("cameras")
    if client.zscore(cameras, camera) is None:
        raise unknown
    if client.exists(shard.key("lease", camera)):
        raise CannotForget(f"camera {camera} runs: stop it first")
    now = shard.clock.now()
    client.zremrangebyscore(shard.key("forgotten"), "-inf", now - FORGOTTEN_S)
    client.zadd(shard.key("forgotten"), {camera: now})
    for stage in ("frames", "faces"):
        client.hdel(shard.key(stage, "turns"), camera)
    client.unlink(*(shard.key(name, camera) for name in KEYS))
    client.zrem(cameras, camera)


def read_forgotten(bus: Bus) -> dict[str, float]:
    """Return the cameras that were forgotten, and when; some may have come back since.

    One that was lost with Redis' memory is not among them.
    """
    found: dict[str, float] = {}
    for shard in bus.shards:
        kept = cast(list[tuple[bytes, float]], shard.client.zrange(shard.key("forgotten"), 0, -1, withscores=True))
        found |= {name.decode(errors="replace"): at for name, at in kept}
    return {name: at for name, at in found.items() if messages.is_camera_name(name)}
