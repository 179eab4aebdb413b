"""The life of a process: signals, a heartbeat, a metrics port, and going on when Redis is away.

`worker_context()` gives a `WorkerContext` for a `with` block; its loop goes on while `should_run()`. SIGTERM, SIGINT,
or the end of the parent (the other end of `parent_fd` closes) end it. Losing Redis never does: `reconnecting()` waits
and goes on. A process whose loop stands still sends no heartbeat and so does not count as live.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import resource
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any

import redis

from pipeline.bus.clock import Clock
from pipeline.bus.connection import connect, hide_password, why
from pipeline.bus.keys import heartbeat_key
from pipeline.bus.messages import PROCESSES, Heartbeat, encode
from pipeline.bus.scripts import script
from pipeline.runtime import metrics
from pipeline.runtime.logs import tell_identity
from pipeline.runtime.metrics_server import serving
from pipeline.runtime.settings import Settings
from pipeline.runtime.watchdog import STUCK_S, Watchdog

log = logging.getLogger(__name__)

# M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of glibc's malloc.h, in bytes
MALLOC = {-3: 64 << 20, -1: 256 << 20}
BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0)
QUIET_FAILURES = 4  # in a row, which take a second with these pauses
BEAT_S = 1.0
TURN_S = 1.0  # how often a loop that waits for long says that it turns
BEAT_TTL_MS = 5_000
PROCESS_RETENTION_S = 60
STOP_S = 2.5  # how long a process that was told to stop may wait for a Redis that hangs


class WorkerContext:
    """One process' means, for as long as it runs. `status` is what its heartbeat tells; change it freely."""

    def __init__(self, role: str, redis_url: str, *, camera: str | None = None) -> None:
        self.role = role
        self.id = f"{role}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.client = connect(redis_url)
        self.clock = Clock(self.client)
        self.model: str | None = None
        self.camera = camera
        self.state = "running"
        self.rates: dict[str, float] = {}
        self.redis_place = hide_password(redis_url)
        self.turns = Watchdog()
        self._stop = threading.Event()
        self._beat_script: Any = script(self.client, "beat")
        self._hard_stop = threading.Timer(STOP_S, self._give_up)
        self._hard_stop.daemon = True
        self._counts: dict[str, int] = {}
        self._failures = 0
        self._stuck = False

    def should_run(self) -> bool:
        """Return whether the process should go on; a loop asks this each time it turns."""
        self.turns.note()
        return not self._stop.is_set()

    def busy(self) -> AbstractContextManager[None]:
        """Count the block's time as work."""
        return metrics.busy.during(self.role)

    def stop(self) -> None:
        """Ask the process to end after what it is doing."""
        self._stop.set()

    def stop_soon(self) -> None:
        """Ask the process to end, and end it when it has not by itself: Redis may hang."""
        if not self._stop.is_set():
            self._stop.set()
            self._hard_stop.start()

    def _give_up(self) -> None:
        log.error("%s was told to stop and Redis at %s hangs: ended without it", self.id, self.redis_place)
        os._exit(1)

    def ended(self) -> None:
        """Tell that the process has come to its end by itself."""
        self._stop.set()
        self._hard_stop.cancel()

    def wait(self, seconds: float) -> bool:
        """Wait; True when the process should end instead of going on. However long: a loop that waits here turns."""
        ends = time.monotonic() + seconds
        while not self._stop.wait(min(TURN_S, max(0.0, ends - time.monotonic()))):
            self.turns.note()
            if time.monotonic() >= ends:
                return False
        return True

    def count(self, name: str, by: int = 1) -> None:
        """Count towards a rate that the heartbeat tells per second."""
        self._counts[name] = self._counts.get(name, 0) + by

    @contextlib.contextmanager
    def reconnecting(self) -> Iterator[None]:
        """Do something with Redis; when that fails, wait up to a second and let the loop try again.

        A failure that lasts is told once, and so is its end; a moment is what a server takes to start.
        """
        try:
            yield
        except redis.RedisError as error:
            if self._failures == QUIET_FAILURES:
                log.warning("%s; trying again until it answers", why(error, self.redis_place))
            self._stop.wait(BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)])
            self._failures += 1
            metrics.redis_up.set(0)
            return
        metrics.redis_up.set(1)
        if self._failures:
            metrics.reconnects.inc()
        if self._failures > QUIET_FAILURES:
            log.info("Redis at %s answers again", self.redis_place)
        self._failures = 0

    def beat_until_stopped(self) -> None:
        """Tell Redis once a second that this process lives, and at what rate it works; not while it is stuck."""
        started_at: float | None = None
        counted_at = time.monotonic()
        while not self._stop.is_set():
            elapsed, counted_at = time.monotonic() - counted_at, time.monotonic()
            counts, self._counts = self._counts, {}
            if elapsed > BEAT_S / 2:
                self.rates = {name: count / elapsed for name, count in counts.items()}
            if not self._is_stuck():
                with contextlib.suppress(redis.RedisError):  # the main loop tells; the next beat tries again
                    now = self.clock.now()
                    started_at = started_at or now
                    self._beat(now, started_at)
            self._stop.wait(BEAT_S)
        with contextlib.suppress(redis.RedisError):
            self.client.delete(heartbeat_key(self.id))
            self.client.zrem(PROCESSES, self.id)

    def _is_stuck(self) -> bool:
        """Look whether the loops turn; say when one no longer does, and when it does again."""
        age_s = self.turns.look()
        metrics.loop_age_s.set(age_s)
        if (age_s > STUCK_S) != self._stuck:
            self._stuck = age_s > STUCK_S
            if self._stuck:
                log.error("%s is stuck and tells no longer that it lives; it stands at %s", self.id, self.turns.place())
            else:
                log.warning("%s is no longer stuck", self.id)
        return self._stuck

    def _beat(self, now: float, started_at: float) -> None:
        beat = Heartbeat(
            role=self.role,
            id=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=started_at,
            beat_at=now,
            model=self.model,
            camera=self.camera,
            state=self.state,
            rates=self.rates,
        )
        self._beat_script(
            keys=[heartbeat_key(self.id), PROCESSES],
            args=[encode(beat), BEAT_TTL_MS, self.id, now, now - PROCESS_RETENTION_S],
        )


