"""Which version of a registry is current: the record in current.json, and who and when for it."""

from __future__ import annotations

import getpass
import socket
from datetime import UTC, datetime

import msgspec

from models.card import Version


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """When a version became current, and who made it so.

    since: UTC, ISO 8601. by: user@host. Both are empty for the built-in version of a registry that holds no other one.
    """

    version: Version
    since: str
    by: str


class CurrentVersion(Promotion, frozen=True, kw_only=True):
    """Which version is current. history: the versions before it that rollback can go back to, oldest first."""

    history: list[Promotion] = []


def utc_now() -> str:
    """Return the time in UTC, ISO 8601, as cards and current.json have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def user_and_host() -> str:
    """Return who is running this process: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"
