"""Run `maskwatch` subcommands as child processes: `demo`, `up` and `label` run a whole pipeline on one machine.

Each child runs in its own session and holds one end of a pipe, which closes however the parent dies; then the child
stops. A child that dies is restarted after a pause that grows. Children are forked where a fork server is given
(fork_server.py), and new interpreters otherwise.
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pipeline.runtime.fork_server import FORKED, ForkedProcess, ForkServer, StartFailed
from pipeline.runtime.logs import is_json
from pipeline.runtime.settings import Settings, flag_of

log = logging.getLogger(__name__)

# Started by its path: `python -m` would import what lies in the folder that the user is in.
PROGRAM = Path(__file__).parents[2] / "maskwatch.py"
STOP_TIMEOUT_S = 2.0  # a child that has not ended by then is killed
SUPERVISE_INTERVAL_S = 0.1
RESTART_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)
START_FAILURE_S = 15.0  # a child that ends with an error within this time of its first start cannot start
STEADY_S = 30.0  # after running for this long a child is restarted after the first pause again

# Children get all their settings from their parent.
NOT_INHERITED = ("MASKWATCH_METRICS_PORT", "MASKWATCH_CONFIG", "MASKWATCH_MODEL")
# Children get these through the environment, because every user of the machine can read command lines.
SECRETS = (
    *("redis_url", "database", "models", "password_hash", "session_key", "metrics_token"),
    *("label_redis", "jobs_redis"),
)
DETECT_FLAGS = ("detector", "detector_px", "score_threshold", "threads", "models", "model")
CLASSIFY_FLAGS = ("models", "model", "runtime", "max_batch", "max_wait_ms", "threads")


class ChildFailed(Exception):
    """A required child cannot start; it has logged the reason in one line."""


@dataclass(slots=True)
class _Child:
    """A child. stopped_at: when it was asked to end. extra: started beyond the first ones, and dispensable."""

    arguments: list[str]
    environment: Mapping[str, str]
    required: bool
    process: subprocess.Popen[bytes] | ForkedProcess
    started_at: float = field(default_factory=time.monotonic)
    restarts: int = 0
    restart_at: float | None = None
    stopped_at: float | None = None
    extra: bool = False


class Children(contextlib.AbstractContextManager["Children"]):
    """Start `maskwatch` subcommands, restart those that die, and stop all in the order of their start.

    A child that is not required (a camera) and exits with 0, 1 or 2 is finished: its file has ended, or it has logged
    an error that a restart would repeat. A required child that exits with 1 or 2 right after its first start cannot
    start. Any other end, including a stop from outside, is followed by a restart.
    """

    def __init__(self, forks: ForkServer | None = None) -> None:
        """Begin without a child. forks: starts them; None for new interpreters."""
        self._forks = forks
        self._children: list[_Child] = []
        self._read_end, self._write_end = os.pipe()

    def start(self, *arguments: str, environment: Mapping[str, str], required: bool = True) -> None:
        """Start `maskwatch ARGUMENTS`, with additional variables; required: the other children need this one."""
        process = self._spawn(arguments, environment)
        self._children.append(_Child(list(arguments), environment, required, process))

    def supervise(self) -> None:
        """Restart children that have died; call it repeatedly.

        Raises:
            ChildFailed: a required child cannot start.
        """
        now = time.monotonic()
        self._children = [child for child in self._children if not self._has_stopped(child, now)]
        for child in self._children:
            if child.stopped_at is not None:
                continue
            status = child.process.poll()
            if status is None or (not child.required and status in (0, 1, 2)):
                continue
            if status in (1, 2) and child.restarts == 0 and now - child.started_at < START_FAILURE_S:
                if not child.extra:
                    raise ChildFailed(child.arguments[0])
                log.warning("one more %s cannot start; the others go on", child.arguments[0])
                child.stopped_at = now
                continue
            if child.restart_at is None:
                if now - child.started_at > STEADY_S:
                    child.restarts = 0
                pause = RESTART_PAUSES_S[min(child.restarts, len(RESTART_PAUSES_S) - 1)]
                log.warning("%s ended with status %d and is restarted", child.arguments[0], status)
                child.restart_at = now + pause
            elif now >= child.restart_at:
                kill_session(child.process.pid)  # its own children may still hold its port
                child.process = self._spawn(child.arguments, child.environment)
                child.started_at, child.restart_at = now, None
                child.restarts += 1

    def pids(self, command: str) -> set[int]:
        """Return the processes that run this subcommand; those that died and are restarted count, too."""
        return {child.process.pid for child in self._running(command)}

    def start_another(self, command: str) -> None:
        """Start one more process that runs this subcommand, as the newest one does; if it cannot start, it is left out.

        Raises:
            OSError: the system has no room for another process.
        """
        newest = self._running(command)[-1]
        self.start(*newest.arguments, environment=newest.environment)
        self._children[-1].extra = True

    def stop_newest(self, command: str) -> None:
        """Ask the newest process that runs this subcommand to end; it is not restarted."""
        child = self._running(command)[-1]
        child.stopped_at = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            child.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill all children, which have nothing left to do."""
        running = [child.process for child in self._children if child.process.poll() is None]
        for process in running:
            kill_session(process.pid)
        for process in running:
            process.wait()

    def _spawn(
        self, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes] | ForkedProcess:
        if self._forks is not None and self._forks.is_possible and arguments[0] in FORKED:
            try:
                return self._forks.start(arguments, self._read_end, inherited_environment() | dict(environment))
            except StartFailed as error:
                log.warning("%s; a new interpreter runs %s", error, arguments[0])
        return spawn(arguments, self._read_end, environment)

    def _running(self, command: str) -> list[_Child]:
        return [child for child in self._children if child.arguments[0] == command and child.stopped_at is None]

    @staticmethod
    def _has_stopped(child: _Child, now: float) -> bool:
        """Return whether a child that was asked to end has ended; one that has not in time is killed."""
        if child.stopped_at is None:
            return False
        if child.process.poll() is None and now - child.stopped_at > STOP_TIMEOUT_S:
            kill_session(child.process.pid)
        return child.process.poll() is not None

    def __exit__(self, *_: object) -> None:
        """Ask all children to end, and kill those that do not in time."""
        os.close(self._write_end)
        os.close(self._read_end)
        running = [child.process for child in self._children if child.process.poll() is None]
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        ends = time.monotonic() + STOP_TIMEOUT_S
        for process in running:
            try:
                process.wait(timeout=max(0.0, ends - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("process %d did not end in %.0f s and is killed", process.pid, STOP_TIMEOUT_S)
                kill_session(process.pid)
                process.wait()


def spawn(
    arguments: Sequence[str], parent_fd: int, environment: Mapping[str, str], log_file: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    """Start `maskwatch ARGUMENTS` in a session of its own.

    Args:
        parent_fd: a pipe that closes when this process ends.
        log_file: takes what it writes to stdout and stderr; None for those of this process.
    """
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *arguments, "--parent-fd", str(parent_fd)],
        pass_fds=[parent_fd],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=log_file,
        stderr=log_file,
        env=inherited_environment() | dict(environment),
    )


def fork_server() -> ForkServer:
    """Return a fork server for Children, which begins to import at once."""
    environment = {"MASKWATCH_LOG_JSON": str(is_json()).lower()}
    return ForkServer(lambda fd: spawn(["fork-children"], fd, environment))


def inherited_environment() -> dict[str, str]:
    """Return the variables of this process that children have, too."""
    return {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}


def start_workers(
    children: Children, settings: Settings, environment: Mapping[str, str], *, detectors: int, classifiers: int
) -> None:
    """Start the workers that the settings ask for, by default these numbers. environment: see environment_of()."""
    for _ in range(settings.detectors or detectors):
        children.start("detect", *flags_of(settings, *DETECT_FLAGS), environment=environment)
    for _ in range(settings.classifiers or classifiers):
        children.start("classify", *flags_of(settings, *CLASSIFY_FLAGS), environment=environment)


@contextlib.contextmanager
def supervised(children: Children) -> Iterator[None]:
    """Supervise children in a thread while the block runs; end the block if a required one cannot start.

    To end the block, this process sends itself SIGTERM.

    Raises:
        ChildFailed: a required child cannot start.
    """
    ended = threading.Event()
    failures: list[ChildFailed] = []

    def supervise_until_ended() -> None:
        while not ended.wait(SUPERVISE_INTERVAL_S):
            try:
                children.supervise()
            except ChildFailed as error:
                failures.append(error)
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = threading.Thread(target=supervise_until_ended, name="children", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if failures:
        raise failures[0]


def flags_of(settings: Settings, *names: str) -> list[str]:
    """Return the flags that pass these settings and those of the log on to a child, except secrets."""
    flags: list[str] = []
    for name in (*(name for name in names if name not in SECRETS), "log_level", "log_json"):
        value, flag = getattr(settings, name), flag_of(name)
        if isinstance(value, bool):
            flags.append(flag if value else f"--no-{flag[2:]}")
        elif value is not None:
            flags += [flag, str(value)]
    return flags


def environment_of(settings: Settings, redis_url: str) -> dict[str, str]:
    """Return the variables that pass the URL of Redis, its shards and the secrets among the settings on to a child."""
    values = {name: getattr(settings, name) for name in (*SECRETS, "shards")} | {"redis_url": redis_url}
    return {f"MASKWATCH_{name.upper()}": str(value) for name, value in values.items() if value}


def kill_session(leader: int) -> None:
    """Kill a child and all its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
