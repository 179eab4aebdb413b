"""Publish frames: a frame and its JPEG in, an entry on the stream `frames` and a key with the pixels out.

publish.lua writes both and counts the frame in one step. Redis errors are raised to the caller, whose loop waits and
retries (`WorkerContext.reconnecting`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from pipeline.bus import messages
from pipeline.bus.connection import Redis
from pipeline.bus.keys import LEASE_MS, RESULTS_RETENTION_MS, lease_key, ledger_key, newest_frame_key
from pipeline.bus.messages import Frame, FrameResult, describe_holder
from pipeline.bus.scripts import Script

MAX_QUEUED_FRAMES = 64  # frames of one camera on `frames` at which its next frames are dropped at the source

Published = Literal["published", "again", "source_full", "memory"]


class NameLost(Exception):
    """Another process publishes under this camera's name."""


class Writer:
    """Publish one camera's frames. token: the packed LeaseHolder that holds its lease. pixels_ms: TTL of the pixels."""

    def __init__(self, client: Redis, *, camera: str, token: bytes, pixels_ms: int) -> None:
        self._client = client
        self._camera = camera
        self._token = token
        self._pixels_ms = pixels_ms
        self._publish = Script(client, "publish")

    def publish(self, frame: Frame, jpeg: bytes) -> Published:
        """Publish a frame with its JPEG. Calling it again with the same frame changes nothing.

        Returns:
            "published"; "again" when an earlier call had published the frame; "source_full" or "memory" when the frame
            was dropped at the source, which is counted in the ledger and written to `results`.

        Raises:
            NameLost: another process holds the camera's name; names that process.
        """
        camera, attempt_id = self._camera, f"{frame.start}:{frame.seq}:{frame.attempt}"
        keys = [messages.FRAMES, newest_frame_key(camera), ledger_key(camera), lease_key(camera)]
        keys += [frame.pixels_key, messages.RESULTS]
        args: list[Any] = [self._token, LEASE_MS, camera, attempt_id, f"{frame.captured_at:.6f}", frame.seq]
        args += [messages.encode(frame), jpeg, self._pixels_ms, MAX_QUEUED_FRAMES]
        args += [messages.encode(FrameResult.dropped(frame, "source_full"))]
        args += [messages.encode(FrameResult.dropped(frame, "memory")), RESULTS_RETENTION_MS]
        answer = self._publish(keys, args)
        if isinstance(answer, list):
            raise NameLost(describe_holder(answer[1]))
        return cast(Published, answer.decode())

    def renew_pixels(self, frames: Sequence[Frame]) -> None:
        """Restart the TTL of the pixels and crops of unfinished frames."""
        with self._client.pipeline(transaction=False) as pipe:
            for frame in frames:
                pipe.pexpire(frame.pixels_key, self._pixels_ms)
                pipe.pexpire(frame.crops_key, self._pixels_ms)
            pipe.execute()

    def delete_pixels(self, frames: Sequence[Frame]) -> None:
        """Delete the pixels of finished frames that no other process reads."""
        self._client.unlink(*(frame.pixels_key for frame in frames))
