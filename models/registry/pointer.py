"""Which version of a registry is current: the record in its current.json, and what goes into it."""

from __future__ import annotations

import getpass
import socket
from datetime import UTC, datetime

import msgspec

from models.classifier.card import Version


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """A time during which a version was current. since: UTC, ISO 8601. by: user@host."""

    version: Version
    since: str
    by: str


class Pointer(Promotion, frozen=True, kw_only=True):
    """Which version is current. history: those that were before it and that one can go back to, oldest first."""

    history: list[Promotion] = []


def pointer_text(pointer: Pointer) -> bytes:
    """Return what current.json holds, for reading by people too."""
    return msgspec.json.format(msgspec.json.encode(pointer), indent=2) + b"\n"


def now() -> str:
    """Return the time in UTC, ISO 8601, as cards and pointers carry it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def who() -> str:
    """Return who works on the registry: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"