@contextlib.contextmanager
def worker_context(
    role: str,
    redis_url: str,
    *,
    camera: str | None = None,
    parent_fd: int | None = None,
    metrics_port: int | None = None,
    metrics_token: str | None = None,
    heartbeat: bool = True,
) -> Iterator[WorkerContext]:
    """Set a process up, give it its means, and tidy up behind it.

    Args:
        role: camera, detector, classifier, viewer or trainer.
        parent_fd: a pipe's end that closes when the parent ends; None for a process without one.
        metrics_port: where Prometheus metrics are served; None for nowhere.
        metrics_token: what their readers must show; None lets this machine alone read them.

    Raises:
        OSError: the metrics port is in use.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold pixels
    keep_memory()
    metrics.expose(role)
    context = WorkerContext(role, redis_url, camera=camera)
    tell_identity(role, context.id)
    with serving(metrics_port, metrics_token) if metrics_port is not None else contextlib.nullcontext():
        before = {number: signal.signal(number, _stopper(context)) for number in (signal.SIGTERM, signal.SIGINT)}
        if parent_fd is not None:
            threading.Thread(target=_watch_parent, args=(parent_fd, context), name="parent", daemon=True).start()
        beating = threading.Thread(target=context.beat_until_stopped, name="heartbeat", daemon=True)
        if heartbeat:
            beating.start()
        log.info("%s started, Redis at %s", context.id, context.redis_place)
        try:
            yield context
        finally:
            context.stop()
            if heartbeat:
                beating.join(timeout=1.0)
            with contextlib.suppress(redis.RedisError):
                context.client.close()
            for number, handler in before.items():
                signal.signal(number, handler)
            context.ended()
            log.info("%s ended", context.id)


def worker_context_from(
    role: str, settings: Settings, *, redis_url: str = "", camera: str | None = None
) -> AbstractContextManager[WorkerContext]:
    """Return worker_context() as the settings say, at redis_url where they name none."""
    return worker_context(
        role,
        settings.redis_url or redis_url,
        camera=camera,
        parent_fd=settings.parent_fd,
        metrics_port=settings.metrics_port,
        metrics_token=settings.metrics_token,
    )


def keep_memory() -> None:
    """Let the C library keep freed memory for the next frame, where it is glibc.

    By default each picture's memory goes back to the system and is asked for again, page by page; for 720p that is a
    tenth of a worker's time. See mallopt(3).
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library: its own way is as good
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in MALLOC.items():
            mallopt(parameter, value)


def _stopper(context: WorkerContext) -> Callable[[int, FrameType | None], None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        context.stop_soon()

    return stop


def _watch_parent(fd: int, context: WorkerContext) -> None:
    """End with the parent: its end of the pipe closes however it dies, kill -9 included."""
    with contextlib.suppress(OSError):
        while os.read(fd, 1):
            pass
    context.stop_soon()
