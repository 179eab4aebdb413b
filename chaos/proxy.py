"""A TCP proxy in front of Redis that cuts and refuses connections. It runs in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

HOST = "127.0.0.1"
PORTS = (20_000, 32_000)  # Linux takes those of outgoing connections from 32768 on
CHUNK = 65_536  # bytes; a frame's JPEG takes several, so a command is cut at any of its bytes
IDLE_CUT_S = 0.5  # a connection without traffic is closed so long after it was to be cut
STARTED_TIMEOUT_S = 10.0


class Proxy(contextlib.AbstractContextManager["Proxy"]):
    """Forward connections to a port of this machine until the block ends. port: where it listens.

    Args:
        rng: how much of what is cut half-way is forwarded.
        port: None for any that is free.
    """

    def __init__(self, target_port: int, rng: random.Random, port: int | None = None) -> None:
        self._target_port = target_port
        self._rng = rng
        self.port = port or free_port()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()
        self._call(self._listen)

    def cut(self) -> None:
        """Cut every connection half-way through what it forwards next, in either direction."""
        self._call(self._cut)

    def refuse(self) -> None:
        """Cut every connection, and refuse new ones until `accept()`."""
        self._call(self._refuse)

    def accept(self) -> None:
        """Accept connections again."""
        self._call(self._listen)

    def __exit__(self, *_: object) -> None:
        """Close everything."""
        self._call(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, work: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            await work()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(STARTED_TIMEOUT_S)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._connect, HOST, self.port)

    async def _cut(self) -> None:
        for connection in self._connections:
            connection.cut = True
            self._loop.call_later(IDLE_CUT_S, connection.close)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _close(self) -> None:
        await self._refuse()
        for connection in list(self._connections):
            connection.close()
        tasks = [task for connection in self._connections for task in connection.tasks]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_reader, to_writer = await asyncio.open_connection(HOST, self._target_port)
        except OSError:  # Redis was killed: its clients are refused as if there were no proxy
            writer.transport.abort()
            return
        connection = _Connection((writer, to_writer))
        self._connections.add(connection)
        pumps = (self._pump(connection, reader, to_writer), self._pump(connection, to_reader, writer))
        connection.tasks = [asyncio.ensure_future(pump) for pump in pumps]
        await asyncio.gather(*connection.tasks)
        self._connections.discard(connection)

    async def _pump(self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK):
                if connection.cut:
                    writer.write(chunk[: self._rng.randrange(len(chunk))])
                    break
                writer.write(chunk)
                await writer.drain()
        connection.close()


class Proxies(contextlib.AbstractContextManager["Proxies"]):
    """Several proxies as one. ports: where each one listens, by the port that it forwards to."""

    def __init__(self, ports: Mapping[int, int], rng: random.Random) -> None:
        with contextlib.ExitStack() as stack:
            self._proxies = [stack.enter_context(Proxy(target, rng, port)) for target, port in ports.items()]
            self._running = stack.pop_all()

    def cut(self) -> None:
        """Cut every connection half-way through what it forwards next, in either direction."""
        for proxy in self._proxies:
            proxy.cut()

    def refuse(self) -> None:
        """Cut every connection, and refuse new ones until `accept()`."""
        for proxy in self._proxies:
            proxy.refuse()

    def accept(self) -> None:
        """Accept connections again."""
        for proxy in self._proxies:
            proxy.accept()

    def __exit__(self, *_: object) -> None:
        """Close everything."""
        self._running.close()


class _Connection:
    """A connection and its other half. cut: the next bytes are forwarded in part, then both are closed."""

    def __init__(self, writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self.cut = False
        self.tasks: list[asyncio.Future[Any]] = []
        self._writers = writers

    def close(self) -> None:
        """Close both ends."""
        for writer in self._writers:
            writer.close()


def free_port() -> int:
    """Return a port of this machine that nobody listens on, nor gets for an outgoing connection later."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return several such ports."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            port = random.randrange(*PORTS)
            with contextlib.suppress(OSError):
                held.enter_context(socket.socket()).bind((HOST, port))
                found.append(port)
    return found
