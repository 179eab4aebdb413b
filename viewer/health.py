"""Whether frames are being labelled, and if not, why."""

from __future__ import annotations

import redis
from msgspec import Struct

from events.event_database import EventDatabase
from pipeline.bus.status import WORKER_COMMANDS, live_roles
from pipeline.runtime.worker_context import WorkerContext

NO_RECORDER = "no live recorder, so no events are recorded and no alerts sent: start one with maskwatch record"


class Health(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The content of /healthz. reasons: for people; empty when ok. notes: what fails, but keeps no frame unlabelled."""

    ok: bool
    reasons: list[str]
    notes: list[str] = []


def read_health(context: WorkerContext, database: EventDatabase) -> Health:
    """Return the present health; it is also an answer when Redis cannot be reached."""
    notes = [database.problem] if database.problem and database.is_named else []
    try:
        live = live_roles(context.client)
    except redis.RedisError as error:
        return Health(ok=False, reasons=[f"Redis at {context.redis_location} cannot be reached: {error}"], notes=notes)
    reasons = [f"no live {role}: start one with {start}" for role, start in WORKER_COMMANDS.items() if role not in live]
    if database.is_named and not database.problem and "recorder" not in live:
        notes.append(NO_RECORDER)
    return Health(ok=not reasons, reasons=reasons, notes=notes)


def without_reasons(health: Health) -> Health:
    """Return what those may know of the health who have not signed in."""
    return Health(ok=health.ok, reasons=[] if health.ok else ["sign in to see why"])
