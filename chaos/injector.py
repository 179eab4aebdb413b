"""Carry out the faults of a run, each at its time, and undo those that last for a while."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from functools import partial

import redis

from chaos.faults import LABEL, Fault
from chaos.pipeline import Pipeline
from chaos.processes import send
from chaos.server import faketime


class Injector:
    """Carry faults out from now on: call `step()` until `done`.

    Attributes:
        ended: when each fault was over, on the monotonic clock; faults that hit nothing are not in it.
    """

    def __init__(self, pipeline: Pipeline, faults: list[Fault]) -> None:
        self.ended: list[tuple[Fault, float]] = []
        self._rng = pipeline.rng
        self._processes = pipeline.processes
        self._server = pipeline.server
        self._proxy = pipeline.proxy
        self._observer = pipeline.observer
        self._began = time.monotonic()
        self._ahead = [fault for fault in faults if fault.kind != "clock" or faketime()]
        self._open: list[tuple[float, Fault, Callable[[], object]]] = []

    @property
    def done(self) -> bool:
        """Whether all faults are over."""
        return not self._ahead and not self._open

    def step(self) -> None:
        """Begin and undo what is due."""
        now_s = time.monotonic() - self._began
        for due in [one for one in self._open if one[0] <= now_s]:
            self._open.remove(due)
            self._undo(due[1], due[2])
        while self._ahead and self._ahead[0].at_s <= now_s:
            self._begin(self._ahead.pop(0))

    def stop(self) -> None:
        """Undo what is not over yet, and leave out what has not begun."""
        self._ahead = []
        for _, fault, undo in self._open:
            self._undo(fault, undo)
        self._open = []

    def _begin(self, fault: Fault) -> None:
        if fault.lasts_s:
            undo = self._lasting(fault)
            if undo is not None:
                self._open.append((fault.at_s + fault.lasts_s, fault, undo))
        elif self._at_once(fault):
            self.ended.append((fault, time.monotonic()))

    def _undo(self, fault: Fault, undo: Callable[[], object]) -> None:
        with contextlib.suppress(redis.RedisError):  # another fault has killed it meanwhile
            undo()
        self.ended.append((fault, time.monotonic()))

    def _lasting(self, fault: Fault) -> Callable[[], object] | None:
        """Begin a fault; return how it is undone, None when it hit nothing."""
        if fault.kind == "suspend":
            pids = self._processes.pids(fault.process)
            send(pids, signal.SIGSTOP)
            return partial(send, pids, signal.SIGCONT) if pids else None
        if fault.kind == "redis-kill":
            with self._observer.memory_loss():
                self._server.kill()
            return self._server.start
        if fault.kind == "refuse":
            self._proxy.refuse()
            return self._proxy.accept
        try:
            self._server.fill_memory()
        except redis.RedisError:
            return None
        return self._server.free_memory

    def _at_once(self, fault: Fault) -> bool:
        """Carry a fault out; return whether it hit anything."""
        if fault.kind in ("kill", "stop", "label-kill"):
            pids = self._processes.pids(fault.process or LABEL)
            number = signal.SIGTERM if fault.kind == "stop" else signal.SIGKILL
            send([self._rng.choice(pids)] if pids else [], number)
            return bool(pids)
        if fault.kind == "cut":
            self._proxy.cut()
        elif fault.kind == "clock":
            if fault.step_s > 0:
                self._observer.expect_expiry()
            self._server.step_clock(fault.step_s)
        else:
            try:
                with self._observer.memory_loss():
                    self._server.client.flushall()
            except redis.RedisError:
                return False
        return True
