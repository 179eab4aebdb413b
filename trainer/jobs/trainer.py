"""The trainer process: does training jobs one at a time, on a GPU or machine that no other trainer uses.

In: jobs from the jobs' Redis (`jobs_redis`, or the pipeline's). Out: run folders, registered models. When Redis fails,
it is retried; SIGTERM or Ctrl-C requeues the running job, and the next trainer continues after its last finished epoch.
Metrics report the job's progress.
"""

from __future__ import annotations

import contextlib
import logging
import os

import redis

from pipeline.bus.connection import connect, hide_password
from pipeline.runtime.logs import capture_stderr
from pipeline.runtime.settings import Settings
from pipeline.runtime.worker_context import WorkerContext, worker_context
from trainer.jobs.device import DeviceLock, devices
from trainer.jobs.worker import TrainingWorker

DEVICE_POLL_INTERVAL_S = 1.0

log = logging.getLogger(__name__)


def main(settings: Settings, redis_url: str) -> int:
    """Do training jobs until the process is stopped.

    Args:
        redis_url: where the jobs are; the heartbeat goes to the Redis of the settings.
    """
    logging.getLogger("rq.worker").setLevel(logging.WARNING)  # the worker logs the same in fewer lines
    capture_stderr()  # of TensorFlow, which writes to stderr itself
    lock = DeviceLock(devices(os.environ.get("CUDA_VISIBLE_DEVICES")))
    client = connect(redis_url)
    worker: TrainingWorker | None = None
    with worker_context("trainer", settings, redis_url=redis_url) as context:
        context.redis_location = hide_password(redis_url)
        while context.should_run():
            reached = False
            with context.reconnecting():
                worker = worker or TrainingWorker(context, client, settings.models)
                _step(context, worker, lock)
                reached = True
            if worker is not None and not reached:
                worker.postpone_maintenance()
        if worker is not None:
            with contextlib.suppress(redis.RedisError):
                worker.register_death()
    return 0


def _step(context: WorkerContext, worker: TrainingWorker, lock: DeviceLock) -> None:
    """Do a job if there is one and a free device; otherwise wait a moment for either."""
    worker.maintain()
    device = lock.acquire()
    if device is None:
        context.state = f"waits ({lock.holders})"
        context.wait(DEVICE_POLL_INTERVAL_S)
        return
    context.state = "waits for jobs"
    job = worker.next_job()
    if job is not None:
        context.state = f"trains {job.id}"
        with context.busy():
            worker.run_job(job, device)
