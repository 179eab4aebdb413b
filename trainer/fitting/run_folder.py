"""Lock a run folder: one process at a time trains in it.

The lock is a file in the folder. A folder that another process works in raises FolderInUse, one that cannot be written
ValueError, or OSError while its disk is full or fails.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from models import file_lock

LOCK_NAME = "run.lock"
CHECKPOINT_NAME = "checkpoint.npz"
PART_NAME = "checkpoint.part"  # a checkpoint that is being written
TEMPORARY = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE}  # a disk that is full, fails, or is away


class FolderInUse(ValueError):
    """Another process works in a run folder; a job waits until that process has ended."""


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold a folder, which is created if need be; one that was, and is still empty at the end, is removed."""
    path, is_new = folder / LOCK_NAME, not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = file_lock.lock_file(path)
    except file_lock.LockHeld as error:
        raise FolderInUse(
            f"process {error.holder} is training in {folder}: wait for it, or choose another folder with --out"
        ) from error
    except OSError as error:
        what = f"{folder} cannot be written ({error.strerror}): choose another folder with --out"
        raise (OSError(f"{what}, or try again later") if error.errno in TEMPORARY else ValueError(what)) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if is_new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
        os.close(lock)  # last: a process that has opened this file meanwhile finds that it was removed


def remove_leftovers(folder: Path) -> None:
    """Remove the lock file and the partial checkpoint that a killed process left."""
    if (folder / LOCK_NAME).exists():
        # another process may hold it by now, or its disk be full
        with suppress(ValueError, OSError), locked_folder(folder):
            (folder / PART_NAME).unlink(missing_ok=True)


def is_folder_free(folder: Path) -> bool:
    """Return whether no process holds a folder, and change nothing; locked_folder() reports why one cannot be used."""
    return file_lock.is_unlocked(folder / LOCK_NAME)
