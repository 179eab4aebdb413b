"""The processes of a run: `maskwatch` subcommands, started again whenever they end, each with a log of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.runtime.children import kill_session, spawn

RESTART_PAUSE_S = 0.2


@dataclass(slots=True)
class _Child:
    arguments: tuple[str, ...]
    restarted: bool
    process: subprocess.Popen[bytes]
    ended_at: float | None = None


class Processes(contextlib.AbstractContextManager["Processes"]):
    """Start processes by name, and kill them all when the block ends; if this process dies, they stop.

    Args:
        logs: the folder of their logs.
        environment: additional variables.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs = logs
        self._environment = environment
        self._children: dict[str, _Child] = {}
        self._read_end, self._write_end = os.pipe()

    def start(self, name: str, *arguments: str, restarted: bool = True) -> None:
        """Start `maskwatch ARGUMENTS`. restarted: whenever it ends."""
        self._children[name] = _Child(arguments, restarted, self._spawn(name, arguments))

    def supervise(self) -> None:
        """Start what has ended again; call it repeatedly."""
        now = time.monotonic()
        for name, child in self._children.items():
            if not child.restarted or child.process.poll() is None:
                continue
            child.ended_at = child.ended_at or now
            if now - child.ended_at >= RESTART_PAUSE_S:
                kill_session(child.process.pid)
                child.process, child.ended_at = self._spawn(name, child.arguments), None

    def names(self) -> list[str]:
        """Return the names of those that are started again."""
        return [name for name, child in self._children.items() if child.restarted]

    def status(self, name: str) -> int | None:
        """Return how a process ended; None while it runs."""
        return self._children[name].process.poll()

    def pids(self, name: str) -> list[int]:
        """Return a process and those that it has started; none when it has ended."""
        child = self._children.get(name)
        return [] if child is None or child.process.poll() is not None else family(child.process.pid)

    def __exit__(self, *_: object) -> None:
        """Kill all processes, and what they have started."""
        os.close(self._write_end)
        for child in self._children.values():
            kill_session(child.process.pid)
        for child in self._children.values():
            child.process.wait()
        os.close(self._read_end)

    def _spawn(self, name: str, arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
        with (self._logs / f"{name}.log").open("ab") as log_file:
            return spawn(arguments, self._read_end, self._environment, log_file)


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return [pid]
    return [pid, *(found for child in map(int, children) for found in family(child))]


def send(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to those of some processes that still run."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
