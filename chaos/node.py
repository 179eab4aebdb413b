"""One node of a cluster, set up as deploy/redis/cluster.conf does it.

A node announces the port of a proxy to clients, and its own port to the other nodes: what is done to the connections of
clients does not touch replication, failure detection and elections. (A node that has just started names the others by
their own ports to clients until it has heard from them.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import redis

from chaos.proxy import free_ports
from chaos.server import Server

PRIMARIES = 3
NODES = 2 * PRIMARIES
SETTINGS = {
    "cluster-enabled": "yes",
    "cluster-node-timeout": "2000",
    # a dead primary stops the commands for its own slots only, and any replica of it may take over
    "cluster-require-full-coverage": "no",
    "cluster-replica-validity-factor": "0",
    "repl-diskless-load": "swapdb",
    "repl-diskless-sync-delay": "0",
}


class NodePorts(NamedTuple):
    """Where a node listens, for commands and for the cluster bus, and where clients are told to connect."""

    port: int
    bus_port: int
    client_port: int


class Node(Server):
    """One server of a cluster, which keeps its identity in its folder.

    settings: additional ones of valkey.conf.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], ports: NodePorts, settings: Mapping[str, str]
    ) -> None:
        folder.mkdir()
        self.bus_port = ports.bus_port
        self.client_port = ports.client_port
        own = {"cluster-port": str(ports.bus_port), "cluster-announce-client-port": str(ports.client_port)}
        super().__init__(folder, environment, port=ports.port, settings=SETTINGS | own | dict(settings))

    @property
    def is_primary(self) -> bool:
        """Return whether it is a primary, as it knows."""
        return bool(self.client.info("replication")["role"] == "master")

    def slots(self) -> list[Any]:
        """Return the ranges of slots, each with its primary and replicas, as this node knows them."""
        return list(self.client.execute_command("CLUSTER SLOTS"))  # type: ignore[no-untyped-call]

    def whole_view(self) -> set[tuple[int, ...]] | None:
        """Return each range of slots with the ports of its primary and replica, as this node knows them.

        None while a range or a replica is missing, the node takes no commands, or it is not in sync with its primary
        or replica.
        """
        known = answer_of(lambda: (self.slots(), self.client.info("replication"), self.client.cluster("INFO")))
        if known is None:
            return None
        ranges, replication, cluster = known
        view = {(first, last, *(node[1] for node in nodes)) for first, last, *nodes in ranges}
        whole = len(view) == PRIMARIES and all(len(found) == 4 for found in view)
        synced = replication.get("master_link_status") == "up" or replication.get("slave0", {}).get("state") == "online"
        return view if whole and synced and cluster["cluster_state"] == "ok" else None


def free_node_ports(*, behind_proxies: bool) -> list[NodePorts]:
    """Return the ports of a cluster's nodes. behind_proxies: clients connect to other ports than those of the nodes."""
    free = iter(free_ports(3 * NODES))
    return [NodePorts(port, next(free), next(free) if behind_proxies else port) for port in islice(free, NODES)]


def answer_of(command: Callable[[], Any]) -> Any:
    """Return the answer of a command, or None when Redis fails."""
    try:
        return command()
    except redis.RedisError:
        return None
