"""Which pipelines of this user run on this machine: `demo` and `up` announce theirs, other commands find them.

Each announcing process listens on a Unix socket in a folder of mode 0700 and answers every connection with its record.
So a URL with a password is never on a disk, and the socket of a process that was killed refuses connections: the
next command that looks removes it. A folder that belongs to another user, or that others may enter, is not used.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 1.0  # a process that is stopped or hangs does not answer
MAX_PATH = 100  # bytes; the path of a Unix socket has at most 107
MAX_RECORD = 65_536  # bytes


class RunningPipeline(Struct, frozen=True, kw_only=True):
    """A pipeline that `command` (demo or up) runs in process `pid`.

    redis_url: may hold a password. embedded: its Redis ends with it. cameras: their names. models: the registry or
    model's folder that it uses, an absolute path or URL; None for the built-in models. host, port: of its page; port 0
    was chosen by the viewer. database: the URL of its database of events, which may hold a password; None without one.
    """

    pid: int
    command: str
    redis_url: str
    embedded: bool
    cameras: list[str]
    models: str | None
    host: str
    port: int
    database: str | None = None


@contextlib.contextmanager
def announced(pipeline: RunningPipeline) -> Iterator[None]:
    """Let other commands of this user find a pipeline while the block runs; where that is impossible, log why."""
    try:
        path = _new_socket_path(pipeline.pid)
        listening = _listen(path)
    except OSError as error:
        log.warning("other commands cannot find this pipeline without --redis: %s", error)
        yield
        return
    threading.Thread(target=_answer, args=(listening, msgspec.json.encode(pipeline)), daemon=True).start()
    try:
        yield
    finally:
        listening.shutdown(socket.SHUT_RDWR)  # ends the thread
        listening.close()
        with contextlib.suppress(OSError):
            path.unlink()
            path.parent.rmdir()  # unless it holds others


def find_running_pipelines() -> list[RunningPipeline]:
    """Return the pipelines of this user that answer, by process ID. Sockets of processes that have died are removed."""
    paths = [path for folder in _folders() if _is_private(folder) for path in folder.glob("*.sock")]
    found = {pipeline.pid: pipeline for pipeline in map(_ask, paths) if pipeline is not None}
    return [found[pid] for pid in sorted(found)]


def _folders() -> list[Path]:
    """Return the folders in which sockets may be, the preferred one first."""
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    temporary = Path(tempfile.gettempdir()) / f"maskwatch.{os.getuid()}"
    # after `su`, XDG_RUNTIME_DIR may be that of another user
    return [runtime / "maskwatch", temporary] if _is_private(runtime) else [temporary]


def _is_private(folder: Path) -> bool:
    """Return whether a folder exists, is no link, and only this user may enter it."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077


def _new_socket_path(pid: int) -> Path:
    """Return the path of a new socket in the first folder that can be used, which is created if need be.

    Raises:
        OSError: no folder can be used.
    """
    reasons: list[str] = []
    for folder in _folders():
        path = folder / f"{pid}.sock"
        if len(os.fsencode(path)) > MAX_PATH:
            reasons.append(f"the path {folder} is too long")
            continue
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            reasons.append(f"{folder} cannot be created: {error.strerror}")
            continue
        if _is_private(folder):
            return path
        reasons.append(f"{folder} is not a folder that only this user may enter (mode 0700)")
    raise OSError("; ".join(reasons))


def _listen(path: Path) -> socket.socket:
    """Return a socket that listens at a path, which exists only once it does: one that refuses would be removed."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        unready = path.with_suffix(".new")
        unready.unlink(missing_ok=True)
        listening.bind(str(unready))
        listening.listen()
        unready.rename(path)
    except OSError:
        listening.close()
        raise
    return listening


def _answer(listening: socket.socket, record: bytes) -> None:
    """Send a record to each process that connects, until the socket is closed."""
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            connection.settimeout(ANSWER_TIMEOUT_S)
            connection.sendall(record)


def _ask(path: Path) -> RunningPipeline | None:
    """Return the record of the process that listens on a socket; None if it does not answer."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_TIMEOUT_S)
            connection.connect(str(path))
            with connection.makefile("rb") as answer:
                return msgspec.json.decode(answer.read(MAX_RECORD), type=RunningPipeline)
    except ConnectionRefusedError:  # its process was killed
        with contextlib.suppress(OSError):
            path.unlink()
    except (OSError, msgspec.DecodeError):  # it ends just now, hangs, or is of another version of maskwatch
        log.debug("%s does not answer", path)
    return None
