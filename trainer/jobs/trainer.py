"""The trainer process: does one training job after the other, on a GPU or machine that no other trainer uses.

In: jobs from the jobs' Redis (`jobs_redis`, or the one of everything else). Out: run folders, registered models. Redis
that fails is waited for; SIGTERM or Ctrl-C puts the job that runs back, and whoever takes it next goes on from its last
finished epoch. Metrics tell how far the job is.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator

import redis

from pipeline.bus.connection import connect, hide_password
from pipeline.runtime import metrics
from pipeline.runtime.logs import capture_stderr
from pipeline.runtime.settings import Settings
from pipeline.runtime.worker_context import WorkerContext, worker_context
from trainer.jobs.device import DeviceLock, devices
from trainer.jobs.job_spec import find
from trainer.jobs.worker import TrainingWorker

DEVICE_S = 1.0  # how often a trainer without a device looks for one
FOLLOW_S = 1.0  # how often it is read how far a job is

log = logging.getLogger(__name__)


def main(settings: Settings, redis_url: str) -> int:
    """Do training jobs until told to stop.

    Args:
        redis_url: where the jobs are; the heartbeat goes to the Redis of the settings.
    """
    logging.getLogger("rq.worker").setLevel(logging.WARNING)  # what it tells of each job is told here, shorter
    capture_stderr()  # TensorFlow writes some itself
    lock = DeviceLock(devices(os.environ.get("CUDA_VISIBLE_DEVICES")))
    client = connect(redis_url)
    worker: TrainingWorker | None = None
    with worker_context("trainer", settings, redis_url=redis_url) as run:
        run.redis_location = hide_password(redis_url)
        following = Following(run, redis_url)
        while run.should_run():
            reached = False
            with run.reconnecting():
                worker = worker or TrainingWorker(run, client, settings.models)
                step(run, worker, lock, following)
                reached = True
            if worker is not None and not reached:
                worker.postpone_maintenance()
        if worker is not None:
            with contextlib.suppress(redis.RedisError):
                worker.register_death()  # type: ignore[no-untyped-call]  # rq's
    return 0


def step(run: WorkerContext, worker: TrainingWorker, lock: DeviceLock, following: Following) -> None:
    """Do a job, if this trainer has a device and a job waits; else wait for either for a moment."""
    worker.maintain()
    device = lock.take()
    if device is None:
        run.state = f"waits ({lock.holders})"
        run.wait(DEVICE_S)
        return
    run.state = "waits for jobs"
    job = worker.next_job()
    if job is not None:
        run.state = f"trains {job.id}"
        with run.busy(), following.job(job.id):
            worker.do(job, device)


class Following:
    """Tell in this process' metrics how far the job is that its horse trains, by what that writes into Redis."""

    def __init__(self, run: WorkerContext, redis_url: str) -> None:
        """Follow the jobs of a process. redis_url: where the jobs are."""
        self._run = run
        self._redis_url = redis_url

    @contextlib.contextmanager
    def job(self, job_id: str) -> Iterator[None]:
        """Follow a job while the block runs."""
        ended = threading.Event()
        thread = threading.Thread(target=self._follow, args=(job_id, ended), name="progress", daemon=True)
        metrics.job_running.set(1)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(FOLLOW_S)
            for metric in (metrics.job_running, metrics.job_epoch, metrics.job_epochs):
                metric.set(0)

    def _follow(self, job_id: str, ended: threading.Event) -> None:
        """Read how far a job is, with a connection of its own: the horse inherits the other."""
        with connect(self._redis_url) as client:
            while not ended.wait(FOLLOW_S):
                with contextlib.suppress(redis.RedisError):  # the main loop tells
                    job = find(client, job_id)
                    if job is not None and not ended.is_set():
                        metrics.job_epoch.set(job.meta.get("epoch") or 0)
                        metrics.job_epochs.set(job.meta.get("epochs") or 0)
