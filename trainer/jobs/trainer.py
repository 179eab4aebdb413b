"""The trainer process: does training jobs one at a time, on a GPU or machine that no other trainer uses.

In: jobs from the jobs' Redis (`jobs_redis`, or the pipeline's). Out: run folders, registered models. When Redis fails,
it is retried; SIGTERM or Ctrl-C requeues the running job, and the next trainer continues after its last finished epoch.
Metrics report the job's progress.
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
from pipeline.runtime.logs import gather_foreign_lines
from pipeline.runtime.settings import Settings
from pipeline.runtime.worker_context import WorkerContext, worker_context_from
from trainer.jobs.device import DeviceLock, devices
from trainer.jobs.job_spec import find
from trainer.jobs.worker import TrainingWorker

DEVICE_POLL_INTERVAL_S = 1.0
PROGRESS_POLL_INTERVAL_S = 1.0

log = logging.getLogger(__name__)


def main(settings: Settings, redis_url: str) -> int:
    """Do training jobs until the process is stopped.

    Args:
        redis_url: where the jobs are; the heartbeat goes to the Redis of the settings.
    """
    logging.getLogger("rq.worker").setLevel(logging.WARNING)  # the worker logs the same in fewer lines
    gather_foreign_lines()  # of TensorFlow, which writes to stderr itself
    lock = DeviceLock(devices(os.environ.get("CUDA_VISIBLE_DEVICES")))
    client = connect(redis_url)
    worker: TrainingWorker | None = None
    with worker_context_from("trainer", settings, redis_url=redis_url) as context:
        context.redis_place = hide_password(redis_url)
        while context.should_run():
            reached = False
            with context.reconnecting():
                worker = worker or TrainingWorker(context, client, settings.models)
                _step(context, worker, lock, redis_url)
                reached = True
            if worker is not None and not reached:
                worker.postpone_maintenance()
        if worker is not None:
            with contextlib.suppress(redis.RedisError):
                worker.register_death()
    return 0


def _step(context: WorkerContext, worker: TrainingWorker, lock: DeviceLock, redis_url: str) -> None:
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
        with context.busy(), _progress_metrics(job.id, redis_url):
            worker.do(job, device)


@contextlib.contextmanager
def _progress_metrics(job_id: str, redis_url: str) -> Iterator[None]:
    """Copy a job's progress, which its horse writes to Redis, into this process's metrics while a block runs."""
    ended = threading.Event()
    thread = threading.Thread(target=_poll_progress, args=(job_id, redis_url, ended), name="progress", daemon=True)
    metrics.job_running.set(1)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(PROGRESS_POLL_INTERVAL_S)
        for metric in (metrics.job_running, metrics.job_epoch, metrics.job_epochs):
            metric.set(0)


def _poll_progress(job_id: str, redis_url: str, ended: threading.Event) -> None:
    with connect(redis_url) as client:  # of its own, because the horse inherits the other connection
        while not ended.wait(PROGRESS_POLL_INTERVAL_S):
            with contextlib.suppress(redis.RedisError):  # the main loop reports it
                job = find(client, job_id)
                if job is not None and not ended.is_set():
                    metrics.job_epoch.set(job.meta.get("epoch") or 0)
                    metrics.job_epochs.set(job.meta.get("epochs") or 0)
