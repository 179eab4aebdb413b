"""Debian's PostgreSQL in a temporary folder: start it, stop it, and fill it with databases."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import sqlalchemy as sa

OWNER = "postgres" if os.geteuid() == 0 else None  # PostgreSQL does not run as root
USER = "maskwatch"
FAST = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "shared_buffers=32MB", "max_wal_size=128MB")


class PostgresServer:
    """A server in a folder. programs: the folder of initdb and postgres."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count(1)
        options = ("-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        self._run("initdb", "-D", str(folder / "data"), *options)

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        settings = (
            f"port={self._port}",
            f"unix_socket_directories={self._folder}",
            "listen_addresses=127.0.0.1",
            *FAST,
        )
        flags = [word for setting in settings for word in ("-c", setting)]
        command = [str(self._programs / "postgres"), "-D", str(self._folder / "data"), *flags]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, user=OWNER, cwd=self._folder)
        self._run("pg_isready", "-q", "-t", "30", "-h", "127.0.0.1", "-p", str(self._port), tries=100)

    def stop(self) -> None:
        """Stop the server at once, as a power cut does; what was committed is there again after start()."""
        if self._process:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
        self._process = None

    def create_database(self) -> str:
        """Return the URL of a new, empty database."""
        name = f"events_{next(self._names)}"
        self._execute(f"CREATE DATABASE {name}")
        return self._url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database, whatever is connected to it."""
        self._execute(f"DROP DATABASE {sa.make_url(url).database} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        engine = sa.create_engine(self._url("postgres").replace("://", "+psycopg://"), poolclass=sa.NullPool)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(statement)

    def _url(self, name: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self._port}/{name}"

    def _run(self, program: str, *arguments: str, tries: int = 1) -> None:
        """Run a program until it succeeds."""
        command = [str(self._programs / program), *arguments]
        for left in reversed(range(tries)):
            done = subprocess.run(command, capture_output=True, text=True, user=OWNER, cwd=self._folder, timeout=60)
            if done.returncode == 0 or not left:
                break
            if self._process and self._process.poll() is not None:
                raise RuntimeError((self._folder / "log").read_text())
        if done.returncode:
            raise RuntimeError(done.stderr)


@contextmanager
def running_postgresql(programs: Path) -> Iterator[PostgresServer]:
    """Yield a server that runs, and remove it in the end."""
    folder = Path(tempfile.mkdtemp(prefix="mw-"))
    if OWNER:
        shutil.chown(folder, OWNER)
    server = PostgresServer(programs, folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def postgresql_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs; None if it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parent if found else None


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
