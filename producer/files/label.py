"""Label every frame of a file or folder: pictures in, JSON lines and labelled pictures or video out, in order.

Complete mode: every frame gets exactly one line, and one that cannot be labelled gets a line with its error. `Sender`
does the work; this module gives it a camera's name in Redis and tidies up after it.
"""

from __future__ import annotations

import secrets
import sys
import time
from typing import cast

import click

from pipeline.bus.keys import FILE_RETENTION_S
from pipeline.bus.leases import Lease
from pipeline.bus.messages import FILE_PREFIX
from pipeline.bus.shards import Shard
from pipeline.bus.status import WORKER_COMMANDS, missing_workers
from pipeline.runtime.settings import Settings
from pipeline.runtime.worker_context import WorkerContext, worker_context
from producer.files.outputs import Outputs
from producer.files.sender import Sender
from producer.sources.source import Source

WORKERS_TIMEOUT_S = 1.5  # how long to wait for the heartbeats of workers on a Redis that was named


class NoWorkers(Exception):
    """Redis answers, but there is no detector or no classifier; the message says what to start."""


def main(settings: Settings, source: Source, outputs: Outputs, *, own_workers: bool) -> tuple[float, bool]:
    """Label a whole source.

    Args:
        own_workers: the workers are this command's own and may still be starting.

    Returns:
        how long it took, seconds, and whether the whole source was labelled (False when the process was stopped).

    Raises:
        NoWorkers: there are no workers.
        redis.RedisError: Redis fails before the first frame; later it is waited for.
        BadOutput: what is written cannot be written.
        SourceFailed: the source broke off; what came before is written.
    """
    camera = FILE_PREFIX + secrets.token_hex(4)
    started = time.monotonic()
    with worker_context("camera", settings, camera=camera) as context:
        if not own_workers:
            check_workers(context)
        shard = context.bus.shard_of(camera)
        remove_old_runs(shard)
        lease = Lease(shard, camera, context.wait)
        lease.acquire()
        lease.keep_renewing()
        sender = Sender(context, shard, lease.token, camera, settings, source, outputs)
        with click.progressbar(
            length=source.total or 0, label="labelling", file=sys.stderr, show_pos=True, hidden=not sys.stderr.isatty()
        ) as bar:
            while context.should_run() and not sender.done:
                with context.reconnecting():
                    bar.update(sender.step())
        sender.close()
        with context.reconnecting():
            lease.release()
    if sender.source_error is not None:
        raise sender.source_error
    return time.monotonic() - started, sender.done


def check_workers(context: WorkerContext) -> None:
    """Wait until there are a detector and a classifier.

    Raises:
        NoWorkers: says which role is missing.
    """
    ends = time.monotonic() + WORKERS_TIMEOUT_S
    while missing := missing_workers(context.client):
        if time.monotonic() > ends or context.wait(0.1):
            commands = " and ".join(f"`{WORKER_COMMANDS[role]}`" for role in missing)
            roles = " and no live ".join(missing)
            raise NoWorkers(
                f"no live {roles} at {context.redis_location}; start {commands} there, or leave out --redis"
            )


def remove_old_runs(shard: Shard) -> None:
    """Remove finished runs from the list of cameras once they are no longer shown."""
    cutoff = shard.clock.now() - FILE_RETENTION_S
    old = cast(list[bytes], shard.client.zrangebyscore(shard.key("cameras"), "-inf", cutoff))
    if files := [name for name in old if name.startswith(FILE_PREFIX.encode())]:
        shard.client.zrem(shard.key("cameras"), *files)
