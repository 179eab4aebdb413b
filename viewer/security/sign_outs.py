"""Share between all viewers of a Redis which sessions a sign-out has ended, also with viewers that start later.

In: the sessions that ended on this viewer. Out: those that ended on the others. While Redis is away, a session has
ended only on the viewer where somebody signed out. Redis holds IDs, which grant no access without a signature.
"""

from __future__ import annotations

import logging
import math
import time
from typing import Any, cast

import redis

from pipeline.bus.connection import Redis
from pipeline.bus.keys import ENDED_SESSIONS
from viewer.security.authenticator import MAX_ENDED, SESSION_DURATION_S, Authenticator

log = logging.getLogger(__name__)


class SignOuts:
    """Exchanges ended sessions with the other viewers, through Redis. One thread uses it."""

    def __init__(self, client: Redis, authenticator: Authenticator) -> None:
        self._client = client
        self._authenticator = authenticator
        self._is_reported = False

    def exchange(self) -> None:
        """Read which sessions have ended, and write those that are missing; what fails is tried again next time."""
        if not self._authenticator.has_login:
            return
        try:
            now = time.time()
            held = self._read(now)
            self._authenticator.note_ended(held)
            ended = self._authenticator.ended()
            if missing := {id_: ends_at for id_, ends_at in ended.items() if id_ not in held and ends_at > now}:
                self._write(missing, now)
        except redis.ResponseError as error:
            if not self._is_reported:
                log.warning("other viewers do not learn who has signed out: %s", error)
            self._is_reported = True
        except redis.RedisError:  # it cannot be reached, which is logged where the status is read
            return

    def _read(self, now: float) -> dict[str, float]:
        rows = self._client.zrangebyscore(ENDED_SESSIONS, now, "+inf", start=0, num=MAX_ENDED, withscores=True)
        found = cast(list[tuple[bytes, float]], rows)
        return {id_.decode(errors="replace"): ends_at for id_, ends_at in found if math.isfinite(ends_at)}

    def _write(self, ended: dict[str, float], now: float) -> None:
        with self._client.pipeline(transaction=False) as pipe:
            pipe.zadd(ENDED_SESSIONS, cast(Any, ended))
            pipe.zremrangebyscore(ENDED_SESSIONS, "-inf", now)
            pipe.pexpire(ENDED_SESSIONS, round(1000 * SESSION_DURATION_S))
            pipe.execute()
