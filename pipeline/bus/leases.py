"""A camera's name is a lease: one process publishes under it at a time.

A newcomer waits until the last holder's lease would have run out, and is then refused with the holder's host and pid.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable
from typing import Any

import redis

from pipeline.bus import messages
from pipeline.bus.connection import Redis
from pipeline.bus.keys import LEASE_MS, lease_key
from pipeline.bus.messages import Holder, holder_text
from pipeline.bus.scripts import script

RENEW_S = 0.5
NEWCOMER_WAITS_S = 2.5


class NameTaken(Exception):
    """Another live process holds the camera's name; names the holder."""


class Lease:
    """Hold a camera's name from `take()` to `release()`; a thread of its own renews it.

    Args:
        wait: waits for some seconds and returns whether the process should stop.

    Attributes:
        token: what the publishing script checks.
    """

    def __init__(self, client: Redis, camera: str, wait: Callable[[float], bool]) -> None:
        holder = Holder(host=socket.gethostname(), pid=os.getpid(), token=secrets.token_hex(8))
        self.token = messages.encode(holder)
        self._wait = wait
        self._camera = camera
        self._lease: Any = script(client, "lease")
        self._release: Any = script(client, "release")
        self._released = threading.Event()

    def take(self) -> None:
        """Take the name and keep it.

        Raises:
            NameTaken: it is held by a live process.
            redis.RedisError: Redis failed.
        """
        waited, stops = 0.0, False
        while (holder := self._renew()) != self.token:
            if waited >= NEWCOMER_WAITS_S or stops:
                raise NameTaken(f"camera {self._camera!r} is published by {holder_text(holder)}; choose another --name")
            stops = self._wait(RENEW_S)
            waited += RENEW_S
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    def release(self) -> None:
        """Give the name back."""
        self._released.set()
        self._release(keys=[lease_key(self._camera)], args=[self.token])

    def _renew(self) -> bytes:
        holder = self._lease(
            keys=[lease_key(self._camera), messages.CAMERAS], args=[self.token, LEASE_MS, self._camera]
        )
        return bytes(holder)

    def _keep(self) -> None:
        while not self._released.wait(RENEW_S):
            try:
                self._renew()
            except redis.RedisError:
                continue  # publishing says that Redis failed; it also takes a free name back
