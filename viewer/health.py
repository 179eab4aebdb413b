"""Whether frames are being labelled, and if not, why."""

from __future__ import annotations

import redis
from msgspec import Struct

from pipeline.bus.status import WORKER_COMMANDS, missing_workers
from pipeline.runtime.worker_context import WorkerContext


class Health(Struct, frozen=True, kw_only=True):
    """The content of /healthz. reasons: for people; empty when ok."""

    ok: bool
    reasons: list[str]


def read_health(context: WorkerContext) -> Health:
    """Return the present health; it is also an answer when Redis cannot be reached."""
    try:
        missing = missing_workers(context.client)
    except redis.RedisError as error:
        return Health(ok=False, reasons=[f"Redis at {context.redis_location} cannot be reached: {error}"])
    reasons = [f"no live {role}: start one with {WORKER_COMMANDS[role]}" for role in missing]
    return Health(ok=not reasons, reasons=reasons)
