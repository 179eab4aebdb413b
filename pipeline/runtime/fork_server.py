"""Start processes by forking one that has imported what they need, instead of as new interpreters.

A subcommand's arguments and environment in, its process out. Importing the libraries of a worker takes more processor
time than loading its model, and here it is done once, while the command goes on. The other processes share what all
import.

The fork server is a child process (`maskwatch fork-children`, hidden), in a session of its own. It forks twice, so that
the new process becomes a child of the command, which is set to be the parent of its orphaned descendants
(https://man7.org/linux/man-pages/man2/pr_set_child_subreaper.2const.html). Therefore it does not need the fork server
any more once it runs: if that dies, the next start begins with a new one. Where a start fails, StartFailed is raised,
and a new interpreter does the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
from setproctitle import setproctitle

# The subcommands that are started so, and what the workers among them import.
FORKED = ("camera", "view", "record", "detect", "classify")
MODULES = {"detect": "workers.detect", "classify": "workers.classify"}
IMPORT_AFTER_S = 0.02  # without a request; those of `up` begin with processes that need other modules
START_TIMEOUT_S = 20.0  # for an answer of the fork server; it imports for about a second
PR_SET_CHILD_SUBREAPER = 36  # of prctl
PID_BYTES = 8
WAIT_INTERVAL_S = 0.005  # between two looks at a process that is waited for

# Starts the fork server: a file descriptor that it inherits in, its process out.
Spawn = Callable[[int], "subprocess.Popen[bytes]"]


class StartFailed(OSError):
    """The fork server did not start a process; says why."""


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    """A process to start. environment: all of its variables."""

    arguments: list[str]
    environment: dict[str, str]


class ForkServer(contextlib.AbstractContextManager["ForkServer"]):
    """Start processes while the block runs. Imports begin with the block. For one thread at a time.

    Attributes:
        is_possible: whether processes can be forked on this system. Otherwise every start fails.
    """

    def __init__(self, spawn: Spawn, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start the fork server. timeout_s: for each process that is started."""
        self._spawn = spawn
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self.is_possible = _adopt_orphans()
        if self.is_possible:
            self._begin()

    @property
    def pid(self) -> int | None:
        """The fork server's process; None if there is none."""
        return self._process.pid if self._process is not None else None

    def start(self, arguments: Sequence[str], parent_fd: int, environment: Mapping[str, str]) -> ForkedProcess:
        """Start `maskwatch ARGUMENTS`; wait until it runs.

        Args:
            parent_fd: a pipe that closes when this process ends.
            environment: all of the process' variables.

        Raises:
            StartFailed: it does not run.
        """
        if not self.is_possible:
            raise StartFailed("this system cannot fork processes")
        request = msgspec.json.encode(_Request(arguments=list(arguments), environment=dict(environment)))
        try:
            return ForkedProcess(self._ask(request, parent_fd))
        except ConnectionError:  # it has died, perhaps long ago
            self._end()
        except OSError as error:
            raise self._failure(error) from error
        try:
            self._begin()
            return ForkedProcess(self._ask(request, parent_fd))
        except OSError as error:
            raise self._failure(error) from error

    def __exit__(self, *_: object) -> None:
        """End the fork server; what it has started goes on."""
        self._end()

    def _begin(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(self._timeout_s)
        self._socket = ours
        with theirs:
            self._process = self._spawn(theirs.fileno())

    def _ask(self, request: bytes, parent_fd: int) -> int:
        """Return the process ID of what was started."""
        if self._socket is None:
            raise ConnectionError("there is none")
        content = os.memfd_create("maskwatch-request", os.MFD_CLOEXEC)  # a message would limit the environment
        try:
            os.write(content, request)
            socket.send_fds(self._socket, [b"\0"], [content, parent_fd])
        finally:
            os.close(content)
        answer = self._socket.recv(1024)
        if len(answer) != PID_BYTES:
            raise OSError(answer.decode()) if answer else ConnectionError("it has ended")
        return int.from_bytes(answer, "big")

    def _failure(self, error: OSError) -> StartFailed:
        self._end()
        return StartFailed(f"the fork server failed: {error}")

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._socket = self._process = None


class ForkedProcess:
    """A process that was forked; of the interface of subprocess.Popen what its users need. For one thread at a time."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def poll(self) -> int | None:
        """Return the status with which it ended, negative for a signal; None while it runs."""
        return self._reap(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, up to `timeout` seconds, and return its status; raise TimeoutExpired after it."""
        ends = None if timeout is None else time.monotonic() + timeout
        while (status := self._reap(os.WNOHANG if ends else 0)) is None:
            if ends is not None and time.monotonic() >= ends:
                raise subprocess.TimeoutExpired("maskwatch", timeout or 0.0)
            time.sleep(WAIT_INTERVAL_S)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _reap(self, how: int) -> int | None:
        if self._status is None:
            pid, status = os.waitpid(self.pid, how)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status


def serve_forks(parent_fd: int) -> None:
    """Fork a process for each request, until the command's end of the socket closes.

    MODULES are imported when nothing is asked for, and before a worker is forked.
    It returns in the fork server only: in a new process SystemExit goes through it, or the error that ends the process.
    """
    server = os.getpid()
    with socket.socket(fileno=parent_fd) as connection:
        if not select.select([connection], [], [], IMPORT_AFTER_S)[0]:
            _import_modules()
        while True:
            message, fds, _, _ = socket.recv_fds(connection, 1, 2)
            if not message:
                return
            content, parent = fds
            with os.fdopen(content, "rb") as file:
                file.seek(0)
                request = msgspec.json.decode(file.read(), type=_Request)
            if request.arguments[0] in MODULES:
                _import_modules()
            try:
                answer = _fork_twice(connection, request, parent)
            except OSError as error:
                if os.getpid() != server:
                    raise
                answer = str(error).encode()
            os.close(parent)
            connection.send(answer)


def _import_modules() -> None:
    for name in MODULES.values():
        importlib.import_module(name)


def _fork_twice(connection: socket.socket, request: _Request, parent_fd: int) -> bytes:
    """Start a process whose parent is the command; return its process ID, PID_BYTES, once both are true."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as from_process:
        between = os.fork()
        if between == 0:
            from_process.close()
            _start_process(connection, request, parent_fd, write_end)
        os.close(write_end)
        os.waitpid(between, 0)
        answer = from_process.read()
    if not answer:
        raise OSError("the process ended at once")
    return answer


def _start_process(connection: socket.socket, request: _Request, parent_fd: int, write_end: int) -> None:
    """Fork again, and be the new process in the second one; the first one ends."""
    try:
        if os.fork():
            os._exit(0)
        os.setsid()
        os.write(write_end, os.getpid().to_bytes(PID_BYTES, "big"))
    except OSError:
        os._exit(1)
    os.close(write_end)
    connection.close()
    sys.argv = ["maskwatch", *request.arguments, "--parent-fd", str(parent_fd)]
    setproctitle(" ".join(sys.argv))  # before the environment, in whose memory a title has room
    os.environ.clear()
    os.environ.update(request.environment)
    runpy.run_module("maskwatch", run_name="__main__", alter_sys=True)


def _adopt_orphans() -> bool:
    """Make this process the parent of its orphaned descendants; return whether the system can."""
    return sys.platform == "linux" and not ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
