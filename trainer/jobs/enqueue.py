"""Enqueue and cancel training jobs.

In: settings and job IDs. Out: job IDs. A job that cannot be enqueued or cancelled raises JobRejected with one line. A
cancellation is a state in Redis, not a message: the trainer that works on the job reads it within a second, one that is
away reads it later. Nothing here imports Keras.
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
from trainer.checks import check_can_be_written, check_registry, plan_training
from trainer.jobs.job_list import STATES, UNFINISHED, fetch_job, list_jobs
from trainer.jobs.job_spec import FUNCTION, INDEX, RETRIES, JobProgress, JobRejected, JobSpec, training_queue
from trainer.settings import TrainSettings

JOB_RETENTION_S = 30 * 86_400  # of finished, failed and cancelled jobs


def checked_spec(settings: TrainSettings, models: str | None) -> JobSpec:
    """Check settings and registry (a folder, a URL, or None for the trainer's own); return the spec of a job.

    Raises:
        ValueError: nothing can be trained with these settings.
        ModelUnusable: the registry cannot be reached or written.
    """
    plan = plan_training(settings)
    check_can_be_written(plan.out)
    if models is not None:
        check_registry(models, settings.out)
    location = models if models is None or "://" in models else str(Path(models).absolute())
    return JobSpec(settings=plan.absolute_settings(), models=location)


def enqueue_job(client: Redis, spec: JobSpec, *, time_limit_s: int) -> str:
    """Enqueue a job and return its ID; time_limit_s is for one attempt.

    Raises:
        JobRejected: an unfinished job writes to the same folder, or a path is not UTF-8.
    """
    try:
        msgspec.json.encode(spec)
    except UnicodeEncodeError as error:
        raise JobRejected(f"a path has a name that is not UTF-8 ({error.object!a}): rename it") from error
    out = spec.settings.out
    folder = Path(out).resolve()  # one folder may have several names
    id_, enqueued_at = secrets.token_hex(4), Clock(client).now()

    def enqueue(pipe: Pipeline) -> None:
        for run in list_jobs(client):
            if run.state in UNFINISHED and run.out is not None and Path(run.out).resolve() == folder:
                raise JobRejected(
                    f"job {run.id} ({run.state}) writes to {out}: choose another --out, or cancel that job"
                )
        pipe.multi()
        training_queue(client).enqueue_call(
            FUNCTION,
            args=(msgspec.to_builtins(spec),),
            job_id=id_,
            timeout=time_limit_s,
            result_ttl=JOB_RETENTION_S,
            failure_ttl=JOB_RETENTION_S,
            retry=Retry(max=RETRIES),
            meta=msgspec.to_builtins(JobProgress()),
            description=f"{spec.settings.arch} to {out}",
            pipeline=pipe,
        )
        pipe.zadd(INDEX, {id_: enqueued_at})

    client.transaction(enqueue, INDEX)  # it is called again when another job was enqueued meanwhile
    return id_


def cancel_job(client: Redis, job_id: str) -> None:
    """Cancel an unfinished job; its trainer ends it within seconds. Raise JobRejected if there is no such job."""
    job = fetch_job(client, job_id)
    queue = training_queue(client)

    def cancel(pipe: Pipeline) -> None:
        state = STATES.get(job.get_status())
        if state not in UNFINISHED:
            raise JobRejected(f"job {job_id} is {state or 'not active'} already: there is nothing to cancel")
        pipe.multi()
        job.set_status(JobStatus.CANCELED, pipeline=pipe)
        queue.remove(job, pipeline=pipe)
        queue.scheduled_job_registry.remove(job, pipeline=pipe)
        pipe.lrem(queue.intermediate_queue_key, 1, job_id)
        queue.canceled_job_registry.add(job, ttl=JOB_RETENTION_S, pipeline=pipe)
        pipe.hset(job.key, "ended_at", utcformat(now()))
        pipe.expire(job.key, JOB_RETENTION_S)

    client.transaction(cancel, job.key)
