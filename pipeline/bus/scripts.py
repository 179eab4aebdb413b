"""The Lua scripts in lua/, each of which reads or changes several keys atomically.

They are called by their hash. A Redis that does not know a script is sent it; so is a replica that becomes a cluster's
primary without knowing it. A deployed Redis lets no user load scripts; it loads them at its start
(deploy/redis/start.sh). Without this version's scripts it raises NoPermissionError, whose text says what to do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import redis
from redis.client import Pipeline
from redis.commands.core import Script as RedisScript
from redis.exceptions import NoPermissionError, NoScriptError

from pipeline.bus import messages
from pipeline.bus.cluster import run_at
from pipeline.bus.connection import Redis
from pipeline.bus.dedicated_connection import DedicatedConnection
from pipeline.bus.messages import FrameIdentity, FrameResult

SCRIPTS_MISSING = "it has not loaded this version's scripts, which it does at its start: restart Redis"
LUA = Path(__file__).parent / "lua"
COMMON = LUA / "common.lua"


class Script(RedisScript):
    """The script of lua/NAME.lua, to call with keys and args, also in a pipeline unless it is read-only.

    read_only: it only reads, so that users without write permission may call it.
    """

    def __init__(self, client: Redis, name: str, *, read_only: bool = False) -> None:
        super().__init__(client, source_of(name))
        self._command = "EVALSHA_RO" if read_only else "EVALSHA"
        self._is_loaded = False  # as far as this process knows

    def __call__(self, keys: Any = None, args: Any = None, client: Any = None) -> Any:
        """Run the script and return its answer.

        Args:
            keys: at least one; of a cluster all in one slot.
            client: a pipeline, or a dedicated connection; None for the client of this script.
        """
        client, command = client or self.registered_client, self.command(keys or [], args or [])
        if not isinstance(client, DedicatedConnection) and isinstance(client, Pipeline):
            client.scripts.add(self)  # which loads it first if it has to
        try:
            return client.execute_command(*command)
        except NoScriptError:
            self._load(command[3])
            return client.execute_command(*command)

    def defer(
        self, keys: Sequence[str], args: Sequence[Any], connection: DedicatedConnection, note: Callable[[Any], None]
    ) -> None:
        """Run the script with the next command on a connection; `note` is called with its answer unless it fails.

        The first time it is run at once: it may have to be loaded, and the next command may wait for long.
        """
        command = self.command(keys, args)

        def answered(answer: Any) -> redis.RedisError | None:
            try:
                if isinstance(answer, NoScriptError):
                    answer = self(keys, args, connection)
            except redis.RedisError as error:
                answer = error
            if isinstance(answer, redis.RedisError):
                return answer
            self._is_loaded = True
            note(answer)
            return None

        connection.defer(command, answered)
        if not self._is_loaded:
            connection.flush()

    def command(self, keys: Sequence[str], args: Sequence[Any]) -> tuple[Any, ...]:
        """Return the command that runs the script, which fails with NoScriptError if Redis does not know it."""
        return (self._command, self.sha, len(keys), *keys, *args)

    def _load(self, key: str) -> None:
        try:
            run_at(cast(Redis, self.registered_client), key, "SCRIPT LOAD", self.script)
        except NoPermissionError as error:
            raise NoPermissionError(SCRIPTS_MISSING) from error


def frame_arguments(record: FrameIdentity, *, data_key: str, other_key: str = "") -> list[Any]:
    """Return a frame as the scripts of the queue take it (common.lua).

    data_key: of what its worker needs. other_key: of something else that has no use once a newer frame replaces it.
    """
    stale = messages.encode(FrameResult.dropped(record, "stale"))
    identity = [record.camera, record.frame_id, record.start, record.seq]
    return [*identity, messages.encode(record), stale, data_key, other_key]


def mode_of(record: FrameIdentity) -> str:
    """Return the mode of a frame as the scripts take it."""
    return "complete" if record.deadline_at is None else "live"


@functools.cache
def source_of(name: str) -> str:
    """Return what Redis is sent: the functions that all scripts share, then the script."""
    return COMMON.read_text() + (LUA / f"{name}.lua").read_text()
