"""The cluster of `maskwatch chaos`, without proxies, and what tests do to it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis.crc import key_slot

from chaos.cluster import Cluster
from chaos.node import Node, free_node_ports

NODE_TIMEOUT_MS = 1000  # tests wait for many failovers


class RunningCluster(Cluster):
    """A cluster and what tests do to it."""

    def url_of(self, user: str) -> str:
        """Return where clients connect as a user, written NAME:PASSWORD."""
        return self.url.replace("://", f"://{user}@")

    def kill_primary_of(self, key: str) -> None:
        """Kill the node that serves a key."""
        self.primary_of(key).kill()

    def replica_of(self, key: str) -> Node:
        """Return the replica of the node that serves a key."""
        primary, slot = self.primary_of(key), key_slot(key.encode())
        (port,) = [replica[1] for first, last, _, replica in primary.slots() if first <= slot <= last]
        return next(node for node in self.nodes if node.port == port)

    def start(self) -> None:
        """Start the nodes that do not run, and wait until nothing is missing."""
        super().start()
        self.wait_until_whole()


@contextmanager
def running_cluster(*, users: str = "") -> Iterator[RunningCluster]:
    """Run a cluster until the block ends. users: lines of an ACL file."""
    folder = Path(tempfile.mkdtemp(prefix="mw-"))
    acl = folder / "users.acl"
    acl.write_text(f"user default on nopass ~* &* +@all\n{users}")
    settings = {"aclfile": str(acl), "cluster-node-timeout": str(NODE_TIMEOUT_MS)}
    with RunningCluster(folder, {}, free_node_ports(behind_proxies=False), settings) as cluster:
        yield cluster
    shutil.rmtree(folder)
