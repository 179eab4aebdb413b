"""Enqueue and cancel training jobs.

In: orders and ids. Out: ids. What cannot be done raises JobRefused with one line. Cancelling is a state in Redis, not a
message: the trainer that works on the job sees it within a second, and one that is away finds it later. Nothing here
imports Keras.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec
from redis.client import Pipeline
from rq import Retry
from rq.job import JobStatus
from rq.utils import now, utcformat

from pipeline.bus.clock import Clock
from pipeline.bus.connection import Redis
from trainer.jobs.job_list import STATES, UNFINISHED, found_job, runs
from trainer.jobs.job_spec import FUNCTION, INDEX, RETRIES, JobProgress, JobRefused, JobSpec, queue_of

JOB_RETENTION_S = 30 * 86_400  # finished, failed and cancelled jobs are listed for so long


def enqueue(client: Redis, order: JobSpec, *, time_limit_s: int) -> str:
    """Put a job into the queue and return its id.

    Args:
        time_limit_s: one attempt may take so long.

    Raises:
        JobRefused: a job that has not ended yet writes to the same folder, or a path cannot be written down.
    """
    try:
        msgspec.json.encode(order)
    except UnicodeEncodeError as error:
        raise JobRefused(f"a path has a name that is not UTF-8 ({error.object!a}): rename it") from error
    out = order.settings.out
    folder = Path(out).resolve()  # one folder may have several names
    for run in runs(client):
        if run.state in UNFINISHED and run.out is not None and Path(run.out).resolve() == folder:
            raise JobRefused(f"job {run.id} ({run.state}) is to write {out}: choose another --out, or cancel that job")
    id_ = secrets.token_hex(4)
    with client.pipeline() as pipe:
        queue_of(client).enqueue_call(
            FUNCTION,
            args=(msgspec.to_builtins(order),),
            job_id=id_,
            timeout=time_limit_s,
            result_ttl=JOB_RETENTION_S,
            failure_ttl=JOB_RETENTION_S,
            retry=Retry(max=RETRIES, enqueue_at_front=True),
            meta=msgspec.to_builtins(JobProgress()),
            description=f"{order.settings.arch} to {out}",
            pipeline=pipe,
        )
        pipe.zadd(INDEX, {id_: Clock(client).now()})
        pipe.execute()
    return id_


def cancel(client: Redis, job_id: str) -> None:
    """Cancel a job that waits or runs; the trainer that works on it ends it within seconds.

    Raises:
        JobRefused: there is no such job, or it has ended.
    """
    job = found_job(client, job_id)
    queue = queue_of(client)

    def cancel(pipe: Pipeline) -> None:
        state = STATES.get(job.get_status())
        if state not in UNFINISHED:
            raise JobRefused(f"job {job_id} is {state or 'no job that runs'} already: there is nothing to cancel")
        pipe.multi()
        job.set_status(JobStatus.CANCELED, pipeline=pipe)
        queue.remove(job, pipeline=pipe)
        queue.scheduled_job_registry.remove(job, pipeline=pipe)
        pipe.lrem(queue.intermediate_queue_key, 1, job_id)
        queue.canceled_job_registry.add(job, ttl=JOB_RETENTION_S, pipeline=pipe)
        pipe.hset(job.key, "ended_at", utcformat(now()))
        pipe.expire(job.key, JOB_RETENTION_S)

    client.transaction(cancel, job.key)
