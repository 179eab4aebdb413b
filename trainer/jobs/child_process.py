"""A process forked from this one that cannot outlive it: what it does in, its exit status out.

The two are bound by a pipe whose one end this process holds: when that is closed, however this process dies, the kernel
sends SIGIO to all of the other's process group, which nothing there catches. A thread that waits for the pipe would
need the interpreter's lock, which importing TensorFlow holds for seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
from collections.abc import Callable


class ChildProcess:
    """A forked process, in a process group of its own with all that it starts."""

    def __init__(self, work: Callable[[], None]) -> None:
        """Fork. work: what the process does; it ends itself, or else with status 1."""
        their_end, self._our_end = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._our_end)
                _bind(their_end)
                work()
            finally:
                os._exit(1)
        os.close(their_end)
        with contextlib.suppress(OSError):  # it was faster
            os.setpgid(self._pid, self._pid)  # both do it, so that end() never means our own group

    def status(self) -> int | None:
        """Return how it ended, as waitpid() tells it; None while it runs. Not to be called again after that."""
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        return self._gone(status) if pid else None

    def end(self) -> int:
        """Kill it with all that it started, and return its status."""
        os.killpg(self._pid, signal.SIGKILL)
        return self._gone(os.waitpid(self._pid, 0)[1])

    def _gone(self, status: int) -> int:
        os.close(self._our_end)
        return status


def _bind(pipe: int) -> None:
    os.setpgrp()
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([pipe], [], [], 0)[0]:  # the other end was closed before that
        os._exit(1)
