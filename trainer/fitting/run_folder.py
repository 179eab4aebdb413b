"""Keep a run folder to one process: a folder in, a lock on it while a `with` block lasts.

The lock is a file in the folder that the kernel unlocks however its process dies. A folder that another process works
in raises FolderInUse, one that cannot be written ValueError.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK_NAME = "run.lock"
CHECKPOINT_NAME = "checkpoint.npz"
PART_NAME = "checkpoint.part"  # one that is being written
# Long enough for any process id.
_PID_BYTES = 20


class FolderInUse(ValueError):
    """Another process works in a run folder; a job may wait until that has ended."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if need be; a folder that is still empty at the end is removed.

    Raises:
        FolderInUse: another process holds it.
        ValueError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _take(folder / LOCK_NAME)
    except OSError as error:
        raise ValueError(f"{folder} cannot be written ({error.strerror}): choose another folder with --out") from error
    try:
        yield
    finally:
        (folder / LOCK_NAME).unlink(missing_ok=True)
        with suppress(OSError):  # it holds something
            folder.rmdir()
        os.close(lock)  # last: whoever waited for this very file finds that it is gone


def tidy(folder: Path) -> None:
    """Remove the lock and half a checkpoint that a killed process has left, and the folder if it is empty then."""
    if (folder / LOCK_NAME).exists():
        with suppress(ValueError), locked(folder):  # another process holds it by now
            (folder / PART_NAME).unlink(missing_ok=True)


def is_free(folder: Path) -> bool:
    """Return whether no process holds a folder, and change nothing; of one that cannot be used, locked() says why."""
    try:
        lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return not isinstance(error, BlockingIOError)
    finally:
        os.close(lock)
    return True


def _take(path: Path) -> int:
    """Return the descriptor of the locked file."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(lock, _PID_BYTES).decode(errors="replace") or "unknown"
            os.close(lock)
            raise FolderInUse(
                f"process {holder} is training in {path.parent}: wait for it, or choose another folder with --out"
            ) from error
        if _is_still_there(lock, path):
            os.truncate(lock, 0)
            os.write(lock, str(os.getpid()).encode())
            return lock
        os.close(lock)  # its holder removed it between our two calls


def _is_still_there(lock: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False
