"""The Lua scripts of this folder: each changes, or reads, all that belongs together at once.

They are called by their hash. A Redis that does not know one is given it, where it lets us; a locked one takes scripts
only while it starts (deploy/redis/start.sh), and NoPermissionError then says what to do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redis.commands.core import Script as RedisScript
from redis.exceptions import NoPermissionError, NoScriptError

from pipeline.bus.connection import Redis

NOT_THIS_VERSIONS = "it has not loaded this version's scripts, which it does when it starts: start Redis anew"

LUA = Path(__file__).parent / "lua"
_sources: dict[str, str] = {}


class Script(RedisScript):
    """One script, ready to be called with keys and args; in a pipeline too, unless it is read only."""

    def __init__(self, client: Redis, name: str, *, read_only: bool = False) -> None:
        super().__init__(client, source(name))
        self._client = client
        self._read_only = read_only

    def __call__(self, keys: Any = None, args: Any = None, client: Any = None) -> Any:
        """Run it, and return what it returns."""
        try:
            return self._read(keys or [], args or []) if self._read_only else super().__call__(keys, args, client)
        except NoPermissionError as error:
            if "script|load" in str(error):
                raise NoPermissionError(NOT_THIS_VERSIONS) from error
            raise

    def _read(self, keys: list[str], args: list[Any]) -> Any:
        try:
            return self._client.evalsha_ro(self.sha, len(keys), *keys, *args)
        except NoScriptError:
            self._client.script_load(self.script)
            return self._client.evalsha_ro(self.sha, len(keys), *keys, *args)


def source(name: str) -> str:
    """Return the text of a Lua script of this folder."""
    if name not in _sources:
        _sources[name] = (LUA / f"{name}.lua").read_text()
    return _sources[name]


def script(client: Redis, name: str) -> Script:
    """Return a Lua script of this folder that changes something."""
    return Script(client, name)


def reading_script(client: Redis, name: str) -> Script:
    """Return a Lua script of this folder that only reads, so that users who may write nothing can call it."""
    return Script(client, name, read_only=True)
