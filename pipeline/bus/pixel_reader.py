"""Read pixels and crops from their Redis keys. `PixelsGone` means that a key has expired."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import redis

from pipeline.bus.cluster import STALE
from pipeline.bus.connection import Redis


class PixelsGone(Exception):
    """The pixels or crops of a frame are no longer in Redis."""


def fetch_pixels(client: Redis, key: str) -> bytes:
    """Return the value of a pixels or crops key.

    Raises:
        PixelsGone: the key does not exist.
    """
    value = cast(bytes | None, client.get(key))
    if value is None:
        raise PixelsGone(key)
    return value


def fetch_many_pixels(client: Redis, keys: Sequence[str]) -> list[bytes | None]:
    """Return the value of each key, None for one that does not exist, or whose node fails while another one answers."""
    by_tag: dict[str, list[str]] = {}
    for key in keys:
        by_tag.setdefault(key.partition("}")[0], []).append(key)
    found: dict[str, bytes | None] = {}
    failed: redis.RedisError | None = None
    for group in by_tag.values():
        try:
            found.update(zip(group, cast(list[bytes | None], client.mget(group)), strict=True))
        except STALE as error:
            failed = error
    if failed and not found:
        raise failed
    return [found.get(key) for key in keys]
