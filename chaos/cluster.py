"""The cluster of a run: three primaries with a replica each, and a client that reaches the nodes without proxies."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from chaos.node import PRIMARIES, Node, NodePorts, answer_of
from chaos.proxy import HOST
from pipeline.bus.cluster import Cluster as Client
from pipeline.bus.connection import Redis, connect

SHARDS = 3
WHOLE_TIMEOUT_S = 30.0
CHECK_INTERVAL_S = 0.05


class Cluster(contextlib.AbstractContextManager["Cluster"]):
    """A cluster that is killed when the block ends. url: of the nodes, as clients see them. client: connected directly.

    Args:
        folder: for the folders of the nodes.
        environment: additional variables of the nodes.
        ports: of its nodes.
        settings: additional ones of valkey.conf.
    """

    shards = SHARDS

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        ports: Sequence[NodePorts],
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.url = f"redis-cluster://{','.join(f'{HOST}:{one.client_port}' for one in ports)}/0"
        self.nodes: list[Node] = []
        self._direct = {one.client_port: one.port for one in ports}
        self.client = self.connect()
        with contextlib.ExitStack() as stack:
            for number, one in enumerate(ports, start=1):
                node = Node(folder / f"node-{number}", environment, one, settings or {})
                stack.enter_context(node)
                self.nodes.append(node)
            _create(self.nodes)
            self.wait_until_whole()
            self._running = stack.pop_all()

    @property
    def is_whole(self) -> bool:
        """Return whether all nodes agree that nothing is missing, and each primary has a replica in sync."""
        views = [node.whole_view() if node.running else None for node in self.nodes]
        return views[0] is not None and all(view == views[0] for view in views)

    def primary_of(self, key: str) -> Node:
        """Return the node that serves a key, as most nodes know; it may have died."""
        slot = key_slot(key.encode())
        ports = [
            primary[1]
            for node in self.nodes
            if node.running
            for first, last, primary, *_ in answer_of(node.slots) or []
            if first <= slot <= last
        ]
        found = max(ports, key=ports.count)
        return next(node for node in self.nodes if found in (node.client_port, node.port))

    def connect(self) -> Redis:
        """Return another client."""
        seeds = [(HOST, client_port) for client_port in self._direct]
        return Client(seeds, lambda address: connect(f"redis://{HOST}:{self._direct.get(address[1], address[1])}/0"))

    def start(self) -> None:
        """Start the nodes that do not run."""
        for node in self.nodes:
            node.start()

    def kill(self) -> None:
        """Kill all nodes."""
        for node in self.nodes:
            node.kill()

    def empty(self) -> None:
        """Let all primaries, and so their replicas, forget everything."""
        self._on_each(lambda node: node.empty() if node.is_primary else None)

    def fill_memory(self) -> None:
        """Let all nodes use less memory than they use already."""
        self._on_each(Node.fill_memory)

    def free_memory(self) -> None:
        """Let all nodes use as much memory as at their start."""
        self._on_each(Node.free_memory)

    def wait_until_whole(self) -> None:
        """Wait until nothing is missing."""
        _wait_until(lambda: self.is_whole, "the cluster is whole")

    def __exit__(self, *_: object) -> None:
        """Kill all nodes."""
        self.client.close()
        self._running.close()

    def _on_each(self, work: Callable[[Node], None]) -> None:
        for node in self.nodes:
            if node.running:
                work(node)


def _create(nodes: Sequence[Node]) -> None:
    """Make one cluster of nodes that do not know each other: the first three become primaries."""
    primaries, replicas = nodes[:PRIMARIES], nodes[PRIMARIES:]
    for node in nodes[1:]:
        nodes[0].client.cluster("MEET", HOST, node.port, node.bus_port)
    bounds = [round(number * REDIS_CLUSTER_HASH_SLOTS / PRIMARIES) for number in range(PRIMARIES + 1)]
    for number, primary in enumerate(primaries):
        primary.client.cluster("ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
    for primary, replica in zip(primaries, replicas, strict=True):
        name = primary.client.cluster("MYID").decode()
        _wait_until(partial(_knows, replica, name), "the nodes have met")
        replica.client.cluster("REPLICATE", name)


def _knows(node: Node, name: str) -> bool:
    return any(known["node_id"] == name for known in node.client.cluster("NODES").values())


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + WHOLE_TIMEOUT_S
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(f"not within {WHOLE_TIMEOUT_S:.0f} s: {what}")
        time.sleep(CHECK_INTERVAL_S)
