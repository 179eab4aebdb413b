"""Lock files: a path in, an exclusive lock out, which the kernel releases however the process that holds it ends.

A process that is forked while it holds a lock holds it too. A lock that another process holds raises LockHeld, a file
that cannot be opened OSError.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

_PID_BYTES = 20  # long enough for any process ID


class LockHeld(Exception):
    """Another process holds a lock; `holder` is its process ID, or "unknown"."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"process {holder} holds the lock")
        self.holder = holder


def lock_file(path: Path) -> int:
    """Lock a file, which is created if need be, and write this process's ID into it.

    Return the file's descriptor, which releases the lock when it is closed; raise LockHeld if another process holds it.
    """
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        if not _try_to_lock(lock):
            holder = os.read(lock, _PID_BYTES).decode(errors="replace") or "unknown"
            os.close(lock)
            raise LockHeld(holder)
        if _is_same_file(lock, path):
            try:
                os.truncate(lock, 0)
                os.write(lock, str(os.getpid()).encode())
            except OSError:  # the disk is full
                os.close(lock)
                raise
            return lock
        os.close(lock)  # its holder removed the file between open and flock: lock the new one


def wait_for_lock(path: Path) -> int:
    """Wait until a file can be locked; return its descriptor. The file is created if need be and never removed."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)  # NFS only locks what is open for writing
    except PermissionError:  # it is another user's
        lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except BaseException:
        os.close(lock)
        raise
    return lock


def is_unlocked(path: Path) -> bool:
    """Return whether no process holds a lock; a file that is missing or cannot be opened is free."""
    with suppress(OSError):
        lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            return _try_to_lock(lock)
        finally:
            os.close(lock)
    return True


def _try_to_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same_file(lock: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False
