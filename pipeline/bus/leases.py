"""Lease a camera's name, so that only one process publishes under it.

A second process waits until the lease of a dead holder would have expired; then it gets `NameTaken`, which names the
holder's host and process. A camera renews its lease in the loop that publishes, a file in a thread, because its loop
may wait for what it writes to.
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
RENEW_AFTER_S = 1.1  # more than a period of a camera of one frame a second, whose publishing renews the lease of 2 s
ACQUIRE_TIMEOUT_S = 2.5


class NameTaken(Exception):
    """Another live process holds the camera's name; names the holder."""


class NameLost(Exception):
    """Another process publishes under this camera's name; names that process."""


class Lease:
    """Hold a camera's name from `acquire()` to `release()`, if it is renewed in between.

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
        self._renewed_at = float("-inf")

    def acquire(self) -> None:
        """Acquire the name for 2 s.

        Raises:
            NameTaken: a live process holds it.
            redis.RedisError: Redis failed.
        """
        waited_s, should_stop = 0.0, False
        while (holder := self._acquire_or_renew()) != self.token:
            if waited_s >= ACQUIRE_TIMEOUT_S or should_stop:
                raise NameTaken(
                    f"camera {self._camera!r} is published by {describe_holder(holder)}; choose another --name"
                )
            should_stop = self._wait(RENEW_INTERVAL_S)
            waited_s += RENEW_INTERVAL_S

    @property
    def needs_renewal(self) -> bool:
        """Whether publishing has not renewed the lease for 1.1 s; a holder asks at least twice a second."""
        return time.monotonic() - self._renewed_at >= RENEW_AFTER_S

    def renew(self) -> None:
        """Renew the lease; acquire the name again if it is free.

        Raises:
            NameLost: another process holds the name.
            redis.RedisError: Redis failed.
        """
        if (holder := self._acquire_or_renew()) != self.token:
            raise NameLost(describe_holder(holder))

    def keep_renewing(self) -> None:
        """Renew the lease in a thread until it is released."""
        threading.Thread(target=self._keep_renewing, name="lease", daemon=True).start()

    def note_published(self, begun: float) -> None:
        """Note that a frame was published, which renews the lease. begun: before, on the monotonic clock."""
        self._renewed_at = begun

    def release(self) -> None:
        """Release the name."""
        self._released.set()
        self._release_script(keys=self._keys[:1], args=[self.token])

    def _acquire_or_renew(self) -> bytes:
        """Acquire or renew the lease; return the token that holds it now."""
        begun = time.monotonic()
        holder = bytes(self._lease_script(keys=self._keys, args=[self.token, LEASE_MS, self._camera]))
        self._renewed_at = begun
        return holder

    def _keep_renewing(self) -> None:
        while not self._released.wait(RENEW_INTERVAL_S):
            # the publishing loop reports both, and publishing acquires a free name again
            with contextlib.suppress(redis.RedisError, NameLost):
                self.renew()
