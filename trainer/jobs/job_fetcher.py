"""Fetch jobs from the queue, requeue them, or defer them for some seconds.

Fetching moves a job's ID from the queue to rq's intermediate list, from which the trainer removes it when it has
recorded the job as its own; the ID of a job whose trainer died in between is requeued. A deferred job is in rq's
registry of scheduled jobs. An ID that belongs to no job is dropped, with a line in the log. RedisError is passed on.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import cast

from redis.client import Pipeline
from rq import Queue
from rq.executions import Execution
from rq.job import JobStatus
from rq.utils import current_timestamp, now

from trainer.jobs.job_spec import TrainingJob, find_job

log = logging.getLogger(__name__)

FETCH_TIMEOUT_S = 1
DEFER_INTERVAL_S = 5  # at least


class JobFetcher:
    """Fetches jobs for one trainer."""

    def __init__(self, queue: Queue) -> None:
        """Fetch jobs from a queue."""
        self._queue = queue
        self._redis = queue.connection
        self._intermediate_key = queue.intermediate_queue_key
        self._deferred_key = queue.scheduled_job_registry.key
        self._seen: set[bytes] = set()

    def fetch(self) -> TrainingJob | None:
        """Wait up to FETCH_TIMEOUT_S for a job; None when there was none."""
        raw = cast(bytes | None, self._redis.blmove(self._queue.key, self._intermediate_key, FETCH_TIMEOUT_S))
        if raw is None:
            return None
        job = find_job(self._redis, raw.decode(errors="replace"))
        if job is None:
            log.warning("%r in the queue of training jobs is not a job, or is damaged: dropped", raw)
            self._redis.lrem(self._intermediate_key, 1, cast(str, raw))
        return job

    def requeue_stuck(self) -> None:
        """Requeue IDs that were in the intermediate list in two calls, seconds apart; a trainer needs only a moment."""
        seen = set(cast(list[bytes], self._redis.lrange(self._intermediate_key, 0, -1)))
        for raw in seen & self._seen:
            with self._redis.pipeline() as pipe:
                pipe.lrem(self._intermediate_key, 1, cast(str, raw))
                pipe.lpush(self._queue.key, raw)
                pipe.execute()
        self._seen = seen

    def requeue(self, job: TrainingJob, execution: Execution) -> None:
        """Put a started job first in the queue again; that does not count as a failed attempt."""

        def requeue(pipe: Pipeline) -> None:
            job.refresh()
            pipe.multi()
            if job.get_status(refresh=False) == JobStatus.STARTED:
                execution.delete(job=job, pipeline=pipe)
                self._queue.enqueue_job(job, pipeline=pipe, at_front=True)

        self._redis.transaction(requeue, job.key)

    def defer(self, job: TrainingJob, execution: Execution, why: str) -> None:
        """Requeue a started job in some seconds; it counts as not attempted."""

        def defer(pipe: Pipeline) -> None:
            job.refresh()
            pipe.multi()
            if job.get_status(refresh=False) == JobStatus.STARTED:
                attempts = job.meta.get("attempt", 1) - 1
                started_at = job.meta.get("started_at") if attempts else None
                job.meta |= {"attempt": attempts, "waiting": why, "started_at": started_at}
                execution.delete(job=job, pipeline=pipe)
                self._queue.schedule_job(job, now() + timedelta(seconds=DEFER_INTERVAL_S), pipeline=pipe)

        self._redis.transaction(defer, job.key)

    def requeue_due(self) -> None:
        """Put deferred jobs whose time has come first in the queue again."""
        for raw in cast(list[bytes], self._redis.zrangebyscore(self._deferred_key, 0, current_timestamp())):
            self._requeue_deferred(raw)

    def _requeue_deferred(self, raw: bytes) -> None:
        id_ = raw.decode(errors="replace")

        def requeue(pipe: Pipeline) -> None:
            job = find_job(self._redis, id_)
            pipe.multi()
            pipe.zrem(self._deferred_key, raw)
            # Its status differs when it was cancelled, or another trainer has requeued it.
            if job is not None and job.get_status(refresh=False) == JobStatus.SCHEDULED:
                self._queue.enqueue_job(job, pipeline=pipe, at_front=True)

        self._redis.transaction(requeue, TrainingJob.key_for(id_))
