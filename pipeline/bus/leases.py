"""Lease a camera's name, so that only one process publishes under it.

A second process waits until the lease of a dead holder would have expired; then it gets `NameTaken`, which names the
holder's host and process.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable

import redis

from pipeline.bus import messages
from pipeline.bus.keys import LEASE_MS
from pipeline.bus.messages import LeaseHolder, describe_holder
from pipeline.bus.scripts import Script
from pipeline.bus.shards import Shard

RENEW_INTERVAL_S = 0.5
RENEW_AFTER_S = 1.1  # since publishing a frame, which renews the lease of 2 s, too
ACQUIRE_TIMEOUT_S = 2.5


class NameTaken(Exception):
    """Another live process holds the camera's name; names the holder."""


class Lease:
    """Hold a camera's name from `acquire()` to `release()`; a background thread renews it unless publishing does.

    Args:
        wait: waits for some seconds and returns whether the process should stop.

    Attributes:
        token: the packed LeaseHolder, which the publishing script checks.
    """

    def __init__(self, shard: Shard, camera: str, wait: Callable[[float], bool]) -> None:
        holder = LeaseHolder(host=socket.gethostname(), pid=os.getpid(), token=secrets.token_hex(8))
        self.token = messages.encode(holder)
        self._wait = wait
        self._camera = camera
        self._keys = [shard.key("lease", camera), shard.key("cameras")]
        self._lease_script = Script(shard.client, "lease")
        self._release_script = Script(shard.client, "release")
        self._released = threading.Event()
        self._published_at = float("-inf")

    def acquire(self) -> None:
        """Acquire the name and keep renewing it.

        Raises:
            NameTaken: a live process holds it.
            redis.RedisError: Redis failed.
        """
        waited_s, should_stop = 0.0, False
        while (holder := self._renew()) != self.token:
            if waited_s >= ACQUIRE_TIMEOUT_S or should_stop:
                raise NameTaken(
                    f"camera {self._camera!r} is published by {describe_holder(holder)}; choose another --name"
                )
            should_stop = self._wait(RENEW_INTERVAL_S)
            waited_s += RENEW_INTERVAL_S
        threading.Thread(target=self._keep_renewing, name="lease", daemon=True).start()

    def release(self) -> None:
        """Release the name."""
        self._released.set()
        self._release_script(keys=self._keys[:1], args=[self.token])

    def note_published(self, begun: float) -> None:
        """Note that a frame was published, which renews the lease. begun: before, on the monotonic clock."""
        self._published_at = begun

    def _renew(self) -> bytes:
        """Acquire or renew the lease; return the token that holds it now."""
        return bytes(self._lease_script(keys=self._keys, args=[self.token, LEASE_MS, self._camera]))

    def _keep_renewing(self) -> None:
        wait_s = RENEW_INTERVAL_S
        while not self._released.wait(wait_s):
            wait_s = self._published_at + RENEW_AFTER_S - time.monotonic()
            if wait_s > 0:
                continue
            wait_s = RENEW_INTERVAL_S
            # the publishing loop reports a failure, and publishing acquires a free name again
            with contextlib.suppress(redis.RedisError):
                self._renew()
