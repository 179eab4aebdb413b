"""Publish frames: a frame and its JPEG in, a place in the queue of the stage frames and a key with the pixels out.

A frame whose pixels are in its producer's ring (frame_ring.py) needs a JPEG only if somebody asks for it: a viewer that
shows the camera, or a worker of another machine. publish.lua writes everything and counts the frame in one step. Redis
errors are raised to the caller, whose loop waits and retries (`WorkerContext.reconnecting`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from pipeline.bus.dedicated_connection import DedicatedConnection
from pipeline.bus.keys import FILE_COUNTS_S, LEASE_MS
from pipeline.bus.leases import NameLost
from pipeline.bus.messages import Frame, describe_holder
from pipeline.bus.scripts import Script, frame_arguments, mode_of
from pipeline.bus.shards import Shard

NEED_HOLDS_S = 1.0  # an answer of Redis about who needs JPEGs is out of date after this long
MAX_STANDING_FRAMES = 64  # unfinished frames of one camera at which its next frames are dropped at the source

Published = Literal["published", "again", "source_full", "memory"]
# Who needs the camera's frames as JPEG, as publish.lua says it; the larger number includes the smaller one.
NOBODY, VIEWERS, WORKERS = 0, 1, 2


class Writer:
    """Publish one camera's frames, in one thread.

    Args:
        token: the packed LeaseHolder that holds the camera's lease.
        pixels_ms: TTL of the pixels.
        connection: which writers of one thread may share; None for one of its own.
    """

    def __init__(
        self, shard: Shard, *, camera: str, token: bytes, pixels_ms: int, connection: DedicatedConnection | None = None
    ) -> None:
        self._shard = shard
        self._client = shard.client
        self._camera = camera
        self._token = token
        self._pixels_ms = pixels_ms
        self._connection = connection or DedicatedConnection(shard.client)
        self._publish = Script(shard.client, "publish")
        self._keys = [*shard.stage_keys("frames"), *shard.camera_keys(camera), shard.key("newest:frames", camera)]
        self._keys += [shard.key("lease", camera)]
        self._keys_after = [shard.key("cameras"), shard.key("watched", camera), shard.key("remote")]
        self._jpeg_for = WORKERS
        self._answered_s = 0.0

    @property
    def needs_jpeg(self) -> bool:
        """Whether somebody needs the camera's frames as JPEG, by Redis' last answer; True if that is out of date."""
        return self._jpeg_for != NOBODY or self._shard.clock.monotonic() - self._answered_s > NEED_HOLDS_S

    def publish(self, frame: Frame, jpeg: bytes = b"") -> Published:
        """Publish a frame with its JPEG. Calling it again with the same frame changes nothing.

        Args:
            jpeg: b"" is for a frame with shared pixels.

        Returns:
            "published"; "again" when an earlier call had published the frame; "source_full" or "memory" when the frame
            was dropped at the source, which is counted in the ledger and written to `results`.

        Raises:
            NameLost: another process holds the camera's name; names that process.
        """
        shard = self._shard
        keys = [*self._keys, frame.pixels_key, *self._keys_after]
        for_workers = jpeg and (frame.shared is None or self._jpeg_for == WORKERS)
        data_key, other_key = (frame.pixels_key, "") if for_workers else ("", frame.pixels_key if jpeg else "")
        args: list[Any] = [*frame_arguments(frame, data_key=data_key, other_key=other_key), mode_of(frame)]
        args += [f"{frame.start}:{frame.seq}:{frame.attempt}", f"{frame.captured_at:.6f}", jpeg, self._pixels_ms]
        args += [MAX_STANDING_FRAMES, self._token, LEASE_MS]
        before = shard.clock.monotonic()
        outcome, seconds, micros, holder_or_need = self._publish(keys, args, self._connection)
        shard.clock.compare(before, (seconds, micros))
        if outcome == b"lost":
            raise NameLost(describe_holder(holder_or_need))
        self._jpeg_for, self._answered_s = holder_or_need, before
        return cast(Published, outcome.decode())

    def standing(self) -> set[str]:
        """Return the IDs of the camera's frames that have no outcome yet."""
        found = cast(list[bytes], self._client.hkeys(self._shard.key("standing", self._camera)))
        return {frame_id.decode() for frame_id in found}

    def renew(self, frames: Sequence[Frame]) -> None:
        """Restart the TTL of a file's counts, and of the pixels and crops of its unfinished frames."""
        with self._client.pipeline(transaction=False) as pipe:
            for name in ("standing", "ledger", "newest:frames"):
                pipe.expire(self._shard.key(name, self._camera), FILE_COUNTS_S)
            for frame in frames:
                pipe.pexpire(frame.pixels_key, self._pixels_ms)
                pipe.pexpire(frame.crops_key, self._pixels_ms)
            pipe.execute()

    def delete_pixels(self, frames: Sequence[Frame]) -> None:
        """Delete the pixels of finished frames that no other process reads."""
        self._client.unlink(*(frame.pixels_key for frame in frames))
