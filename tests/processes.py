"""Start maskwatch's processes in tests, and check what they leave behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Server, wait_until

from pipeline.bus.status import read_heartbeats

Process = subprocess.Popen[str]


class Processes:
    """Processes of one test; those still running in the end are killed with their children."""

    def __init__(self, folder: Path) -> None:
        self.temporary = folder / "t"
        self.temporary.mkdir()
        self._environment = os.environ | {"TMPDIR": str(self.temporary)}
        self._started: list[Process] = []

    def start(self, *arguments: object, redis: Server | None = None) -> Process:
        where = ["--redis", redis.url] if redis else []
        with (self.temporary.parent / f"{len(self._started)}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "maskwatch", *map(str, arguments), *where],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def log(self) -> str:
        """Return what all processes have logged so far."""
        return "".join(path.read_text() for path in sorted(self.temporary.parent.glob("*.log")))

    def end(self) -> None:
        """Kill what is left."""
        for process in self._started:
            for pid in [process.pid, *descendants(process.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def processes() -> Iterator[Processes]:
    folder = Path(tempfile.mkdtemp(prefix="mw-"))  # pytest's own folders are too long for a socket's name
    found = Processes(folder)
    yield found
    found.end()
    shutil.rmtree(folder)


def live(server: Server, role: str, count: int = 1) -> bool:
    """Return whether at least `count` processes of a role are alive."""
    return sum(beat.role == role for beat in read_heartbeats(server.client)) >= count


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and theirs."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [found for child in map(int, children) for found in (child, *descendants(child))]


def gone(pids: list[int]) -> bool:
    """Return whether none of these processes runs any more; a zombie does not run."""
    return not any(_runs(pid) for pid in pids)


def wait_for_workers(server: Server, detectors: int = 1, classifiers: int = 1) -> None:
    """Wait until workers of both kinds live."""
    wait_until(lambda: live(server, "detector", detectors), 60, f"{detectors} detectors live")
    wait_until(lambda: live(server, "classifier", classifiers), 60, f"{classifiers} classifiers live")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
