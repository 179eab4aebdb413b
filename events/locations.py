"""Where events are kept: URLs of databases, checked without loading what uses them."""

from __future__ import annotations

import os
import re
from pathlib import Path

SQLITE = "sqlite:///"
POSTGRESQL = re.compile(r"postgresql://[^/\s]+/[^/\s]+")
WANTED = "write sqlite:///FOLDER/events.db or postgresql://USER:PASSWORD@HOST/NAME"


class BadDatabase(ValueError):
    """A URL that names no database that can be used; says what to write."""


def database_url(url: str | None) -> str:
    """Return the URL of a database, with an absolute path if it is a file.

    Args:
        url: None for the file in the folder of this user's data.

    Raises:
        BadDatabase: it names no SQLite file and no PostgreSQL.
    """
    if url is None:
        folder = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        return sqlite_url(Path(folder) / "maskwatch" / "events.db")
    if POSTGRESQL.fullmatch(url):
        return url
    file = url.removeprefix(SQLITE)
    if file == url or not file or file.startswith(":") or "?" in file:
        raise BadDatabase(f"--database: this URL names no database that can hold events; {WANTED}")
    return sqlite_url(Path(file))


def sqlite_url(path: Path) -> str:
    """Return the URL of a file."""
    return f"{SQLITE}{path.absolute()}"
