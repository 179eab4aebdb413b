"""The life of a process: signals, heartbeat, metrics port, and waiting while Redis is away.

`worker_context()` yields a `WorkerContext` for a `with` block, whose loop runs while `should_run()`. SIGTERM, SIGINT or
the end of the parent (the other end of `parent_fd` closes) end the loop. A lost Redis does not: `reconnecting()` waits
and lets the loop retry.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

import redis

from pipeline.bus.connection import connect, describe_error, hide_password
from pipeline.bus.messages import Heartbeat
from pipeline.bus.shards import Bus
from pipeline.runtime import metrics
from pipeline.runtime.heartbeat import send_heartbeats
from pipeline.runtime.logs import set_log_identity
from pipeline.runtime.memory import keep_memory
from pipeline.runtime.metrics_server import serve_metrics
from pipeline.runtime.redaction import redact
from pipeline.runtime.settings import Settings
from pipeline.runtime.slow_rate import SlowRate
from pipeline.runtime.stop_signals import calling_on_stop_signals
from pipeline.runtime.watchdog import Watchdog

log = logging.getLogger(__name__)

BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0)
QUIET_FAILURES = 4  # failures in a row that are not logged; with these pauses they take a second
KICK_INTERVAL_S = 1.0  # how often a waiting loop kicks the watchdog
STOP_TIMEOUT_S = 2.5  # how long a process that is asked to stop may wait for a Redis that hangs


class WorkerContext:
    """What the loop of a process needs.

    Attributes:
        model, camera, state, rates, busy_share: what the heartbeat reports; the process may change the first four.
        bus: the pipeline's data in Redis. clock: Redis' clock.
        redis_location: the URL of Redis without its password.
        hard_stop: ends a process that was asked to stop and hangs; to be cancelled when it has ended by itself.
    """

    def __init__(self, role: str, redis_url: str, *, camera: str | None = None, shards: int | None = None) -> None:
        self.role = role
        self.id = f"{role}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.client = connect(redis_url)
        self.bus = Bus(self.client, shards)
        self.clock = self.bus.clock
        self.model: str | None = None
        self.camera = camera
        self.state = "running"
        self.rates: dict[str, float] = {}
        self.busy_share = 0.0
        self.redis_location = hide_password(redis_url)
        self.watchdog = Watchdog()
        self._stop = threading.Event()
        self._stop_lock = threading.Lock()
        self.hard_stop = threading.Timer(STOP_TIMEOUT_S, self._exit_now)
        self.hard_stop.daemon = True
        self._counts: dict[str, int] = {}
        self._slow_rates: dict[str, SlowRate] = {}
        self._counted_at = time.monotonic()
        self._busy_s = 0.0
        self._started_at: float | None = None
        self._failures = 0

    def should_run(self) -> bool:
        """Return whether the process should continue; a loop calls this in every iteration."""
        self.watchdog.kick()
        return not self._stop.is_set()

    def busy(self) -> AbstractContextManager[None]:
        """Count the block's time as work."""
        return metrics.busy.during(self.role)

    def request_stop(self) -> None:
        """Ask the process to end after its current work."""
        self._stop.set()

    def request_stop_with_timeout(self) -> None:
        """Ask the process to end, and exit if it has not ended in time, since Redis may hang.

        It takes locks, so a signal handler must not call it.
        """
        with self._stop_lock:  # a signal may come while the parent ends
            if not self._stop.is_set():
                self._stop.set()
                self.hard_stop.start()

    def _exit_now(self) -> None:
        log.error("%s exits without settling: it was asked to stop, and %s hangs", self.id, self.redis_location)
        os._exit(1)

    def wait(self, seconds: float) -> bool:
        """Wait, kicking the watchdog; return early with True when the process should end."""
        ends = time.monotonic() + seconds
        while not self._stop.wait(min(KICK_INTERVAL_S, max(0.0, ends - time.monotonic()))):
            self.watchdog.kick()
            if time.monotonic() >= ends:
                return False
        return True

    def count(self, name: str, by: int = 1) -> None:
        """Count towards a rate of the heartbeat."""
        self._counts[name] = self._counts.get(name, 0) + by
        self._slow_rates.setdefault(name, SlowRate()).note(time.monotonic())

    @contextlib.contextmanager
    def reconnecting(self) -> Iterator[None]:
        """Use Redis in the block; when that fails, wait up to a second and return, so that the loop retries.

        A failure that lasts is logged once, and so is the recovery.
        """
        try:
            yield
        except redis.RedisError as error:
            if self._failures == QUIET_FAILURES:
                log.warning("%s; trying again until it answers", describe_error(error, self.redis_location))
            self._stop.wait(BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)])
            self._failures += 1
            metrics.redis_up.set(0)
            return
        metrics.redis_up.set(1)
        if self._failures:
            metrics.reconnects.inc()
            self.clock.expire()
        if self._failures > QUIET_FAILURES:
            log.info("Redis at %s answers again", self.redis_location)
        self._failures = 0

    def send_heartbeats(self) -> None:
        """Send heartbeats until the process should end."""
        send_heartbeats(self.bus, self.watchdog, self.id, self._heartbeat, self._stop)

    def _heartbeat(self, now: float) -> Heartbeat:
        self._started_at = self._started_at or now
        elapsed_s = time.monotonic() - self._counted_at
        if elapsed_s > 0.5:  # else the rates would be too coarse
            counts, self._counts = self._counts, {}
            self._counted_at += elapsed_s
            slow = {name: rate for name, one in self._slow_rates.copy().items() if (rate := one.get(self._counted_at))}
            self.rates = {name: count / elapsed_s for name, count in counts.items()} | slow
            before_s, self._busy_s = self._busy_s, metrics.busy.seconds(self.role)
            self.busy_share = min(1.0, max(0.0, (self._busy_s - before_s) / elapsed_s))
        return Heartbeat(
            role=self.role,
            id=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            beat_at=now,
            model=self.model,
            camera=self.camera,
            state=redact(self.state),
            rates=self.rates,
            busy=self.busy_share,
        )


