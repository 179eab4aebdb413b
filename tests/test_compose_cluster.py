"""docker-compose.cluster.yml on a real engine: cameras are labelled, and again after each way in which a node ends."""

from __future__ import annotations

import binascii
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from conftest import wait_until
from containers import BUILD_S, Deployment, Watching, bring_engine_up, docker
from redis.crc import key_slot

from pipeline.bus.shards import tag_of

pytestmark = pytest.mark.alone  # a failover takes its time from the labels of two cores that do nothing else

SHARDS = 3
NODES = ("redis", "redis-2", "redis-3", "redis-4", "redis-5", "redis-6")
PROGRAMS = ("camera", "detector", "classifier", "viewer")
WITHIN_S = 60


@dataclass(frozen=True)
class Started:
    """The deployment and a page of its viewer."""

    deployment: Deployment
    page: Watching

    def labelled_since_now(self) -> None:
        """Wait until a frame that is captured from now on is labelled."""
        now = time.time()
        wait_until(lambda: self.page.labelled("demo", now), WITHIN_S, "frames are labelled")

    def pairs(self) -> list[list[str]]:
        """Return for each part of the slots the names of its primary and its replicas, as a running node knows them."""
        parts = sorted(self._parts(), key=lambda part: int(part[0]))
        return [[node[0] for node in nodes] for _, _, *nodes in parts]

    def pair_of_demo(self) -> list[str]:
        """Return the names of the primary and of the replicas of the camera's shard."""
        slot = key_slot(tag_of(binascii.crc_hqx(b"demo", 0) % SHARDS).encode())
        return [node[0] for first, last, *nodes in self._parts() if first <= slot <= last for node in nodes]

    def wait_for(self, pairs: list[list[str]]) -> None:
        """Wait until the primaries and replicas are these."""
        wait_until(lambda: self.pairs() == pairs, WITHIN_S, f"the primaries and replicas are {pairs}")

    def container(self, node: str) -> str:
        """Return the container of a node, also of one that has been killed."""
        (found,) = self.deployment.containers(node, stopped=True)
        return found

    def _parts(self) -> list[Any]:
        running = next(found[0] for found in map(self.deployment.containers, reversed(NODES)) if found)
        password = f"REDISCLI_AUTH={self.deployment.secrets['REDIS_ADMIN_PASSWORD']}"
        asked = ("redis-cli", "--user", "admin", "--json", "cluster", "slots")
        done = subprocess.run(["docker", "exec", "-e", password, running, *asked], capture_output=True, check=False)
        return list(json.loads(done.stdout)) if done.returncode == 0 and done.stdout.startswith(b"[") else []


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    bring_engine_up()
    deployment = Deployment(tmp_path_factory.mktemp("deployment"), "docker-compose.cluster.yml")
    deployment.compose("build", "detector", within_s=BUILD_S)
    try:
        deployment.compose("up", "-d", *NODES, *PROGRAMS)
        wait_until(deployment.answers, WITHIN_S, "the viewer answers")
        page = Watching(deployment, "demo")
        yield Started(deployment, page)
        page.close()
    finally:
        deployment.remove()


def test_a_camera_is_labelled_again_when_the_primary_of_its_shard_has_gone_and_when_it_is_back(
    started: Started,
) -> None:
    started.labelled_since_now()
    started.wait_for([["redis", "redis-4"], ["redis-2", "redis-5"], ["redis-3", "redis-6"]])
    primary, replica = started.pair_of_demo()

    docker("kill", "--signal", "KILL", started.container(primary))
    started.labelled_since_now()
    wait_until(lambda: started.pair_of_demo() == [replica], WITHIN_S, "the replica has taken over")
    docker("start", started.container(primary))
    wait_until(lambda: started.pair_of_demo() == [replica, primary], WITHIN_S, "the node is back as a replica")
    docker("restart", "-t", "0", started.container(replica))  # before the others see that it has gone

    wait_until(lambda: started.pair_of_demo() == [primary, replica], WITHIN_S, "they have changed places again")
    started.labelled_since_now()


def test_a_cluster_that_loses_all_primaries_or_all_nodes_is_whole_again_by_itself(started: Started) -> None:
    before = started.pairs()

    docker("restart", "-t", "0", *(started.container(primary) for primary, _ in before))
    started.wait_for([[replica, primary] for primary, replica in before])
    started.labelled_since_now()
    docker("restart", "-t", "0", *map(started.container, NODES))
    started.labelled_since_now()

    started.wait_for([["redis", "redis-4"], ["redis-2", "redis-5"], ["redis-3", "redis-6"]])


def test_a_part_whose_nodes_are_both_lost_is_served_again_when_they_are_back(started: Started) -> None:
    pair = started.pair_of_demo()

    docker("restart", "-t", "0", *map(started.container, pair))
    started.labelled_since_now()

    wait_until(lambda: started.pair_of_demo() == pair, WITHIN_S, "both are back")


def test_no_node_keeps_anything_on_a_disk(started: Started) -> None:
    mounted = {
        one["Name"].lstrip("/"): [mount["Type"] for mount in one["Mounts"] if mount["RW"]]
        for one in map(inspected, map(started.container, NODES))
    }

    assert len(mounted) == len(NODES)
    assert not any("volume" in kinds or "bind" in kinds for kinds in mounted.values())


def inspected(container: str) -> dict[str, Any]:
    (found,) = json.loads(docker("inspect", container))
    return dict(found)
