"""Between the queue and a trainer's hands: a job taken, put back, or put off for some seconds.

rq moves a job's id from the queue to a list of taken ones, which it leaves when a trainer has written that the job is
its own; one whose trainer died in the very moment between is put back. A job that is put off stands among rq's
scheduled ones. What is no job is thrown away, with a line in the log. RedisError comes through.
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

from trainer.jobs.job_spec import TrainingJob, find

log = logging.getLogger(__name__)

TAKE_S = 1  # how long one look into the queue waits for a job
PUT_OFF_S = 5  # for so long at least


class JobFetcher:
    """One trainer's way to jobs."""

    def __init__(self, queue: Queue) -> None:
        """Take jobs from a queue."""
        self._queue = queue
        self._redis = queue.connection
        self._waits_key = queue.key
        self._taken_key = queue.intermediate_queue_key
        self._put_off_key = queue.scheduled_job_registry.key
        self._seen: set[bytes] = set()

    def take(self) -> TrainingJob | None:
        """Wait a moment for a job and take it; None when none came."""
        raw = cast(bytes | None, self._redis.blmove(self._waits_key, self._taken_key, TAKE_S))
        if raw is None:
            return None
        job = find(self._redis, raw.decode(errors="replace"))
        if job is None:
            log.warning("%r in the queue of training jobs is no job, or a damaged one: thrown away", raw)
            self._redis.lrem(self._taken_key, 1, cast(str, raw))
        return job

    def put_back_stuck(self) -> None:
        """Put jobs back that were seen among the taken ones in two calls, seconds apart; a trainer needs a moment."""
        seen = set(cast(list[bytes], self._redis.lrange(self._taken_key, 0, -1)))
        for raw in seen & self._seen:
            with self._redis.pipeline() as pipe:
                pipe.lrem(self._taken_key, 1, cast(str, raw))
                pipe.lpush(self._waits_key, raw)
                pipe.execute()
        self._seen = seen

    def put_back(self, job: TrainingJob, execution: Execution) -> None:
        """Put a job that was begun first in the queue again; that is no failed attempt."""

        def put_back(pipe: Pipeline) -> None:
            job.refresh()
            pipe.multi()
            if job.get_status(refresh=False) == JobStatus.STARTED:
                execution.delete(job=job, pipeline=pipe)
                self._queue.enqueue_job(job, pipeline=pipe, at_front=True)

        self._redis.transaction(put_back, job.key)

    def put_off(self, job: TrainingJob, execution: Execution, why: str) -> None:
        """Put a job that was begun back in some seconds; that was no attempt at all."""

        def put_off(pipe: Pipeline) -> None:
            job.refresh()
            pipe.multi()
            if job.get_status(refresh=False) == JobStatus.STARTED:
                attempts = job.meta.get("attempt", 1) - 1
                started_at = job.meta.get("started_at") if attempts else None
                job.meta |= {"attempt": attempts, "waiting": why, "started_at": started_at}
                execution.delete(job=job, pipeline=pipe)
                self._queue.schedule_job(job, now() + timedelta(seconds=PUT_OFF_S), pipeline=pipe)

        self._redis.transaction(put_off, job.key)

    def put_back_due(self) -> None:
        """Put jobs that were put off for long enough first in the queue again."""
        for raw in cast(list[bytes], self._redis.zrangebyscore(self._put_off_key, 0, current_timestamp())):
            self._enqueue_again(raw)

    def _enqueue_again(self, raw: bytes) -> None:
        id_ = raw.decode(errors="replace")

        def enqueue(pipe: Pipeline) -> None:
            job = find(self._redis, id_)
            pipe.multi()
            pipe.zrem(self._put_off_key, raw)
            if job is not None and job.get_status(refresh=False) == JobStatus.SCHEDULED:  # by nobody else meanwhile
                self._queue.enqueue_job(job, pipeline=pipe, at_front=True)

        self._redis.transaction(enqueue, TrainingJob.key_for(id_))
