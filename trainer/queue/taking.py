"""From the queue into a trainer's hands: a job taken, or put back when somebody died in the very moment between.

rq moves a job's id from the queue to a list of taken ones, which it leaves when a trainer has written that the job is
its own. What is no job is thrown away, with a line in the log. RedisError comes through.
"""

from __future__ import annotations

import logging
from typing import cast

from rq import Queue

from trainer.queue.order import TrainingJob, find

log = logging.getLogger(__name__)

TAKE_S = 1  # how long one look into the queue waits for a job


class Taking:
    """One trainer's way to jobs."""

    def __init__(self, queue: Queue) -> None:
        """Take jobs from a queue."""
        self._redis = queue.connection
        self._waits_key = queue.key
        self._taken_key = queue.intermediate_queue_key
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
