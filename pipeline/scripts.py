"""The Lua scripts of this folder: each changes all that belongs together at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.connection import Redis

_sources: dict[str, str] = {}


def source(name: str) -> str:
    """Return the text of a Lua script of this folder."""
    if name not in _sources:
        _sources[name] = Path(__file__).with_name(f"{name}.lua").read_text()
    return _sources[name]


def script(client: Redis, name: str) -> Any:
    """Return a Lua script of this folder, ready to be called with keys and args."""
    return client.register_script(source(name))
