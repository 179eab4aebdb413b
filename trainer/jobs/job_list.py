"""List training jobs: the jobs in Redis in, one record per job, for the table and for JSON, out.

A job that cannot be decoded is left out, with a line in the log; a job that does not exist raises JobRejected.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any, Literal, cast

import msgspec
from rq.job import Job, JobStatus
from rq.utils import now
from rq.worker_registration import get_keys

from pipeline.bus.connection import Redis
from pipeline.runtime.redaction import redact
from trainer.jobs.job_spec import (
    INDEX,
    JOB_HEARTBEAT_TIMEOUT_S,
    ForeignFunction,
    JobProgress,
    JobRejected,
    JobResult,
    TrainingJob,
    find_job,
    training_queue,
)
from trainer.settings import TrainSettings

log = logging.getLogger(__name__)

# lost: its trainer is gone, and no other one has taken it over yet
State = Literal["queued", "running", "lost", "finished", "failed", "cancelled"]
STATES: dict[JobStatus, State] = {
    JobStatus.QUEUED: "queued",
    JobStatus.SCHEDULED: "queued",  # deferred for some seconds
    JobStatus.STARTED: "running",
    JobStatus.FINISHED: "finished",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELED: "cancelled",
    JobStatus.STOPPED: "cancelled",
}
UNFINISHED = ("queued", "running", "lost")


class TrainingRun(JobProgress, frozen=True, kw_only=True):
    """One job. Times are in Unix seconds; None: not yet.

    trainer: the process that works or worked on it. attempts_left: the number of restarts after interruptions.
    settings: None for a job without valid ones. version, registered_at: of the finished model.
    """

    id: str
    state: State
    out: str | None
    models: str | None
    enqueued_at: float | None
    ended_at: float | None
    trainer: str | None
    attempts_left: int
    settings: TrainSettings | None
    version: str | None
    registered_at: str | None


def list_jobs(client: Redis) -> list[TrainingRun]:
    """Return all jobs, oldest first; damaged ones are left out, with a line in the log."""
    found = []
    for raw in cast(list[bytes], client.zrange(INDEX, 0, -1)):
        job = find_job(client, raw.decode(errors="replace"))
        if job is not None:
            found.append(_run(job))
        elif client.exists(Job.redis_job_namespace_prefix.encode() + raw):
            log.warning("%r is not a training job, or is damaged: left out", raw)
        else:
            client.zrem(INDEX, raw)
    return found


def has_trainer(client: Redis) -> bool:
    """Return whether a trainer is alive, or was within the last minute."""
    keys = get_keys(queue=training_queue(client))
    return bool(keys) and bool(client.exists(*keys))


def job_with_id(client: Redis, job_id: str) -> TrainingRun:
    """Return one job; raise JobRejected if there is no such job."""
    return _run(fetch_job(client, job_id))


def fetch_job(client: Redis, job_id: str) -> TrainingJob:
    """Return a job; raise JobRejected when there is none."""
    job = find_job(client, job_id)
    if job is None:
        raise JobRejected(f"there is no job {job_id}: `maskwatch jobs` lists them")
    return job


def _run(job: TrainingJob) -> TrainingRun:
    try:
        spec = job.spec
    except ForeignFunction:
        spec = None
    result = _result(job)
    run = TrainingRun(
        **msgspec.structs.asdict(_progress(job)),
        id=job.id,
        state=_state(job),
        out=spec.settings.out if spec else None,
        models=spec.models if spec else None,
        enqueued_at=_seconds(job.created_at),  # rq changes enqueued_at when a job is requeued
        ended_at=_seconds(job.ended_at),
        trainer=job.worker_name,
        attempts_left=job.retries_left or 0,
        settings=spec.settings if spec else None,
        version=result.version if result else None,
        registered_at=result.registered_at if result else None,
    )
    return msgspec.convert(_printable(msgspec.to_builtins(run)), TrainingRun)


def _printable(value: Any) -> Any:
    """Hide passwords in a JSON value, and escape texts that are not UTF-8: one job cannot break the list of all."""
    if isinstance(value, str):
        return redact(value.encode(errors="backslashreplace").decode())
    if isinstance(value, dict):
        return {name: _printable(one) for name, one in value.items()}
    return [_printable(one) for one in value] if isinstance(value, list | tuple) else value


def _progress(job: TrainingJob) -> JobProgress:
    progress, status = msgspec.convert(job.meta, JobProgress), job.get_status(refresh=False)
    if status != JobStatus.SCHEDULED:
        progress = msgspec.structs.replace(progress, waiting=None)
    if progress.error is None and status == JobStatus.FAILED:
        result = job.latest_result()
        lines = (result.exc_string if result else "") or "reason unknown"
        progress = msgspec.structs.replace(progress, error=lines.strip().splitlines()[-1])
    return progress


def _result(job: TrainingJob) -> JobResult | None:
    if job.get_status(refresh=False) != JobStatus.FINISHED:
        return None
    try:
        return msgspec.convert(job.return_value(), JobResult)
    except msgspec.ValidationError:
        return None


def _state(job: TrainingJob) -> State:
    state = STATES.get(job.get_status(refresh=False), "queued")
    beat = job.last_heartbeat
    is_lost = state == "running" and beat is not None and (now() - beat).total_seconds() > JOB_HEARTBEAT_TIMEOUT_S
    return "lost" if is_lost else state


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
