"""Whether frames are being labelled, and if not, why."""

from __future__ import annotations

import redis
from msgspec import Struct

from events.event_database import EventDatabase
from pipeline.bus.status import WORKER_COMMANDS, missing_workers
from pipeline.runtime.worker_context import WorkerContext


class Health(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The content of /healthz. reasons: for people; empty when ok. notes: what fails, but keeps no frame unlabelled."""

    ok: bool
    reasons: list[str]
    notes: list[str] = []


def read_health(context: WorkerContext, database: EventDatabase) -> Health:
    """Return the present health; it is also an answer when Redis cannot be reached."""
    notes = [database.problem] if database.problem and database.is_named else []
    try:
        missing = missing_workers(context.client)
    except redis.RedisError as error:
        return Health(ok=False, reasons=[f"Redis at {context.redis_location} cannot be reached: {error}"], notes=notes)
    reasons = [f"no live {role}: start one with {WORKER_COMMANDS[role]}" for role in missing]
    return Health(ok=not reasons, reasons=reasons, notes=notes)


def without_reasons(health: Health) -> Health:
    """Return what those may know of the health who have not signed in."""
    return Health(ok=health.ok, reasons=[] if health.ok else ["sign in to see why"])
