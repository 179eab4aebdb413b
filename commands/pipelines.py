"""Which Redis and models a command uses when the user names none: those of the pipeline that runs on this machine.

When several pipelines run that differ in it, none is chosen: the error names all of them.
"""

from __future__ import annotations

from typing import Literal

from pipeline.bus.connection import hide_password
from pipeline.runtime.running_pipelines import RunningPipeline, find_running_pipelines

DEFAULT_REDIS = "redis://127.0.0.1:6379/0"
UNNAMED = {"redis_url": "no Redis", "models": "the built-in models", "database": "no database"}
NOTHING_RUNS = "no `maskwatch demo` or `maskwatch up` of this user runs on this machine"


class SeveralPipelines(Exception):
    """Several pipelines run, and the user named none; says which there are and how to name one."""


def only_pipeline(field: Literal["redis_url", "models", "database"], flag: str) -> RunningPipeline | None:
    """Return the pipeline that runs; None if none does.

    Args:
        field: pipelines that have the same value in it count as one.
        flag: how a user names a value of this field.

    Raises:
        SeveralPipelines: pipelines run that differ in the field.
    """
    found = find_running_pipelines()
    if len({getattr(pipeline, field) for pipeline in found}) > 1:
        several = "; ".join(describe_pipeline(pipeline, field) for pipeline in found)
        raise SeveralPipelines(f"several pipelines run on this machine: name one with {flag}: {several}")
    return found[0] if found else None


def describe_pipeline(pipeline: RunningPipeline, field: Literal["redis_url", "models", "database"]) -> str:
    """Return a pipeline in words, with the value of a field that tells it from others."""
    value = hide_password(getattr(pipeline, field) or UNNAMED[field])
    cameras = ", ".join(pipeline.cameras) or "none"
    return f"{value} is of `maskwatch {pipeline.command}`, process {pipeline.pid}, cameras: {cameras}"
