"""Processes that start processes: `demo`, `up` and `label` run a whole pipeline on one machine.

Each child runs in its own session and holds one end of a pipe; when the parent ends, however it dies, the pipe closes
and the child stops. A child that dies is started again, with growing pauses.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from pipeline.runtime.settings import Settings

log = logging.getLogger(__name__)

STOP_S = 2.0  # a child that has not ended by then is killed
SUPERVISE_INTERVAL_S = 0.1  # how often children are looked after
RESTART_S = (0.2, 0.5, 1.0, 2.0, 5.0)  # pauses before a child that died is started again
REFUSES_WITHIN_S = 15.0  # a child that ends with an error within this time of its first start could not start
STEADY_S = 30.0  # a child that ran so long starts again at the first pause


NOT_INHERITED = ("MASKWATCH_METRICS_PORT", "MASKWATCH_CONFIG")  # children are told all they need by flags
DETECT_FLAGS = ("detector", "detector_px", "score_threshold", "threads", "models")
CLASSIFY_FLAGS = ("models", "runtime", "max_batch", "max_wait_ms", "threads")


class ChildFailed(Exception):
    """A process that the others cannot do without has refused to start; it has said why itself, in one line."""


@dataclass(slots=True)
class _Child:
    arguments: list[str]
    needed: bool
    process: subprocess.Popen[bytes]
    started_at: float = field(default_factory=time.monotonic)
    restarts: int = 0
    restart_at: float | None = None


class Children:
    """Start `maskwatch` subcommands, keep them running, and stop them in the end, in the order they were started.

    A child that is not needed (a camera) and ends with 0, 1 or 2 is done: its file has ended, or it has said what is
    wrong and would say it again. A needed one that ends with 1 or 2 right after its first start refuses to start. Any
    other end is an accident, a stop from outside included, and the child is started again.
    """

    def __init__(self) -> None:
        self._children: list[_Child] = []
        self._read_end, self._write_end = os.pipe()

    def __enter__(self) -> Children:
        """Start nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all children."""
        self.stop()

    def start(self, *arguments: str, needed: bool = True) -> None:
        """Start `maskwatch ARGUMENTS`. needed: without this child the others have nothing to do."""
        self._children.append(_Child(list(arguments), needed, self._spawn(arguments)))

    def supervise(self) -> None:
        """Start children again that died; call it every now and then.

        Raises:
            ChildFailed: a needed child refused to start.
        """
        now = time.monotonic()
        for child in self._children:
            status = child.process.poll()
            if status is None or (not child.needed and status in (0, 1, 2)):
                continue
            if status in (1, 2) and child.restarts == 0 and now - child.started_at < REFUSES_WITHIN_S:
                raise ChildFailed(child.arguments[0])
            if child.restart_at is None:
                if now - child.started_at > STEADY_S:
                    child.restarts = 0
                pause = RESTART_S[min(child.restarts, len(RESTART_S) - 1)]
                log.warning("%s ended with status %d, starting it again", child.arguments[0], status)
                child.restart_at = now + pause
            elif now >= child.restart_at:
                kill_session(child.process.pid)  # what a killed child had started may still hold its port
                child.process = self._spawn(child.arguments)
                child.started_at, child.restart_at = now, None
                child.restarts += 1

    def stop(self) -> None:
        """Ask all children to end, and kill those that do not."""
        if self._write_end < 0:
            return
        os.close(self._write_end)
        os.close(self._read_end)
        self._write_end = -1
        running = [child.process for child in self._children if child.process.poll() is None]
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        ends = time.monotonic() + STOP_S
        for process in running:
            try:
                process.wait(timeout=max(0.0, ends - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("process %d did not end in %.0f s and is killed", process.pid, STOP_S)
                kill_session(process.pid)
                process.wait()

    def _spawn(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "maskwatch", *arguments, "--parent-fd", str(self._read_end)],
            pass_fds=[self._read_end],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name not in NOT_INHERITED},
        )


def start_workers(
    children: Children, settings: Settings, common: Sequence[str], *, detectors: int, classifiers: int
) -> None:
    """Start as many workers as the settings say, or the given numbers. common: flags of every child."""
    for _ in range(settings.detectors or detectors):
        children.start("detect", *flags_of(settings, *DETECT_FLAGS), *common)
    for _ in range(settings.classifiers or classifiers):
        children.start("classify", *flags_of(settings, *CLASSIFY_FLAGS), *common)


@contextlib.contextmanager
def supervised(children: Children) -> Iterator[None]:
    """Look after children while the block runs, in a thread; a needed one that refuses to start ends the block.

    The block's own process gets SIGTERM for that, as if a user had stopped it.

    Raises:
        ChildFailed: a needed child refused to start.
    """
    ended = threading.Event()
    refused: list[ChildFailed] = []

    def tend() -> None:
        while not ended.wait(SUPERVISE_INTERVAL_S):
            try:
                children.supervise()
            except ChildFailed as error:
                refused.append(error)
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = threading.Thread(target=tend, name="children", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if refused:
        raise refused[0]


def flags_of(settings: Settings, *names: str) -> list[str]:
    """Return the flags that give a child process these settings."""
    flags: list[str] = []
    for name in names:
        value, flag = getattr(settings, name), "--" + name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(flag if value else f"--no-{flag[2:]}")
        elif value is not None:
            flags += [flag, str(value)]
    return flags


def kill_session(leader: int) -> None:
    """Kill a child with everything it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
