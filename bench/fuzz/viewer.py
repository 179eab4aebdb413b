"""A viewer in a process of its own, as users start it, with its log, and cameras for it to show."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bench.fuzz.message import FACE
from bench.fuzz.rounds import BrokenPromise
from pipeline.bus.keys import LIVE_PIXELS_MS
from pipeline.bus.messages import Frame, FrameResult, LeaseHolder, encode, frame_id
from pipeline.bus.reader import Reader
from pipeline.bus.shards import Bus
from pipeline.bus.writer import Writer

MAX_GROWTH = 150_000_000  # bytes that the viewer may take on top of what it had after the first rounds
WARM_UP_ROUNDS = 5
MAX_LOG = 2_000_000  # bytes; rejected requests are logged once a second at most
SIGNS = ("Traceback", " ERROR ", " CRITICAL ")  # of what must not be in its log
ONCE = "(further occurrences of this error will be logged with level INFO)"  # Engine.IO about a client, once


class Viewer:
    """A running viewer. url: without a path."""

    def __init__(self, process: subprocess.Popen[str], log: IO[bytes], url: str) -> None:
        self.url = url
        self.address = ("127.0.0.1", int(url.rpartition(":")[2]))
        self._process = process
        self._log = log
        self._log_at = 0
        self._rounds = 0
        self._first_memory = 0

    def connect(self) -> socket.socket:
        """Return a connection."""
        return socket.create_connection(self.address, timeout=10)

    def check(self) -> None:
        """Check that it runs, in no more memory than before, and that its log has no error."""
        if self._process.poll() is not None:
            raise BrokenPromise(f"the viewer ended with status {self._process.returncode}")
        self._log.seek(self._log_at)
        new = self._log.read().decode(errors="backslashreplace")
        self._log_at = self._log.tell()
        if any(sign in line for line in new.splitlines() for sign in SIGNS if ONCE not in line):
            raise BrokenPromise(f"the viewer's log has an error\n{new}")
        if self._log_at > MAX_LOG:
            raise BrokenPromise(f"the viewer's log has {self._log_at} bytes")
        self._rounds += 1
        memory = _memory_of(self._process.pid)
        if self._rounds == WARM_UP_ROUNDS:
            self._first_memory = memory
        if self._rounds > WARM_UP_ROUNDS and memory > self._first_memory + MAX_GROWTH:
            raise BrokenPromise(f"the viewer has grown from {self._first_memory} to {memory} bytes")


@contextmanager
def running_viewer(redis_url: str, **variables: str) -> Iterator[Viewer]:
    """Run a viewer while the block runs. variables: of its environment, without MASKWATCH_."""
    environment = os.environ | {f"MASKWATCH_{name.upper()}": value for name, value in variables.items()}
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "maskwatch", "view", "--port", "0", "--parent-fd", str(read_end)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            env=environment | {"MASKWATCH_REDIS_URL": redis_url},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            pass_fds=[read_end],
            start_new_session=True,
        )
        os.close(read_end)
        try:
            assert process.stdout
            yield Viewer(process, log, process.stdout.readline().removeprefix("Viewer: ").strip().rstrip("/"))
        finally:
            os.close(write_end)  # it ends then
            process.wait(10)


class Camera:
    """A camera of which each frame is labelled at once."""

    def __init__(self, bus: Bus, name: str, jpeg: bytes, size: tuple[int, int]) -> None:
        self.name = name
        self._jpeg, self._size = jpeg, size
        self._shard = bus.shard_of(name)
        token = encode(LeaseHolder(host="here", pid=1, token="t"))  # noqa: S106 -- opens nothing
        self._writer = Writer(self._shard, camera=name, token=token, pixels_ms=LIVE_PIXELS_MS)
        self._reader = Reader(bus, stage="frames", record_type=Frame, consumer=f"detector-{name}")
        self._start = int(1000 * self._shard.clock.now())
        self._seq = 0
        bus.client.zadd(self._shard.key("cameras"), {name: self._shard.clock.now()})

    def publish(self) -> str:
        """Publish the next frame, and label what waits; return the frame's ID."""
        self._seq += 1
        identity, now = frame_id(self.name, self._start, self._seq), self._shard.clock.now()
        frame = Frame(
            frame_id=identity,
            camera=self.name,
            start=self._start,
            seq=self._seq,
            width=self._size[0],
            height=self._size[1],
            pixels_key=self._shard.key("pixels", identity),
            captured_at=now,
            deadline_at=now + 60,
        )
        self._writer.publish(frame, self._jpeg)
        for entry in self._reader.read(10):
            result = FrameResult.for_frame(entry.record, faces=[FACE], model="m", seconds={})
            self._reader.finish(entry, result)
        return identity


def _memory_of(pid: int) -> int:
    """Return the resident memory of a process and of its children, bytes."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") + sum(_memory_of(int(child)) for child in children)
