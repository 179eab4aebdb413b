"""The Lua scripts in lua/, each of which reads or changes several keys atomically.

They are called by their hash. A Redis that does not know a script is sent it. A deployed Redis lets no user load
scripts; it loads them at its start (deploy/redis/start.sh). Without this version's scripts it raises NoPermissionError,
whose text says what to do.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from redis.commands.core import Script as RedisScript
from redis.exceptions import NoPermissionError, NoScriptError

from pipeline.bus.connection import Redis

SCRIPTS_MISSING = "it has not loaded this version's scripts, which it does at its start: restart Redis"
LUA = Path(__file__).parent / "lua"


class Script(RedisScript):
    """The script of lua/NAME.lua, to call with keys and args, also in a pipeline unless it is read-only.

    read_only: it only reads, so that users without write permission may call it.
    """

    def __init__(self, client: Redis, name: str, *, read_only: bool = False) -> None:
        super().__init__(client, _source(name))
        self._client = client
        self._read_only = read_only

    def __call__(self, keys: Any = None, args: Any = None, client: Any = None) -> Any:
        """Run the script and return its answer."""
        try:
            return self._read(keys or [], args or []) if self._read_only else super().__call__(keys, args, client)
        except NoPermissionError as error:
            if "script|load" in str(error):
                raise NoPermissionError(SCRIPTS_MISSING) from error
            raise

    def _read(self, keys: list[str], args: list[Any]) -> Any:
        try:
            return self._client.evalsha_ro(self.sha, len(keys), *keys, *args)
        except NoScriptError:
            self._client.script_load(self.script)
            return self._client.evalsha_ro(self.sha, len(keys), *keys, *args)


@functools.cache
def _source(name: str) -> str:
    return (LUA / f"{name}.lua").read_text()
