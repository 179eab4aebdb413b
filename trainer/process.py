"""The trainer process: does one training job after the other, on a GPU or machine that no other trainer uses.

In: jobs from the jobs' Redis (`jobs_redis`, or the one of everything else). Out: run folders, registered models. Redis
that fails is waited for; SIGTERM or Ctrl-C puts the job that runs back, and whoever takes it next goes on from its last
finished epoch.
"""

from __future__ import annotations

import contextlib
import logging
import os

import redis

from pipeline.process import Running, connect, hide_password, running
from pipeline.settings import Settings
from trainer.queue.device import DeviceLock, devices
from trainer.queue.worker import TrainingWorker

DEVICE_S = 1.0  # how often a trainer without a device looks for one

log = logging.getLogger(__name__)


def main(settings: Settings, redis_url: str) -> int:
    """Do training jobs until told to stop.

    Args:
        redis_url: where the jobs are; the heartbeat goes to the Redis of the settings.
    """
    logging.getLogger("rq.worker").setLevel(logging.WARNING)  # what it tells of each job is told here, shorter
    lock = DeviceLock(devices(os.environ.get("CUDA_VISIBLE_DEVICES")))
    client = connect(redis_url)
    worker: TrainingWorker | None = None
    with running(
        "trainer", settings.redis_url or redis_url, parent_fd=settings.parent_fd, metrics_port=settings.metrics_port
    ) as run:
        run.redis_place = hide_password(redis_url)
        while run.going():
            reached = False
            with run.reconnecting():
                worker = worker or TrainingWorker(run, client, settings.models)
                step(run, worker, lock)
                reached = True
            if worker is not None and not reached:
                worker.postpone_maintenance()
        if worker is not None:
            with contextlib.suppress(redis.RedisError):
                worker.register_death()  # type: ignore[no-untyped-call]  # rq's
    return 0


def step(run: Running, worker: TrainingWorker, lock: DeviceLock) -> None:
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
        worker.do(job, device)
