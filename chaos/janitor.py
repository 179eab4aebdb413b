"""A process that outlives the command: when that has ended, even by kill -9, it kills what is left and tidies up.

All processes of a run have the folder of temporary files of the command in their environment, and are found by it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from chaos.processes import send
from pipeline.runtime.children import spawn

MARK = "TMPDIR"  # the variable of the environment that names the folder
CHECK_INTERVAL_S = 0.05
TIMEOUT_S = 10.0


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder; when the block or this process ends, kill the processes marked with it, and remove it."""
    folder = Path(tempfile.mkdtemp(prefix="maskwatch-chaos-"))
    read_end, write_end = os.pipe()
    janitor = spawn(["chaos-janitor", str(folder)], read_end, {})
    os.close(read_end)
    try:
        yield folder
    finally:
        os.close(write_end)
        with contextlib.suppress(subprocess.TimeoutExpired):
            janitor.wait(TIMEOUT_S)


def wait_and_tidy_up(folder: Path, parent_fd: int) -> int:
    """Wait until the parent has ended, then kill the processes marked with a folder and remove it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while os.read(parent_fd, 1):
        pass
    ends = time.monotonic() + TIMEOUT_S
    while (left := marked(folder)) and time.monotonic() < ends:
        send(left, signal.SIGKILL)
        time.sleep(CHECK_INTERVAL_S)
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def marked(folder: Path) -> list[int]:
    """Return the running processes that are marked with a folder."""
    mark = f"{MARK}={folder}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if mark in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
    return found
