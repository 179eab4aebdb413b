"""Carry out the faults of a run, each at its time, and undo those that last for a while."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import NamedTuple

import redis

from chaos.faults import HEARTBEATS, LABEL, Fault
from chaos.observer import Capture, is_file
from chaos.pipeline import Pipeline
from chaos.processes import send
from chaos.report import FaultReport, fault_reports
from chaos.server import faketime
from pipeline.bus.keys import PROCESSES


class Injector:
    """Carry faults out from now on: call `step()` until `done`. Faults that hit nothing are not reported."""

    def __init__(self, pipeline: Pipeline, faults: list[Fault]) -> None:
        self._rng = pipeline.rng
        self._processes = pipeline.processes
        self._server = pipeline.server
        self._proxy = pipeline.proxy
        self._observer = pipeline.observer
        self._bus = pipeline.bus
        self._began = time.monotonic()
        self._ahead = [fault for fault in faults if fault.kind != "clock" or faketime()]
        self._open: list[_Open] = []
        self._ended: list[_Ended] = []

    @property
    def done(self) -> bool:
        """Whether all faults are over, and nothing of Redis is missing."""
        return not self._ahead and not self._open and self._server.is_whole

    @property
    def loses_memory(self) -> bool:
        """Whether Redis has forgotten everything by one of the faults."""
        return any(one.fault.loses_memory for one in self._ended)

    def step(self) -> None:
        """Begin and undo what is due."""
        now_s = time.monotonic() - self._began
        for one in [one for one in self._open if one.until_s <= now_s and one.may_end()]:
            self._open.remove(one)
            self._undo(one)
        for fault in [fault for fault in self._ahead if fault.at_s <= now_s]:
            if not fault.needs_whole_redis or self._server.is_whole:
                self._ahead.remove(fault)
                self._begin(fault, now_s)

    def stop(self) -> None:
        """Leave out what has not begun, and let the rest end as soon as it may."""
        self._ahead = []
        self._open = [one._replace(until_s=0.0) for one in self._open]

    def reports(self) -> list[FaultReport]:
        """Return what each fault was, and when labelled frames came again."""
        return fault_reports([one.fault for one in self._ended], [self._recovery_s(one) for one in self._ended])

    def late_recoveries(self, limit_s: float) -> list[str]:
        """Return which deaths of primaries were followed by labels too late, as sentences.

        limit_s: from the death, or from the end of the last other fault before the labels came.
        """
        late = []
        for one in self._ended:
            recovery_s = self._recovery_s(one) if one.fault.kind == "primary-kill" else 0.0
            until = one.at + (float("inf") if recovery_s is None else recovery_s)
            since = max(other.at for other in self._ended if other.at <= until)
            if until - since > limit_s:
                late.append(f"{one.fault.text}: no new frame was labelled within {limit_s:.0f} s")
        return late

    def _begin(self, fault: Fault, now_s: float) -> None:
        if fault.kind == "primary-kill":
            self._open.append(self._kill_primary(fault, now_s + fault.lasts_s))
        elif fault.lasts_s:
            undo = self._lasting(fault)
            if undo is not None:
                self._open.append(_Open(fault, now_s + fault.lasts_s, undo))
        elif self._at_once(fault):
            self._ended.append(_Ended(fault, time.monotonic()))

    def _undo(self, one: _Open) -> None:
        with contextlib.suppress(redis.RedisError):  # another fault has killed it meanwhile
            one.undo()
        if one.fault.kind != "primary-kill":  # which is over for users when the replica takes over
            self._ended.append(_Ended(one.fault, time.monotonic()))

    def _kill_primary(self, fault: Fault, until_s: float) -> _Open:
        """Kill a primary, which may return when its replica has taken over: it comes back empty."""
        key = self._key_of(fault)
        node = self._server.primary_of(key)
        names = list(self._observer.ledgers())
        served = [name for name in names if self._server.primary_of(self._bus.shard_of(name).key("frames")) is node]
        with self._observer.failover(served):
            node.kill()
        present = [name for name in names if not is_file(name) or name == self._observer.newest_file()]
        hit = [name for name in present if name in served] or present
        self._ended.append(_Ended(fault, time.monotonic(), hit, self._observer.captured.copy()))
        return _Open(fault, until_s, node.start, lambda: self._server.primary_of(key).running)

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
            self._server.primary_of(self._key_of(fault)).step_clock(fault.step_s)
        else:
            try:
                with self._observer.memory_loss():
                    self._server.empty()
            except redis.RedisError:
                return False
        return True

    def _key_of(self, fault: Fault) -> str:
        """Return a key on the primary that a fault names by what it serves."""
        camera = self._observer.newest_file() if fault.process == LABEL else fault.process
        return PROCESSES if camera in ("", HEARTBEATS) else self._bus.shard_of(camera).key("frames")

    def _recovery_s(self, one: _Ended) -> float | None:
        if not one.cameras:
            return self._observer.labelled_after(one.at)
        times = [self._observer.labelled_after(one.at, camera, one.captured) for camera in one.cameras]
        return None if None in times else max(filter(None, times))


class _Open(NamedTuple):
    """A fault that lasts until a time since the beginning, and until it may end."""

    fault: Fault
    until_s: float
    undo: Callable[[], object]
    may_end: Callable[[], bool] = lambda: True


class _Ended(NamedTuple):
    """A fault, and when it was over on the monotonic clock; a primary's death is over at once.

    cameras, captured: those that a dead primary served, or all if it served none, and their newest frames then.
    """

    fault: Fault
    at: float
    cameras: Collection[str] = ()
    captured: Mapping[Capture, int] = {}
