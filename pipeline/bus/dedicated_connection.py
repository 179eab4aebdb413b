"""Keep one connection to Redis for one thread: commands in, raw answers out, several of them in one round trip.

A redis-py client takes a connection from a pool for each command and checks it, which costs more processor time than
the command. A worker or camera sends all commands for its frames by a dedicated connection instead, which is checked
only after a pause. In a cluster there is one to each primary that is talked to. Errors are those of a client: all are
redis.RedisError.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

import hiredis
import redis
from redis.connection import ConnectionPool
from redis.exceptions import ClusterDownError, MovedError

from pipeline.bus.cluster import Cluster, run_at_key_of
from pipeline.bus.connection import Redis

CHECK_AFTER_S = 0.1  # without a command
JOIN_BYTES = 16_384  # commands that are smaller together are sent in one piece

Command: TypeAlias = tuple[Any, ...]
Answered: TypeAlias = Callable[[Any], redis.RedisError | None]


class DedicatedConnection:
    """Send commands by the same connection each time; it is opened again after it was lost."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._is_cluster = isinstance(client, Cluster)  # asked once: for a client of redis-py it takes microseconds
        self._deferred: list[tuple[Command, Answered]] = []
        self._connections: dict[ConnectionPool, Any] = {}
        self._used_at = 0.0
        weakref.finalize(self, _close, self._connections).atexit = False

    def execute_command(self, *command: Any) -> Any:
        """Run one command and return its answer as Redis gives it."""
        (answer,) = self.execute_commands(command)
        if isinstance(answer, redis.ResponseError):
            raise answer
        return answer

    def execute_commands(self, *commands: Command) -> list[Any]:
        """Run commands one after the other, for keys of one slot; return an answer or a ResponseError for each.

        Deferred commands are run before them. When the connection is lost, they stay deferred.
        """
        deferred = self._deferred
        together = (*(command for command, _ in deferred), *commands)
        if not together:
            return []
        if self._is_cluster:
            answers = run_at_key_of(self.client, together[0], lambda node: self._run_on(node, together))
        else:
            answers = self._run_on(self.client, together)
        self._deferred = []
        errors = [
            error for (_, answered), answer in zip(deferred, answers, strict=False) if (error := answered(answer))
        ]
        if errors:
            raise errors[0]
        return answers[len(deferred) :]

    def defer(self, command: Command, answered: Answered) -> None:
        """Send a command with the next one, in one round trip; in a cluster at once, as the next may go elsewhere.

        answered: is called with the answer, which may be a ResponseError, before the next command returns; an error
            that it returns is raised by the next command.
        """
        self._deferred.append((command, answered))
        if self._is_cluster:
            self.flush()

    def flush(self) -> None:
        """Send what is deferred."""
        self.execute_commands()

    def _run_on(self, node: redis.Redis, commands: tuple[Command, ...]) -> list[Any]:
        connection = self._connection_to(node)
        if time.monotonic() - self._used_at > CHECK_AFTER_S and connection.is_connected:
            _check(connection)
        try:
            connection.send_packed_command(_joined([hiredis.pack_command(command) for command in commands]))
            answers = [_read(connection) for _ in commands]
        except BaseException:
            connection.disconnect()  # an answer that is still to come must not be taken for that of the next command
            raise
        self._used_at = time.monotonic()
        if isinstance(answers[0], (MovedError, ClusterDownError)):  # nothing has run
            raise answers[0]
        return answers

    def _connection_to(self, node: redis.Redis) -> Any:
        pool = node.connection_pool
        if pool not in self._connections:
            self._connections[pool] = pool.get_connection()
        return self._connections[pool]


def _joined(packed: list[bytes]) -> list[bytes]:
    """Return what to send in one piece if it is small, so that it takes one system call."""
    return [b"".join(packed)] if sum(map(len, packed)) < JOIN_BYTES else packed


def _check(connection: Any) -> None:
    """Close a connection that the server has closed, so that the next command opens it again."""
    try:
        closed = connection.can_read()  # nothing was asked
    except redis.ConnectionError:
        closed = True
    if closed:
        connection.disconnect()


def _close(connections: dict[ConnectionPool, Any]) -> None:
    for pool, connection in connections.items():
        connection.disconnect()
        pool.release(connection)


def _read(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error
