"""rq's worker as a trainer uses it: takes a job, has it done in a process of its own, the work horse, and settles it.

rq keeps the books; its own loop is not used, because that ends when Redis fails and cannot put a job back. A job is
settled by who ends it: the horse when the training ends or fails, the trainer when the horse died, was stopped or lost
its job to a cancellation. A job whose run folder is in use is put off, again and again until that is free. RedisError
comes through to the trainer's loop (trainer/jobs/trainer.py), which tries again; not while a horse runs: that goes on
training.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from pathlib import Path
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
from rq.worker_registration import clean_worker_registry

from models.registry.store import StoreFailed
from pipeline.bus.connection import Redis
from pipeline.runtime.worker_context import WorkerContext
from trainer.fitting.run_folder import FolderInUse, is_free, tidy
from trainer.jobs.child_process import ChildProcess
from trainer.jobs.device import Device
from trainer.jobs.failures import HorseDied, how_it_died, is_final, note, one_line
from trainer.jobs.job_fetcher import JobFetcher
from trainer.jobs.job_spec import INDEX, LOST_S, TrainingJob, queue_of

log = logging.getLogger(__name__)

WORKER_TTL_S = 25
BEAT_S = 5  # how often a trainer says that it works on its job
CLEAN_S = 10  # how often jobs are looked for of which nobody says that any more
WATCH_S = 0.1  # how often the horse is looked at
POLL_INTERVAL_S = 1.0  # how often its job is: it may have been cancelled
LEAVE_S = 5.0  # a horse that has told how its job ended is given so long to end
OVERTIME_S = 60  # a horse that has not ended by itself so long after its time limit is killed

End = Literal[
    "by itself",
    "because its folder is in use",
    "because the trainer stops",
    "because it is no longer ours",
    "because of its time limit",
]


class TrainingWorker(Worker):
    """A worker on the queue of training jobs, led step by step: maintain(), next_job(), do()."""

    def __init__(self, run: WorkerContext, client: Redis, models: str | None) -> None:
        """Be the worker of a process.

        Args:
            run: the process; its id is the worker's name.
            client: the jobs' Redis; no other thread may use it, because the horse inherits it.
            models: the registry for jobs that name none.
        """
        self._queue = queue_of(client)
        super().__init__(
            [self._queue],
            name=run.id,
            connection=client,
            job_class=TrainingJob,
            serializer=self._queue.serializer,
            worker_ttl=WORKER_TTL_S,
            job_monitoring_interval=BEAT_S,
            maintenance_interval=CLEAN_S,
            exception_handlers=[note],
        )
        self._run = run
        self._models = models
        self._taking = JobFetcher(self._queue)
        self.register_birth()  # type: ignore[no-untyped-call]  # rq's

    @property
    def connection_timeout(self) -> int:
        """Leave the client's own time limits as they are."""
        return 0

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:  # noqa: ARG002 -- rq's signature
        """Return for how long a sign of life counts; rq itself adds a minute."""
        return LOST_S

    def maintain(self) -> None:
        """Say every few seconds that this worker lives, and put jobs back whose trainers are gone.

        rq's own lock is not used: a worker that is killed while it cleans would keep it for a quarter of an hour.
        """
        if not self.should_run_maintenance_tasks:
            return
        self.heartbeat()
        if self.connection.set(f"{self._queue.registry_cleaning_key}:now", self.name, nx=True, ex=CLEAN_S - 1):
            clean_registries(self._queue, self._exc_handlers)
            clean_worker_registry(self._queue)
            self._taking.put_back_stuck()
        self.postpone_maintenance()

    def postpone_maintenance(self) -> None:
        """Leave lost jobs alone for a while: when Redis was away, nobody could say that he works on them."""
        self.last_cleaned_at = now()  # type: ignore[assignment]  # rq's hint knows None alone

    def next_job(self) -> TrainingJob | None:
        """Wait a moment for a job and take it."""
        self._taking.put_back_due()
        return self._taking.take()

    def do(self, job: TrainingJob, device: Device) -> None:
        """Have a job done on a device, and see to it that Redis knows how that ended."""
        waited = job.meta.pop("waiting", None)
        execution = self._begin(job)
        if execution is None:
            return
        job.models = self._models
        end: End = "because its folder is in use"
        status = 0
        if folder_is_free(job):
            log.info("job %s: started on %s", job.id, device.name)
            end, status = self._watch(ChildProcess(lambda: self._in_horse(job, device)), job, execution)
            log.info("job %s: its process ended %s", job.id, end)
            clear_up(job)
        elif not waited:
            log.info("job %s: waits %s", job.id, end)
        self.executions.clear()
        with self._run.reconnecting(), contextlib.suppress(NoSuchJobError):  # somebody may have removed it meanwhile
            self._settle(job, execution, end, status)
            self.set_state(WorkerStatus.IDLE)

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """Do nothing in the horse: its parent has done it, and the job may have been cancelled since."""

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Log what a training raised: what the user must mend in one line, anything else with its traceback."""
        if isinstance(exc_info[1], FolderInUse):
            os._exit(os.EX_TEMPFAIL)  # the trainer puts the job off
        if self._hold(job) != "ours":
            os._exit(0)  # it was cancelled: neither failed nor to be tried again
        kind, error, _ = exc_info
        if is_final(error) or isinstance(error, StoreFailed):
            trace = exc_info if log.isEnabledFor(logging.DEBUG) else None
            log.warning("job %s failed: %s", job.id, one_line(job, kind, error), exc_info=trace)
            note(job, kind, error)
        else:
            super().handle_exception(job, *exc_info)

    def _in_horse(self, job: TrainingJob, device: Device) -> None:
        if device.visible is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = device.visible
        self.main_work_horse(job, self._queue)  # ends the process

    def _begin(self, job: TrainingJob) -> Execution | None:
        """Make a job this worker's, all at once; None when it was cancelled, or taken twice."""
        job.meta["attempt"] = job.meta.get("attempt", 0) + 1
        job.meta["started_at"] = job.meta.get("started_at") or time.time()

        def begin(pipe: Pipeline) -> Execution | None:
            waits = cast(bytes | None, pipe.hget(job.key, "status")) == JobStatus.QUEUED.encode()
            pipe.multi()
            pipe.lrem(self._queue.intermediate_queue_key, 1, job.id)
            pipe.zadd(INDEX, {job.id: time.time()}, nx=True)
            if not waits:
                return None
            execution = Execution.create(job, LOST_S, pipeline=pipe, worker_name=self.name)
            job.prepare_for_execution(self.name, pipeline=pipe)
            pipe.hset(job.key, "meta", job.serializer.dumps(job.meta))
            pipe.persist(job.key)
            self.set_state(WorkerStatus.BUSY, pipeline=pipe)
            return execution

        execution = cast(
            Execution | None,
            self.connection.transaction(begin, job.key, value_from_callable=True),  # type: ignore[arg-type]
        )
        if execution is not None:
            self.executions[execution.id] = execution
        return execution

    def _watch(self, horse: ChildProcess, job: TrainingJob, execution: Execution) -> tuple[End, int]:
        """Wait until the horse has ended, or end it; return why, and its status as waitpid() tells it."""
        began = looked_at = beat_at = time.monotonic()
        settled_at = math.inf
        while True:
            status = horse.status()
            if status is not None:
                in_use = os.waitstatus_to_exitcode(status) == os.EX_TEMPFAIL
                return "because its folder is in use" if in_use else "by itself", status
            end: End | None = None if self._run.should_run() else "because the trainer stops"
            now_s = time.monotonic()
            if now_s - looked_at > POLL_INTERVAL_S:
                looked_at = now_s
                with self._run.reconnecting():
                    hold = self._hold(job)
                    settled_at = min(settled_at, now_s) if hold == "settled" else math.inf
                    if hold == "lost" or now_s - settled_at > LEAVE_S:
                        end = end or "because it is no longer ours"
                    if hold == "ours" and end is None and now_s - beat_at > BEAT_S:
                        beat_at = now_s
                        self.maintain_heartbeats(job, execution)
            if now_s - began > (job.timeout or math.inf) + OVERTIME_S:
                end = "because of its time limit"
            if end is not None:
                return end, horse.end()
            self._run.wait(WATCH_S)

    def _hold(self, job: Job) -> Literal["ours", "settled", "lost"]:
        """Return whether a job is this worker's still.

        Settled: the horse, or a trainer that found nobody working on it, has told how it ended. Lost: it was cancelled,
        taken over, or is gone with Redis' memory.
        """
        status, worker_name = cast(list[bytes | None], self.connection.hmget(job.key, "status", "worker_name"))
        if status == JobStatus.STARTED.encode():
            return "ours" if worker_name == self.name.encode() else "lost"
        return "lost" if status in (None, JobStatus.CANCELED.encode()) else "settled"

    def _settle(self, job: TrainingJob, execution: Execution, end: End, status: int) -> None:
        """Tell Redis how a job ended, unless the horse has."""
        if self._hold(job) != "ours":
            with self.connection.pipeline() as pipe:
                execution.delete(job=job, pipeline=pipe)
                pipe.execute()
        elif end == "because the trainer stops":
            self._taking.put_back(job, execution)
        elif end == "because its folder is in use":
            self._taking.put_off(job, execution, f"waiting for {job.order.settings.out}, which another run uses")
        else:
            over = end == "because of its time limit"
            error: Exception = JobTimeoutException() if over else HorseDied(how_it_died(status))
            job.refresh()  # what the horse has told of its progress stays
            job.ended_at = now()
            note(job, type(error), error)
            why = one_line(job, type(error), error)
            log.warning("job %s: %s", job.id, why)
            self.handle_job_failure(job, queue=self._queue, exc_string=why, execution=execution)


def folder_is_free(job: TrainingJob) -> bool:
    """Return whether no other run uses a job's folder; of an order that is none, the horse says so."""
    try:
        return is_free(Path(job.order.settings.out))
    except ValueError:
        return True


def clear_up(job: TrainingJob) -> None:
    """Remove the lock that a horse which was killed has left in its folder."""
    with contextlib.suppress(ValueError):  # no order, and so no folder
        tidy(Path(job.order.settings.out))