@contextlib.contextmanager
def worker_context(
    role: str, settings: Settings, *, redis_url: str = "", camera: str | None = None, heartbeat: bool = True
) -> Iterator[WorkerContext]:
    """Set a process up, yield its context, and clean up.

    Args:
        role: camera, detector, classifier, viewer, recorder or trainer.
        redis_url: used if the settings name no Redis.

    Raises:
        OSError: the metrics port is in use.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would contain pixels
    keep_memory()
    metrics.register_metrics(role)
    context = WorkerContext(role, settings.redis_url or redis_url, camera=camera, shards=settings.shards)
    set_log_identity(role, context.id)
    port, parent_fd = settings.metrics_port, settings.parent_fd
    with (
        serve_metrics(port, settings.metrics_token) if port is not None else contextlib.nullcontext(),
        calling_on_stop_signals(context.request_stop_with_timeout),
    ):
        if parent_fd is not None:
            threading.Thread(target=_watch_parent, args=(parent_fd, context), name="parent", daemon=True).start()
        sender = threading.Thread(target=context.send_heartbeats, name="heartbeat", daemon=True)
        if heartbeat:
            sender.start()
        log.info("%s started, Redis at %s", context.id, context.redis_location)
        try:
            yield context
        finally:
            context.request_stop()
            if heartbeat:
                sender.join(timeout=1.0)
            with contextlib.suppress(redis.RedisError):
                context.client.close()
            context.hard_stop.cancel()
            log.info("%s ended", context.id)


def _watch_parent(fd: int, context: WorkerContext) -> None:
    """Stop when the parent's end of the pipe closes, which it does however the parent dies."""
    with contextlib.suppress(OSError):
        while os.read(fd, 1):
            pass
    context.request_stop_with_timeout()
