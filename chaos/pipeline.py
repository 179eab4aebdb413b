"""A pipeline to be broken: Redis or a cluster, proxies in front of it, workers and a viewer, watched by an observer.

All processes reach Redis by the proxies.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import redis

from chaos.cluster import Cluster
from chaos.faults import WORKERS
from chaos.janitor import MARK
from chaos.node import free_node_ports
from chaos.observer import Observer
from chaos.processes import Processes
from chaos.proxy import HOST, Proxies, Proxy, free_port
from chaos.server import Server
from pipeline.bus.shards import Bus
from pipeline.bus.status import read_heartbeats

STARTED_TIMEOUT_S = 60.0
# Of setproctitle, which gunicorn uses: a process keeps the variables by which the janitor finds it.
KEEP_ENVIRONMENT = {"SPT_NOENV": "1"}
TICK_S = 0.02
FLAGS = {"detect": ("--detector-px", "320", "--threads", "1"), "classify": ("--threads", "1"), "view": ()}


class NotStarted(Exception):
    """A pipeline did not start; says which process, and where its log is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """The parts of a running pipeline.

    bus: its data, by connections that are never cut. port: of the viewer. rng: for what a fault leaves open.
    """

    processes: Processes
    server: Server | Cluster
    bus: Bus
    proxy: Proxy | Proxies
    observer: Observer
    port: int
    rng: random.Random

    def wait_until(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Supervise the processes until a condition holds; return False when it does not in time."""
        ends = time.monotonic() + within_s
        while True:
            self.processes.supervise()
            if self._holds(condition):
                return True
            if time.monotonic() > ends:
                return False
            time.sleep(TICK_S)

    def missing(self) -> list[str]:
        """Return the names of processes without a heartbeat."""
        live = {beat.pid for beat in read_heartbeats(self.server.client)}
        return [name for name in self.processes.names() if not live.intersection(self.processes.pids(name))]

    def _holds(self, condition: Callable[[], bool]) -> bool:
        try:
            return condition()
        except redis.RedisError:
            return False


@contextlib.contextmanager
def running_pipeline(
    folder: Path, seed: int, cameras: dict[str, float], *, cluster: bool = False
) -> Iterator[Pipeline]:
    """Run a pipeline while the block runs, which begins when all its processes are live.

    Args:
        folder: for logs.
        cameras: names and frame rates of the cameras.
        cluster: on a cluster in place of one Redis.

    Raises:
        NotStarted: a process was not live in time.
    """
    rng = random.Random(seed)
    mark = {MARK: str(folder.parent)}
    port = free_port()
    with (
        _running_redis(folder, mark, rng, cluster=cluster) as (server, proxy, variables),
        Observer(server.connect(), server.shards) as observer,
        Processes(folder, mark | KEEP_ENVIRONMENT | variables) as processes,
    ):
        for name in WORKERS:
            role = name.partition("-")[0]
            flags = ("--port", str(port)) if role == "view" else FLAGS[role]
            processes.start(name, role, *flags)
        for name, fps in cameras.items():
            processes.start(name, "camera", "demo", "--name", name, "--fps", str(fps))
        pipeline = Pipeline(
            processes=processes,
            server=server,
            bus=Bus(server.client, server.shards),
            proxy=proxy,
            observer=observer,
            port=port,
            rng=rng,
        )
        if not pipeline.wait_until(lambda: not pipeline.missing(), STARTED_TIMEOUT_S):
            raise NotStarted(f"{', '.join(pipeline.missing())} did not start; see the logs in {folder}")
        yield pipeline


@contextlib.contextmanager
def _running_redis(
    folder: Path, mark: dict[str, str], rng: random.Random, *, cluster: bool
) -> Iterator[tuple[Server | Cluster, Proxy | Proxies, dict[str, str]]]:
    """Run Redis or a cluster behind proxies; yield them, and the variables of the processes that use it."""
    if not cluster:
        with Server(folder, mark) as server, Proxy(server.port, rng) as proxy:
            yield server, proxy, {"MASKWATCH_REDIS_URL": f"redis://{HOST}:{proxy.port}/0"}
        return
    ports = free_node_ports(behind_proxies=True)
    with Proxies({one.port: one.client_port for one in ports}, rng) as proxies, Cluster(folder, mark, ports) as nodes:
        yield nodes, proxies, {"MASKWATCH_REDIS_URL": nodes.url, "MASKWATCH_SHARDS": str(nodes.shards)}
