"""Read pixels and crops from their Redis keys. `PixelsGone` means that a key has expired."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from pipeline.bus.connection import Redis


class PixelsGone(Exception):
    """The pixels of a frame, or its crops, are no longer in Redis."""


def fetch(client: Redis, key: str) -> bytes:
    """Return what lies under a pixels or crops key.

    Raises:
        PixelsGone: nothing does any more.
    """
    found = cast(bytes | None, client.get(key))
    if found is None:
        raise PixelsGone(key)
    return found


def fetch_many(client: Redis, keys: Sequence[str]) -> list[bytes | None]:
    """Return what lies under each key, None where nothing does any more."""
    return cast(list[bytes | None], client.mget(keys)) if keys else []
