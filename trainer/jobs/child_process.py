"""Fork a process that cannot outlive its parent: a function in, the exit status out.

A pipe connects the two: when the parent ends in any way, the kernel closes its end and sends SIGIO to the child's
process group, which ends it because nothing there handles that signal. A thread in the child that waits for the pipe
would need the interpreter's lock, which importing TensorFlow holds for seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
from collections.abc import Callable


class ChildProcess:
    """A forked process, in a process group of its own with all its children."""

    def __init__(self, work: Callable[[], None]) -> None:
        """Fork and run `work` in the child; the child ends with status 1 if `work` returns or raises."""
        child_end, self._parent_end = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._parent_end)
                _bind(child_end)
                work()
            finally:
                os._exit(1)
        os.close(child_end)
        with contextlib.suppress(OSError):  # the child has already done it
            os.setpgid(self._pid, self._pid)  # also here, so that kill() never signals our own group

    def status(self) -> int | None:
        """Return its wait status once it has ended, else None. Do not call it again after that."""
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        return self._close(status) if pid else None

    def kill(self) -> int:
        """Kill it and all its children, and return its wait status."""
        os.killpg(self._pid, signal.SIGKILL)
        return self._close(os.waitpid(self._pid, 0)[1])

    def _close(self, status: int) -> int:
        os.close(self._parent_end)
        return status


def _bind(pipe: int) -> None:
    os.setpgrp()
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([pipe], [], [], 0)[0]:  # the parent had already ended
        os._exit(1)
