"""`maskwatch chaos` finds every broken promise, repeats what it drew, and leaves nothing behind."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import redis
from conftest import Server as Valkey
from conftest import missing, wait_until
from processes import Processes, processes

from chaos.cluster import Cluster
from chaos.faults import FAULTS, FIRST_DEATH_S, KINDS, Mode, draw_faults, kinds_of
from chaos.janitor import marked
from chaos.leftovers import leftovers
from chaos.lines import Line, compare_lines
from chaos.node import Node, free_node_ports
from chaos.observer import LOST, Observer
from chaos.proxy import HOST, Proxies, Proxy, free_port
from chaos.report import FaultReport, RunReport, run_text, summary_text
from chaos.server import FAKETIME_SHARED, Server, faketime
from pipeline.bus.connection import connect
from pipeline.bus.messages import FrameResult, encode

__all__ = ["processes"]

RUNS = 5 if os.environ.get("CI") else 1  # of each mode
CLUSTER_RUNS = 5 if os.environ.get("CI") else 1
RUN_TIMEOUT_S = 240  # of one run on a busy machine
QUIET: list[Line] = [{"frame": number, "faces": [number], "model": "lite"} for number in range(6)]


def seed_with_few_faults(mode: Mode, *, cluster: bool = False) -> int:
    return next(seed for seed in itertools.count() if len(draw_faults(seed, mode, cluster=cluster)) == FAULTS[0])


@pytest.fixture
def own_cluster() -> Iterator[tuple[Cluster, Proxies]]:
    folder = Path(tempfile.mkdtemp(prefix="mw-"))
    ports = free_node_ports(behind_proxies=True)
    proxies = Proxies({one.port: one.client_port for one in ports}, random.Random(1))
    with proxies, Cluster(folder, {}, ports) as cluster:
        yield cluster, proxies
    shutil.rmtree(folder)


@pytest.fixture
def own_server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="mw-"))
    with Server(folder, {}) as server:
        yield server
    shutil.rmtree(folder)


def result_of(seq: int, outcome: str = "labelled") -> bytes:
    fields = {"camera": "door", "start": 1, "seq": seq, "width": 64, "height": 48, "captured_at": 1.0}
    found = FrameResult(
        **fields, frame_id=f"door:1:{seq}", pixels_key="{s0}:pixels:door-1", deadline_at=2.0, outcome=outcome
    )
    return encode(found)


@pytest.mark.parametrize("mode", ["complete", "live"])
def test_every_promise_holds_whatever_breaks_and_nothing_is_left(processes: Processes, mode: Mode) -> None:
    seed = seed_with_few_faults(mode)

    chaos = processes.start("chaos", "--mode", mode, "--runs", RUNS, "--seed", seed)
    printed, _ = chaos.communicate(timeout=RUN_TIMEOUT_S * RUNS)

    assert chaos.returncode == 0, printed + processes.log()
    assert f"{mode} seed {seed}: " in printed
    assert f"{RUNS} runs ({RUNS} {mode})" in printed
    assert list(processes.temporary.iterdir()) == []


@pytest.mark.parametrize("mode", ["complete", "live"])
def test_every_promise_holds_on_a_cluster_of_which_a_primary_dies(processes: Processes, mode: Mode) -> None:
    seed = seed_with_few_faults(mode, cluster=True)

    chaos = processes.start("chaos", "--cluster", "--mode", mode, "--runs", CLUSTER_RUNS, "--seed", seed)
    printed, _ = chaos.communicate(timeout=RUN_TIMEOUT_S * CLUSTER_RUNS)

    assert chaos.returncode == 0, printed + processes.log()
    assert f"{mode} seed {seed} on a cluster: " in printed
    assert printed.count("kill -9 the primary of") >= CLUSTER_RUNS
    assert list(processes.temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "flags", "servers"),
    [
        (signal.SIGKILL, [], 1),
        (signal.SIGINT, [], 1),
        (signal.SIGTERM, [], 1),
        (signal.SIGKILL, ["--cluster"], 6),
    ],
)
def test_chaos_that_is_ended_leaves_nothing(
    processes: Processes, number: signal.Signals, flags: list[str], servers: int
) -> None:
    chaos = processes.start("chaos", "--mode", "live", "--runs", 1, *flags)
    wait_until(lambda: len(running(processes.temporary)) >= 7 + servers, 60, "Redis, workers, viewer and cameras run")
    (folder,) = processes.temporary.iterdir()
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in marked(folder)]
    assert sum(b"valkey-server" in command for command in commands) == servers, "Redis is among them"
    os.kill(marked(folder)[-1], signal.SIGSTOP)

    chaos.send_signal(number)
    chaos.wait(timeout=30)

    wait_until(lambda: not marked(folder), 20, "no process is left, not even a suspended one")
    wait_until(lambda: list(processes.temporary.iterdir()) == [], 10, "no file is left")


def running(temporary: Path) -> list[int]:
    return [pid for folder in temporary.iterdir() for pid in marked(folder)]


def test_the_same_seed_draws_the_same_faults_and_many_seeds_draw_every_kind() -> None:
    drawn = {mode: [draw_faults(seed, mode) for seed in range(50)] for mode in ("complete", "live")}
    again = {mode: [draw_faults(seed, mode) for seed in range(50)] for mode in ("complete", "live")}

    kinds = {mode: {fault.kind for faults in runs for fault in faults} for mode, runs in drawn.items()}

    assert drawn == again
    assert kinds["complete"] == set(KINDS) - {"primary-kill"}
    assert kinds["live"] == set(KINDS) - {"primary-kill", "label-kill"}
    assert all(FAULTS[0] <= len(faults) <= FAULTS[1] for runs in drawn.values() for faults in runs)


@pytest.mark.parametrize("mode", ["complete", "live"])
def test_on_a_cluster_every_seed_draws_the_early_death_of_a_primary(mode: Mode) -> None:
    drawn = [draw_faults(seed, mode, cluster=True) for seed in range(50)]
    again = [draw_faults(seed, mode, cluster=True) for seed in range(50)]

    deaths = [[fault.at_s for fault in faults if fault.kind == "primary-kill"] for faults in drawn]
    set_back = [[fault.at_s for fault in faults if fault.step_s < 0] for faults in drawn]

    assert drawn == again
    assert {fault.kind for faults in drawn for fault in faults} == set(kinds_of(mode, cluster=True))
    assert all(min(times) <= FIRST_DEATH_S for times in deaths)
    assert all(at > max(times) for times, ats in zip(deaths, set_back, strict=True) for at in ats)
    assert all(FAULTS[0] <= len(faults) <= FAULTS[1] for faults in drawn)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (QUIET[:2] + QUIET[3:], "1 frames have no line: 2"),
        (QUIET[:3] + QUIET[2:], "1 frames have several lines: 2"),
        ([*QUIET[:2], QUIET[3], QUIET[2], *QUIET[4:]], "the lines are not in the order of the frames"),
        (
            [*QUIET[:2], QUIET[2] | {"faces": [3]}, QUIET[3] | {"faces": [2]}, *QUIET[4:]],
            "2 frames have other labels than in the quiet run: 2, 3",
        ),
        ([*QUIET[:5], QUIET[5] | {"error": "dropped: dead"}], "1 frames have an error: 5, dropped: dead"),
    ],
)
def test_lines_that_differ_from_the_quiet_run_break_a_promise(found: list[Line], sentence: str) -> None:
    assert compare_lines(QUIET, QUIET) == []
    assert compare_lines(QUIET, found) == [sentence]


def test_a_ledger_that_does_not_balance_breaks_a_promise(server: Valkey) -> None:
    server.client.zadd("{s0}:cameras", {"door": 1})
    server.client.hset("{s0}:ledger:door", mapping={"produced": 3, "labelled": 2})
    server.client.hset("{s0}:standing:door", "door:1:3", "frames")

    with Observer(connect(server.url)) as observer:
        observer.look()
        balanced = list(observer.broken)
        server.client.hincrby("{s0}:ledger:door", "labelled", 1)
        observer.look()

    assert balanced == []
    assert observer.broken == ["the ledger of door does not balance: 3 produced = 3 labelled + 1 in flight"]


@pytest.mark.parametrize("announced", [True, False])
def test_counts_begin_anew_only_when_redis_lost_its_memory(server: Valkey, announced: bool) -> None:
    server.client.zadd("{s0}:cameras", {"door": 1})
    server.client.hset("{s0}:ledger:door", mapping={"produced": 3, "labelled": 2})
    server.client.hset("{s0}:standing:door", "door:1:3", "frames")

    with Observer(connect(server.url)) as observer:
        observer.look()
        if announced:
            with observer.memory_loss():
                server.client.flushall()
        else:
            server.client.delete("{s0}:ledger:door", "{s0}:standing:door")
        observer.look()

    assert len(observer.broken) == (0 if announced else 1)
    assert observer.fates() == {"labelled": 2, LOST: 1}


def test_counts_go_back_once_when_a_primary_has_died(server: Valkey) -> None:
    server.client.zadd("{s0}:cameras", {"door": 1})
    server.client.hset("{s0}:ledger:door", mapping={"produced": 3, "labelled": 3})

    with Observer(connect(server.url)) as observer:
        observer.look()
        with observer.failover(["door"]):
            server.client.hset("{s0}:ledger:door", mapping={"produced": 2, "labelled": 2})
        observer.look()
        after_failover = list(observer.broken)
        server.client.hset("{s0}:ledger:door", mapping={"produced": 1, "labelled": 1})
        observer.look()

    assert after_failover == []
    assert observer.broken == [
        "counts of door decreased from 2 produced = 2 labelled + 0 in flight to 1 produced = 1 labelled + 0 in flight"
    ]


def test_a_frame_that_ends_twice_breaks_a_promise(server: Valkey) -> None:
    for seq in (1, 2, 1):
        server.client.xadd("{s0}:results", {"camera": "door", "record": result_of(seq)})

    with Observer(connect(server.url)) as observer:
        observer.look()

    assert observer.broken == ["door:1:1 ended twice"]
    assert sorted(observer.labelled) == [("door", 1, 1), ("door", 1, 2)]


def test_what_a_queue_still_holds_is_named(server: Valkey) -> None:
    empty = leftovers(server.bus)
    server.client.xadd("{s0}:faces:complete", {"camera": "file-a"})
    server.client.zadd("{s0}:cameras", {"file-a": 1})
    server.client.hset("{s0}:standing:file-a", "file-a:1:3", "faces")

    assert empty == []
    assert leftovers(server.bus) == ["1 in {s0}:faces:complete", "1 in {s0}:standing:file-a"]


def test_the_proxy_cuts_a_command_half_way() -> None:
    command = bytes(50_000)
    port = free_port()

    with socket.create_server((HOST, port)) as listening, Proxy(port, random.Random(1)) as proxy:
        client = socket.create_connection((HOST, proxy.port))
        served, _ = listening.accept()
        with client, served:
            client.sendall(b"whole")
            before = served.recv(100)
            proxy.cut()
            client.sendall(command)
            received = len(read_to_the_end(served))
            rest = read_to_the_end(client)

    assert before == b"whole"
    assert 0 <= received < len(command)
    assert rest == b""


def test_the_proxy_cuts_an_answer_half_way_and_idle_connections_too(own_server: Server) -> None:
    own_server.client.set("large", bytes(30_000))
    with Proxy(own_server.port, random.Random(1)) as proxy:
        idle = socket.create_connection((HOST, proxy.port))
        with connect(f"redis://{HOST}:{proxy.port}/0") as client, idle:
            assert client.get("large") == bytes(30_000)

            proxy.cut()

            with pytest.raises(redis.ConnectionError):
                client.get("large")
            assert client.get("large") == bytes(30_000), "the next connection works"
            assert read_to_the_end(idle) == b""


def test_the_proxy_refuses_connections_until_it_accepts_again(own_server: Server) -> None:
    with Proxy(own_server.port, random.Random(1)) as proxy, connect(f"redis://{HOST}:{proxy.port}/0") as client:
        client.ping()

        proxy.refuse()

        with pytest.raises(redis.ConnectionError):
            for _ in range(2):  # the first may use the connection that is cut
                client.ping()
        proxy.accept()
        assert client.ping()


def test_the_server_loses_its_memory_and_its_clock_is_set(own_server: Server) -> None:
    if faketime() is None:
        missing("libfaketime is not installed")
    own_server.client.set("name", "door")
    before = int(own_server.client.time()[0])

    own_server.step_clock(-3600)
    wait_until(lambda: int(own_server.client.time()[0]) < before - 3500, 5, "the clock is set back")
    shared = [Path(name + str(own_server.client.info("server")["process_id"])) for name in FAKETIME_SHARED]
    existed = [path.exists() for path in shared]
    own_server.kill()
    exist = [path.exists() for path in shared]
    own_server.start()

    assert own_server.client.get("name") is None
    assert int(own_server.client.time()[0]) < before - 3500, "a new server has the same clock"
    assert (existed, exist) == ([True, True], [False, False]), "its shared memory is removed"


def test_a_dead_primary_returns_as_a_replica_also_while_clients_are_refused(
    own_cluster: tuple[Cluster, Proxies],
) -> None:
    cluster, proxies = own_cluster
    with connect(cluster.url) as client:
        client.set("{s0}:name", "door")
        node = cluster.primary_of("{s0}")
        proxies.refuse()

        node.kill()
        wait_until(lambda: cluster.primary_of("{s0}").running, 20, "the replica has taken over")
        node.start()
        cluster.wait_until_whole()

        with pytest.raises(redis.ConnectionError):
            for _ in range(2):  # the first may use the connection that is cut
                client.get("{s0}:name")
        proxies.accept()
        assert not node.is_primary
        assert client.get("{s0}:name") == cluster.client.get("{s0}:name") == b"door"


def test_the_clock_of_one_node_is_set_and_the_cluster_stays_whole(own_cluster: tuple[Cluster, Proxies]) -> None:
    if faketime() is None:
        missing("libfaketime is not installed")
    cluster, _ = own_cluster
    before = time_of(cluster.primary_of("{s0}"))

    cluster.primary_of("{s0}").step_clock(3600)
    wait_until(lambda: time_of(cluster.primary_of("{s0}")) > before + 3500, 5, "the clock is set forward")
    cluster.wait_until_whole()

    assert time_of(cluster.primary_of("{s0}")) > before + 3500
    assert time_of(cluster.primary_of("{s2}")) < before + 3500


def time_of(node: Node) -> int:
    return int(node.client.time()[0])


def test_a_full_memory_denies_writes_until_it_is_freed(own_server: Server) -> None:
    own_server.fill_memory()

    with pytest.raises(redis.ResponseError, match="maxmemory"):
        own_server.client.set("name", "door")
    own_server.free_memory()

    assert own_server.client.set("name", "door")


def test_the_report_names_the_run_that_repeats_a_broken_promise() -> None:
    fault = FaultReport(kind="cut", at_s=1.0, text="cut all connections half-way", recovery_s=0.25)
    run = RunReport(
        mode="live",
        seed=17,
        seconds=12.0,
        faults=[fault],
        return_s=0.5,
        fresh_s=0.1,
        frames={"labelled": 30, "stale": 2},
        broken=["the ledger of door does not balance"],
    )

    on_cluster = msgspec.structs.replace(run, cluster=True)

    assert "at  1.0 s  cut all connections half-way: labels after 0.25 s" in run_text(run)
    assert "maskwatch chaos --runs 1 --mode live --seed 17: the ledger of door" in summary_text([run])
    assert "maskwatch chaos --runs 1 --cluster --mode live --seed 17: " in summary_text([on_cluster])
    assert "30 labelled, 2 stale" in summary_text([run])


def read_to_the_end(connection: socket.socket) -> bytes:
    """Return what comes until the other end closes the connection, however it does that."""
    connection.settimeout(10)
    found = b""
    try:
        while part := connection.recv(65_536):
            found += part
    except ConnectionResetError:
        pass
    return found
