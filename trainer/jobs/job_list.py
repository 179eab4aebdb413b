"""Training jobs as users see them: one record a job, for the table and for JSON.

In: the jobs in Redis. Out: records. What does not decode there is left out, with a line in the log; a job that does not
exist raises JobRefused.
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
from trainer.jobs.job_spec import (
    INDEX,
    LOST_S,
    ForeignFunction,
    JobProgress,
    JobRefused,
    JobResult,
    TrainingJob,
    find,
    queue_of,
)
from trainer.settings import TrainSettings

log = logging.getLogger(__name__)

# lost: its trainer is gone, and no other has come yet
State = Literal["queued", "running", "lost", "finished", "failed", "cancelled"]
STATES: dict[JobStatus, State] = {
    JobStatus.QUEUED: "queued",
    JobStatus.SCHEDULED: "queued",  # put off for some seconds
    JobStatus.STARTED: "running",
    JobStatus.FINISHED: "finished",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELED: "cancelled",
    JobStatus.STOPPED: "cancelled",
}
UNFINISHED = ("queued", "running", "lost")


class TrainingRun(JobProgress, frozen=True, kw_only=True):
    """One job. Times are Unix seconds; None: not yet.

    trainer: the process that works or worked on it. attempts_left: how often it starts again when it is interrupted.
    settings: None for a job that carries none. version, registered_at: of the finished model.
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


def runs(client: Redis) -> list[TrainingRun]:
    """Return all jobs that are kept, oldest first; damaged ones are left out, with a line in the log."""
    found = []
    for raw in cast(list[bytes], client.zrange(INDEX, 0, -1)):
        job = find(client, raw.decode(errors="replace"))
        if job is not None:
            found.append(_run(job))
        elif client.exists(Job.redis_job_namespace_prefix.encode() + raw):
            log.warning("%r is no training job, or a damaged one: left out", raw)
        else:
            client.zrem(INDEX, raw)
    return found


def has_trainer(client: Redis) -> bool:
    """Return whether some trainer is alive, or was within the last minute."""
    keys = get_keys(queue=queue_of(client))
    return bool(keys) and bool(client.exists(*keys))


def run_of(client: Redis, job_id: str) -> TrainingRun:
    """Return one job.

    Raises:
        JobRefused: there is no such job.
    """
    return _run(found_job(client, job_id))


def found_job(client: Redis, job_id: str) -> TrainingJob:
    """Return a job; raise JobRefused when there is none."""
    job = find(client, job_id)
    if job is None:
        raise JobRefused(f"there is no job {job_id}: `maskwatch jobs` lists them")
    return job


def _run(job: TrainingJob) -> TrainingRun:
    try:
        order = job.order
    except ForeignFunction:
        order = None
    outcome = _outcome(job)
    run = TrainingRun(
        **msgspec.structs.asdict(_told(job)),
        id=job.id,
        state=_state(job),
        out=order.settings.out if order else None,
        models=order.models if order else None,
        enqueued_at=_seconds(job.created_at),  # rq's enqueued_at is when it was put off or back the last time
        ended_at=_seconds(job.ended_at),
        trainer=job.worker_name,
        attempts_left=job.retries_left or 0,
        settings=order.settings if order else None,
        version=outcome.version if outcome else None,
        registered_at=outcome.registered_at if outcome else None,
    )
    return msgspec.convert(_sayable(msgspec.to_builtins(run)), TrainingRun)


def _sayable(value: Any) -> Any:
    """Return what JSON holds with every text such that any terminal and file can hold it: one job may hide no other."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {name: _sayable(one) for name, one in value.items()}
    return [_sayable(one) for one in value] if isinstance(value, list | tuple) else value


def _told(job: TrainingJob) -> JobProgress:
    told, status = msgspec.convert(job.meta, JobProgress), job.get_status(refresh=False)
    if status != JobStatus.SCHEDULED:
        told = msgspec.structs.replace(told, waiting=None)
    if told.error is None and status == JobStatus.FAILED:
        result = job.latest_result()
        lines = (result.exc_string if result else "") or "for no known reason"
        return msgspec.structs.replace(told, error=lines.strip().splitlines()[-1])
    return told


def _outcome(job: TrainingJob) -> JobResult | None:
    if job.get_status(refresh=False) != JobStatus.FINISHED:
        return None
    try:
        return msgspec.convert(job.return_value(), JobResult)
    except msgspec.ValidationError:
        return None


def _state(job: TrainingJob) -> State:
    state = STATES.get(job.get_status(refresh=False), "queued")
    heard = job.last_heartbeat
    silent = state == "running" and heard is not None and (now() - heard).total_seconds() > LOST_S
    return "lost" if silent else state


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
