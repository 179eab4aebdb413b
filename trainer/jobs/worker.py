"""rq's worker as a trainer uses it: fetches a job, runs it in a process of its own, the work horse, and settles it.

rq keeps the records; its own loop is not used, because it ends when Redis fails and cannot requeue a job. A job is
settled by the horse when the training ends or fails, and by the trainer when the horse died, was stopped, or its job
was cancelled. A job whose run folder is in use is deferred until the folder is free. RedisError is passed on to the
trainer's loop (trainer.py), which retries, except while a horse runs: the training continues.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from enum import Enum
from typing import Any, Literal, cast

from redis.client import Pipeline
from rq import Worker
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import clean_registries
from rq.timeouts import JobTimeoutException
from rq.utils import now
from rq.worker import WorkerStatus
from rq.worker_registration import clean_worker_registry, register

from models.registry.store import StoreFailed
from pipeline.bus.connection import Redis
from pipeline.runtime import metrics
from pipeline.runtime.worker_context import WorkerContext
from trainer.fitting.run_folder import FolderInUse, is_folder_free, remove_leftovers
from trainer.jobs.child_process import ChildProcess
from trainer.jobs.device import Device
from trainer.jobs.failures import HorseDied, exit_reason, is_permanent, one_line_error, record_failure
from trainer.jobs.job_fetcher import JobFetcher
from trainer.jobs.job_spec import INDEX, JOB_HEARTBEAT_TIMEOUT_S, TrainingJob, find_job, training_queue
from trainer.jobs.work_horse import perform

log = logging.getLogger(__name__)

WORKER_TTL_S = 25
HEARTBEAT_INTERVAL_S = 5
MAINTENANCE_INTERVAL_S = 10  # between searches for jobs whose trainers are gone
HORSE_POLL_INTERVAL_S = 0.1
JOB_POLL_INTERVAL_S = 1.0  # between reads of the job's state and progress: it may have been cancelled
EXIT_TIMEOUT_S = 5.0  # for a horse that has settled its job to end
OVERTIME_S = 60  # after its time limit a horse that has not ended by itself is killed


class HorseEnd(Enum):
    """Why a work horse ended; the values complete a line of the log."""

    EXITED = "by itself"
    FOLDER_IN_USE = "because its folder is in use"
    TRAINER_STOPS = "because the trainer stops"
    JOB_LOST = "because it is no longer ours"
    TIME_LIMIT = "because of its time limit"


class TrainingWorker(Worker):
    """A worker on the queue of training jobs, driven step by step: maintain(), next_job(), run_job()."""

    def __init__(self, context: WorkerContext, client: Redis, models: str | None) -> None:
        """Register the worker of a process.

        Args:
            context: of the process; its ID is the worker's name.
            client: the jobs' Redis; no other thread may use it, because the horse inherits it.
            models: the registry for jobs that name none.
        """
        self._queue = training_queue(client)
        super().__init__(
            [self._queue],
            name=context.id,
            connection=client,
            job_class=TrainingJob,
            serializer=self._queue.serializer,
            worker_ttl=WORKER_TTL_S,
            job_monitoring_interval=HEARTBEAT_INTERVAL_S,
            exception_handlers=[record_failure],
        )
        self._context = context
        self._models = models
        self._fetcher = JobFetcher(self._queue)
        self._maintained_at = -math.inf
        self.register_birth()

    @property
    def connection_timeout(self) -> int:
        """Keep the client's own timeouts."""
        return 0

    def get_heartbeat_ttl(self, *_: object, **__: object) -> int:
        """Return how long a heartbeat is valid; rq itself adds a minute."""
        return JOB_HEARTBEAT_TIMEOUT_S

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Send a heartbeat; be in rq's list of workers, which a Redis that lost its memory does not know any more."""
        super().heartbeat(timeout, pipeline)
        register(self, pipeline)

    def maintain(self) -> None:
        """Send a heartbeat every few seconds, and requeue jobs whose trainers are gone.

        rq's own lock is not used: a worker that is killed during maintenance would keep it for a quarter of an hour.
        """
        if time.monotonic() - self._maintained_at <= MAINTENANCE_INTERVAL_S:
            return
        self.heartbeat()
        key = f"{self._queue.registry_cleaning_key}:now"
        if self.connection.set(key, self.name, nx=True, ex=MAINTENANCE_INTERVAL_S - 1):
            clean_registries(self._queue, [record_failure])
            clean_worker_registry(self._queue)
            self._fetcher.requeue_stuck()
        self.postpone_maintenance()

    def postpone_maintenance(self) -> None:
        """Leave lost jobs alone for a while: when Redis was away, no trainer could send heartbeats."""
        self._maintained_at = time.monotonic()

    def next_job(self) -> TrainingJob | None:
        """Wait a moment for a job; None when there was none."""
        self._fetcher.requeue_due()
        return self._fetcher.fetch()

    def run_job(self, job: TrainingJob, device: Device) -> None:
        """Run a job on a device, and make sure that Redis has its outcome."""
        was_deferred = job.meta.pop("waiting", None)
        execution = self._begin(job)
        if execution is None:
            return
        job.work = lambda job: perform(job, self._models)
        end = HorseEnd.FOLDER_IN_USE
        status = 0
        if job.folder is None or is_folder_free(job.folder):
            log.info("job %s: started on %s", job.id, device.name)
            metrics.job_running.set(1)
            end, status = self._supervise(ChildProcess(lambda: self._in_horse(job, device)), job, execution)
            for metric in (metrics.job_running, metrics.job_epoch, metrics.job_epochs):
                metric.set(0)
            log.info("job %s: its process ended %s", job.id, end.value)
            if job.folder is not None:
                remove_leftovers(job.folder)
        elif not was_deferred:
            log.info("job %s: waits %s", job.id, end.value)
        self.executions.clear()
        with self._context.reconnecting(), contextlib.suppress(NoSuchJobError):  # the job may have been removed
            self._settle(job, execution, end, status)
            self.set_state(WorkerStatus.IDLE)

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """Do nothing in the horse: its parent has done it, and the job may have been cancelled since."""

    def handle_job_success(self, job: Job, *args: Any, **kwargs: Any) -> None:
        """Record that a job has finished, unless it was cancelled or taken over meanwhile."""
        if self._ownership(job) != "ours":
            os._exit(0)
        super().handle_job_success(job, *args, **kwargs)

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Log an exception of a training: what the user must correct in one line, others with their traceback."""
        if isinstance(exc_info[1], FolderInUse):
            os._exit(os.EX_TEMPFAIL)  # the trainer defers the job
        if self._ownership(job) != "ours":
            os._exit(0)  # it was cancelled: it has not failed and is not retried
        kind, error, _ = exc_info
        if is_permanent(error) or isinstance(error, StoreFailed):
            trace = exc_info if log.isEnabledFor(logging.DEBUG) else None
            log.warning("job %s failed: %s", job.id, one_line_error(job, kind, error), exc_info=trace)
            record_failure(job, kind, error)
        else:
            super().handle_exception(job, *exc_info)

    def _in_horse(self, job: TrainingJob, device: Device) -> None:
        if device.visible is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = device.visible
        self.main_work_horse(job, self._queue)  # ends the process

    def _begin(self, job: TrainingJob) -> Execution | None:
        """Make a job this worker's own, atomically; None when it was cancelled, or fetched twice."""
        job.meta["attempt"] = job.meta.get("attempt", 0) + 1
        job.meta["started_at"] = job.meta.get("started_at") or time.time()
        begun: list[Execution] = []

        def begin(pipe: Pipeline) -> None:
            begun.clear()  # redis-py calls this again when the job has changed meanwhile
            is_queued = cast(bytes | None, pipe.hget(job.key, "status")) == JobStatus.QUEUED.encode()
            pipe.multi()
            pipe.lrem(self._queue.intermediate_queue_key, 1, job.id)
            pipe.zadd(INDEX, {job.id: time.time()}, nx=True)
            if is_queued:
                begun.append(Execution.create(job, JOB_HEARTBEAT_TIMEOUT_S, pipeline=pipe, worker_name=self.name))
                job.prepare_for_execution(self.name, pipeline=pipe)
                pipe.hset(job.key, "meta", job.serializer.dumps(job.meta))
                pipe.persist(job.key)
                self.set_state(WorkerStatus.BUSY, pipeline=pipe)

        self.connection.transaction(begin, job.key)
        self.executions.update({execution.id: execution for execution in begun})
        return begun[0] if begun else None

    def _supervise(self, horse: ChildProcess, job: TrainingJob, execution: Execution) -> tuple[HorseEnd, int]:
        """Wait until the horse has ended, or kill it; return why it ended, and its wait status."""
        began = polled_at = beat_at = time.monotonic()
        settled_at = math.inf
        while True:
            status = horse.status()
            if status is not None:
                in_use = os.waitstatus_to_exitcode(status) == os.EX_TEMPFAIL
                return HorseEnd.FOLDER_IN_USE if in_use else HorseEnd.EXITED, status
            end = None if self._context.should_run() else HorseEnd.TRAINER_STOPS
            now_s = time.monotonic()
            if now_s - polled_at > JOB_POLL_INTERVAL_S:
                polled_at = now_s
                with self._context.reconnecting():
                    ownership = self._ownership(job)
                    _report_progress(find_job(self.connection, job.id))
                    settled_at = min(settled_at, now_s) if ownership == "settled" else math.inf
                    if ownership == "lost" or now_s - settled_at > EXIT_TIMEOUT_S:
                        end = end or HorseEnd.JOB_LOST
                    if ownership == "ours" and end is None and now_s - beat_at > HEARTBEAT_INTERVAL_S:
                        beat_at = now_s
                        self.maintain_heartbeats(job, execution)
            if now_s - began > (job.timeout or math.inf) + OVERTIME_S:
                end = HorseEnd.TIME_LIMIT
            if end is not None:
                return end, horse.kill()
            self._context.wait(HORSE_POLL_INTERVAL_S)

    def _ownership(self, job: Job) -> Literal["ours", "settled", "lost"]:
        """Return whether a job is still this worker's.

        Settled: the horse, or a trainer that found no heartbeat, has recorded its outcome. Lost: it was cancelled,
        taken over, or lost with Redis' memory.
        """
        status, worker_name = cast(list[bytes | None], self.connection.hmget(job.key, "status", "worker_name"))
        if status == JobStatus.STARTED.encode():
            return "ours" if worker_name == self.name.encode() else "lost"
        return "lost" if status in (None, JobStatus.CANCELED.encode()) else "settled"

    def _settle(self, job: TrainingJob, execution: Execution, end: HorseEnd, status: int) -> None:
        """Record a job's outcome in Redis, unless the horse has done it."""
        if self._ownership(job) != "ours":
            with self.connection.pipeline() as pipe:
                execution.delete(job=job, pipeline=pipe)
                pipe.execute()
        elif end is HorseEnd.TRAINER_STOPS:
            self._fetcher.requeue(job, execution)
        elif end is HorseEnd.FOLDER_IN_USE:
            self._fetcher.defer(job, execution, f"waiting for {job.folder}, which another run uses")
        else:
            is_over = end is HorseEnd.TIME_LIMIT
            error: Exception = JobTimeoutException() if is_over else HorseDied(exit_reason(status))
            job.refresh()  # keeps the progress that the horse has written
            job.ended_at = now()
            record_failure(job, type(error), error)
            why = one_line_error(job, type(error), error)
            log.warning("job %s: %s", job.id, why)
            self.handle_job_failure(job, queue=self._queue, exc_string=why, execution=execution)


def _report_progress(job: TrainingJob | None) -> None:
    if job is not None:
        metrics.job_epoch.set(job.meta.get("epoch") or 0)
        metrics.job_epochs.set(job.meta.get("epochs") or 0)
