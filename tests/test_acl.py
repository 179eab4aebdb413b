"""Each user of Redis has only the permissions of its role, on Redis and on Valkey."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
import requests
import yaml
from conftest import wait_until
from feeding import numbered_picture
from locked import JOBS_TEMPLATE, REPLICA_TEMPLATE, REPOSITORY, USERS, Locked, locked, password_of
from processes import Process, Processes, processes
from redis.exceptions import NoPermissionError

from pipeline.bus import messages
from pipeline.bus.connection import connect
from pipeline.bus.dead_letters import list_dead_letters, replay_dead_letter
from pipeline.bus.dedicated_connection import DedicatedConnection
from pipeline.bus.forgetting import forget_camera, read_forgotten
from pipeline.bus.group_consumer import RECLAIM_IDLE_MS, GroupConsumer
from pipeline.bus.keys import COMPLETE_PIXELS_MS, GROUP, PROCESSES
from pipeline.bus.leases import Lease
from pipeline.bus.messages import FaceCrops, Frame, FrameResult, LeaseHolder
from pipeline.bus.reader import Entry, Reader
from pipeline.bus.result_consumer import ResultConsumer
from pipeline.bus.scripts import Script, frame_arguments
from pipeline.bus.shards import Bus, Shard
from pipeline.bus.status import Ledger, read_counts, read_heartbeats, read_ledgers, read_status
from pipeline.bus.writer import Writer
from pipeline.vision.faces import Face
from pipeline.vision.jpeg import encode_jpeg
from producer.sources.demo.people import load_photograph
from trainer.jobs.enqueue import cancel_job, enqueue_job
from trainer.jobs.job_list import job_with_id
from trainer.jobs.job_spec import JobSpec, training_queue
from trainer.settings import TrainSettings

__all__ = ["processes"]

READ_RESULTS = "return redis.call('XRANGE', '{s0}:results', '-', '+')"
SHARDS = 2
NOBODY = [
    "FLUSHALL",
    "FLUSHDB",
    "SWAPDB 0 1",
    "CONFIG GET *",
    "CONFIG SET maxmemory 0",
    "DEBUG SLEEP 0",
    "ACL LIST",
    "ACL SETUSER camera on nopass",
    "ACL WHOAMI",
    "SHUTDOWN",
    "SCRIPT FLUSH",
    "SCRIPT LOAD READ_RESULTS",
    "EVAL READ_RESULTS 1 {s0}:results",
    "EVAL_RO READ_RESULTS 1 {s0}:results",
    "FUNCTION LOAD READ_RESULTS",
    "FCALL anything 0",
    "FUNCTION FLUSH",
    "MONITOR",
    "SAVE",
    "REPLICAOF 127.0.0.1 1",
    "CLIENT KILL TYPE normal",
    "CLIENT LIST",
    "CLIENT TRACKING ON BCAST",
    "SLOWLOG GET",
    "MODULE LIST",
    "SUBSCRIBE anything",
    "PUBLISH anything x",
    "PSYNC ? -1",
    "REPLCONF listening-port 1",
    "CLUSTER MEET 127.0.0.1 1",
    "CLUSTER FAILOVER FORCE",
    "CLUSTER FORGET 0000000000000000000000000000000000000000",
]
NO_PROGRAM = [
    "SCAN 0",
    "KEYS *",
    "RANDOMKEY",
    "DBSIZE",
    "CLUSTER NODES",
    "SELECT 1",
    "SET anything x",
    "GET anything",
    "DEL {s0}:ledger:door",
    "EXPIRE {s0}:ledger:door 1",
    "HSET {s0}:ledger:door labelled 9",
    "HGETALL {s0}:standing:door",
    "DUMP {s0}:pixels:door:1:1",
    "COPY {s0}:pixels:door:1:1 {all}:heartbeat:door",
    "RENAME {s0}:pixels:door:1:1 {all}:heartbeat:door",
    "XRANGE {s0}:dead - +",
    "XREAD STREAMS {s0}:dead 0",
    "XDEL {s0}:dead 1-1",
    "XTRIM {s0}:results MAXLEN 0",
    "XGROUP DESTROY {s0}:frames workers",
    "XGROUP DESTROY {s0}:faces:complete workers",
    "XGROUP SETID {s0}:frames workers 0",
    "XSETID {s0}:frames 9-9",
    "SCRIPT KILL",
    "DEL {all}:heartbeat:admin-1",
    "DEL {all}:shards",
    # keys of other shapes: the name of a key without its tag, two characters in it, another one
    "XADD frames * a b",
    "SET pixels:door:1:1 x",
    "XADD {s00}:frames * a b",
    "XADD {s}:faces * a b",
    "XADD {t0}:results * a b",
    "HINCRBY x{s0}:ledger:door produced 1",
    "GET {s00}:pixels:door:1:1",
]
# of those who only read results
READER_DENIED = [
    "XADD {s0}:frames * a b",
    "XADD {s0}:frames:complete * a b",
    "XADD {s0}:faces * a b",
    "XADD {s0}:results * a b",
    "XDEL {s0}:results 1-1",
    "XREADGROUP GROUP workers me STREAMS {s0}:frames >",
    "XREADGROUP GROUP workers me STREAMS {s0}:faces:complete >",
    "XCLAIM {s0}:frames workers me 0 1-1",
    "XACK {s0}:frames workers 1-1",
    "XRANGE {s0}:frames - +",
    "HGET {s0}:frames:waiting door",
    "HSET {s0}:frames:waiting door x",
    "ZPOPMIN {s0}:faces:order",
    "HSET {s0}:frames:taken 1-1 x",
    "SET {s0}:pixels:door:1:1 x",
    "GETDEL {s0}:pixels:door:1:1",
    "UNLINK {s0}:pixels:door:1:1",
    "PEXPIRE {s0}:pixels:door:1:1 9",
    "GET {s0}:crops:door:1:1",
    "MGET {s0}:crops:door:1:1",
    "SET {s0}:known:door x",
    "GET {s0}:known:door",
    "HSET {s0}:newest:frames:door seq 1",
    "HINCRBY {s0}:ledger:door produced 1",
    "UNLINK {s0}:ledger:door",
    "HDEL {s0}:standing:door x",
    "HSET {s0}:recent:door labelled_at 1",
    "SET {s0}:lease:door x",
    "GET {s0}:lease:door",
    "ZADD {s0}:cameras 1 door",
    "SET {all}:model x",
    "GET {all}:model",
    "SET {all}:shards 9",
    "PEXPIRE {all}:shards 1",
    "SET {all}:heartbeat:classifier-1 x",
]
DENIED = {
    "camera": [
        "INFO",
        "GET {s0}:pixels:door:1:1",
        "MGET {s0}:pixels:door:1:1",
        "GETDEL {s0}:pixels:door:1:1",
        "SET {s0}:pixels:door:1:1 x GET",
        "GET {sz}:pixels:door:1:1",
        "GET {s0}:crops:door:1:1",
        "SET {s0}:crops:door:1:1 x",
        "UNLINK {s0}:crops:door:1:1",
        "SET {s0}:known:door x",
        "GET {s0}:known:door",
        "XRANGE {s0}:results - +",
        "XREVRANGE {s0}:results + -",
        "XREAD STREAMS {s0}:results 0",
        "XRANGE {s0}:frames - +",
        "XRANGE {s0}:faces - +",
        "XADD {s0}:faces * a b",
        "XADD {s0}:frames:complete * a b",
        "XADD {s0}:dead * a b",
        "XDEL {s0}:frames 1-1",
        "XREADGROUP GROUP workers me STREAMS {s0}:frames >",
        "XACK {s0}:frames workers 1-1",
        "XGROUP CREATE {s0}:frames mine 0",
        "ZPOPMIN {s0}:frames:order",
        "HSET {s0}:frames:turns door 0",
        "HGET {s0}:frames:taken 1-1",
        "HSET {s0}:frames:taken 1-1 x",
        "UNLINK {s0}:frames:taken",
        "HDEL {s0}:frames:alone x",
        "HSET {s0}:faces:waiting door x",
        "HGET {s0}:faces:waiting door",
        "HGETALL {s0}:ledger:door",
        "HSET {s0}:recent:door labelled_at 1",
        "HGETALL {s0}:newest:frames:door",
        "ZRANGE {s0}:cameras 0 -1",
        "GET {all}:model",
        "SET {all}:model x",
        "SET {all}:heartbeat:detector-1 x",
        "EVALSHA_RO READ_RESULTS_SHA 1 {s0}:results",
    ],
    "detector": [
        "INFO",
        "XADD {s0}:frames:complete * a b",
        "XRANGE {s0}:results - +",
        "XREVRANGE {s0}:results + -",
        "XREAD STREAMS {s0}:results 0",
        "XRANGE {s0}:faces - +",
        "XREADGROUP GROUP workers me STREAMS {s0}:faces >",
        "XREADGROUP GROUP workers me STREAMS {s0}:frames {s0}:faces:complete > >",
        "XACK {s0}:faces workers 1-1",
        "HSET {s0}:frames:waiting door x",
        "ZADD {s0}:frames:order 1 door",
        "ZPOPMIN {s0}:faces:order",
        "HDEL {s0}:faces:waiting door",
        "HSET {s0}:faces:turns door 0",
        "HGET {s0}:faces:taken 1-1",
        "UNLINK {s0}:faces:taken",
        "HDEL {s0}:faces:alone x",
        "SET {s0}:pixels:door:1:1 x",
        "GETDEL {s0}:pixels:door:1:1",
        "PEXPIRE {s0}:pixels:door:1:1 9",
        "GET {s0}:crops:door:1:1",
        "MGET {s0}:crops:door:1:1",
        "GETDEL {s0}:crops:door:1:1",
        "DEL {s0}:known:door",
        "SET {s0}:remote:faces x",
        "SET {all}:model x",
        "SET {s0}:lease:door x",
        "GET {s0}:lease:door",
        "UNLINK {s0}:lease:door",
        "HGET {s0}:newest:frames:door pixels_key",
        "HSET {s0}:newest:frames:door seq 1",
        "HGETALL {s0}:ledger:door",
        "ZADD {s0}:cameras 1 door",
        "SET {all}:heartbeat:camera-1 x",
        "EVALSHA_RO READ_RESULTS_SHA 1 {s0}:results",
    ],
    "classifier": [
        "INFO",
        "GET {s0}:pixels:door:1:1",
        "MGET {s0}:pixels:door:1:1",
        "SET {s0}:pixels:door:1:1 x",
        "UNLINK {s0}:pixels:door:1:1",
        "SET {s0}:crops:door:1:1 x",
        "GETDEL {s0}:crops:door:1:1",
        "GET {s0}:known:door",
        "EXISTS {s0}:remote:faces",
        "XADD {s0}:frames * a b",
        "XADD {s0}:faces:complete * a b",
        "XRANGE {s0}:frames - +",
        "XRANGE {s0}:frames:complete - +",
        "TYPE {s0}:frames",
        "TYPE {s0}:frames:taken",
        "XREADGROUP GROUP workers me STREAMS {s0}:frames >",
        "XREADGROUP GROUP workers me STREAMS {s0}:frames:complete >",
        "XACK {s0}:frames workers 1-1",
        "HGET {s0}:frames:waiting door",
        "HSET {s0}:frames:taken 1-1 x",
        "HSET {s0}:faces:waiting door x",
        "ZADD {s0}:faces:order 1 door",
        "HSET {s0}:standing:door x faces",
        "XRANGE {s0}:results - +",
        "XREVRANGE {s0}:results + -",
        "XREAD STREAMS {s0}:results 0",
        "SET {s0}:lease:door x",
        "GET {s0}:lease:door",
        "HGET {s0}:newest:frames:door pixels_key",
        "HGETALL {s0}:ledger:door",
        "ZADD {s0}:cameras 1 door",
        "GET {all}:model",
        "SET {all}:heartbeat:viewer-1 x",
        "EVALSHA_RO READ_RESULTS_SHA 1 {s0}:results",
    ],
    "viewer": READER_DENIED,
    "recorder": [
        "INFO",
        "MGET {s0}:pixels:door:1:1",
        "GET {s0}:watched:door",
        "XLEN {s0}:frames",
        "ZADD {all}:ended_sessions 1 x",
        "SET {all}:heartbeat:viewer-1 x",
        *READER_DENIED,
    ],
    "admin": [],
}
LABELLER_DENIED = [
    "XADD {s0}:frames * a b",
    "HSET {s0}:frames:waiting door x",
    "ZADD {s0}:frames:order 1 door",
    "SET {s0}:pixels:door:1:1 x",
    "SET {s0}:pixels:file-12345678:1:1 x",
    "UNLINK {s0}:pixels:door:1:1",
    "GET {s0}:pixels:file-api-1:1:1",
    "SET {s0}:lease:door x",
    "HINCRBY {s0}:ledger:door produced 1",
    "HSET {s0}:newest:frames:door seq 1",
    "SET {s0}:watched:file-api-1 1",
    "ZRANGE {all}:processes 0 -1",
    "SET {all}:heartbeat:labeller-1 x",
    "SET {all}:shards 9",
]
# Calls of scripts that only the server's start can load, each with keys that its user may name.
SCRIPTED = {
    "camera": [
        ("XRANGE", "{s0}:results", "-", "+"),
        ("GET", "{s0}:pixels:door:1:1"),
        ("XDEL", "{s0}:frames", "1-1"),
        ("HSET", "{s0}:frames:taken", "1-1", "x"),
        ("HGETALL", "{s0}:standing:door"),
    ],
    "detector": [
        ("XRANGE", "{s0}:results", "-", "+"),
        ("GET", "{s0}:crops:door:1:1"),
        ("XADD", "{s0}:frames:complete", "*", "a", "b"),
        ("HGETALL", "{s0}:faces:taken"),
    ],
    "classifier": [
        ("GET", "{s0}:pixels:door:1:1"),
        ("XRANGE", "{s0}:results", "-", "+"),
        ("SET", "{s0}:crops:door:1:1", "x"),
        ("HGET", "{s0}:frames:waiting", "door"),
    ],
    "viewer": [
        ("HINCRBY", "{s0}:ledger:door", "produced", "1"),
        ("XADD", "{s0}:results", "*", "a", "b"),
        ("SET", "{all}:shards", "9"),
        ("FLUSHALL",),
    ],
    "recorder": [
        ("HINCRBY", "{s0}:ledger:door", "produced", "1"),
        ("XADD", "{s0}:results", "*", "a", "b"),
        ("SET", "{all}:shards", "9"),
        ("FLUSHALL",),
    ],
    "admin": [("FLUSHALL",), ("SWAPDB", "0", "1")],
}


@pytest.fixture(scope="module", params=["redis", "valkey"])
def shared(request: pytest.FixtureRequest) -> Iterator[Locked]:
    """A server shared by tests that leave nothing behind."""
    with locked(request.param) as found:
        yield found


@pytest.fixture(params=["redis", "valkey"])
def own(request: pytest.FixtureRequest) -> Iterator[Locked]:
    """A server for one test."""
    with locked(request.param) as found:
        yield found


def start(own: Locked, processes: Processes, user: str, *arguments: object) -> Process:
    return processes.start(*arguments, "--redis", own.url(user))


def run(own: Locked, user: str, *arguments: object, password: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "maskwatch", *map(str, arguments), "--redis", own.url(user, password)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def words(line: str) -> list[str]:
    """Return a command as it is sent."""
    sha = hashlib.sha1(READ_RESULTS.encode()).hexdigest()  # noqa: S324 -- what Redis calls it by
    named = {"READ_RESULTS": READ_RESULTS, "READ_RESULTS_SHA": sha}
    return [named.get(word, word) for word in line.split()]


@contextmanager
def bus_of(own: Locked, user: str, shards: int | None = None) -> Iterator[Bus]:
    """Connect as a user."""
    with connect(own.url(user)) as client:
        yield Bus(client, shards)


def frame_of(shard: Shard, camera: str, seq: int = 1, *, live: bool = True, start: int = 1) -> Frame:
    now = shard.clock.now()
    identity = messages.frame_id(camera, start, seq)
    return Frame(
        frame_id=identity,
        camera=camera,
        start=start,
        seq=seq,
        width=640,
        height=360,
        pixels_key=shard.key("pixels", identity),
        captured_at=now,
        deadline_at=now + 60 if live else None,
    )


def writer_of(shard: Shard, camera: str) -> Writer:
    token = messages.encode(LeaseHolder(host="test", pid=1, token=camera))
    return Writer(shard, camera=camera, token=token, pixels_ms=COMPLETE_PIXELS_MS)


def publish_as_camera(own: Locked, name: str, jpeg: bytes) -> None:
    """Publish one frame as the user of cameras."""
    with bus_of(own, "camera", SHARDS) as bus:
        shard = bus.shard_of(name)
        writer_of(shard, name).publish(frame_of(shard, name), jpeg)


def read(reader: Reader[Any], most: int = 1) -> list[Any]:
    """Read until there is something, in whichever shard."""
    return wait_until(lambda: reader.read(most), 10, "something is there to read")


def faces_of(entry: Entry[Frame]) -> FaceCrops:
    return FaceCrops.for_frame(entry.record, boxes=[(1, 2, 3, 4)], scores=[0.9], crop_px=8, seconds={})


def label(reader: Reader[Any], entry: Entry[Any]) -> bool:
    faces = [Face(box=(1, 2, 3, 4), score=0.9, label="mask", confidence=0.8)]
    return reader.finish(entry, FrameResult.for_frame(entry.record, faces=faces, model="test", seconds={}))


def denials(own: Locked) -> list[dict[str, Any]]:
    """Return what the server has denied, without INFO, which users who may not ask do without."""
    return [row for row in own.denials() if row["object"] != "info"]


def fetched(url: str) -> bytes:
    """Return what a page answers, nothing while it has none."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 -- the test's own viewer
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        assert error.code in (404, 503)
        return b""


def labelled(own: Locked, camera: str) -> int:
    return read_ledgers(Bus(own.server.client, SHARDS), [camera])[camera].labelled


def stored(events: Path) -> int:
    """Return how many events with thumbnails a database holds; 0 while it has no tables."""
    with contextlib.closing(sqlite3.connect(events)) as connection, contextlib.suppress(sqlite3.OperationalError):
        return int(connection.execute("SELECT count(*) FROM thumbnails").fetchone()[0])
    return 0


def test_every_process_can_do_all_its_work_as_its_own_user(
    own: Locked, processes: Processes, tmp_path: Path, pictures: Path
) -> None:
    folder = tmp_path / "street"
    folder.mkdir()
    shutil.copy(min((pictures / "face-mask-detection" / "images").iterdir()), folder)
    jpeg = encode_jpeg(numbered_picture(1), 90)
    publish_as_camera(own, "lost", jpeg)
    root = Bus(own.server.client, SHARDS)
    stream = root.shard_of("lost").key("frames")
    own.server.client.xgroup_create(stream, GROUP, id="0")
    own.server.client.xreadgroup(GROUP, "killed", {stream: ">"})
    split = ("--shards", SHARDS)
    started = [
        start(own, processes, "detector", "detect", *split),
        start(own, processes, "classifier", "classify", *split),
    ]
    started.append(start(own, processes, "viewer", "view", "--port", 0, *split))
    events = tmp_path / "events.db"
    rules = tmp_path / "rules.toml"
    rules.write_text("[[rules]]\nkind = 'no_mask'\nname = 'bare'\nseconds = 0\n")
    recorded = ("--database", f"sqlite:///{events}", "--rules", rules, "--thumbnails", "blurred")
    started.append(start(own, processes, "recorder", "record", *recorded, *split))
    started.append(start(own, processes, "camera", "camera", "demo", "--name", "door", "--fps", 10, *split))
    assert started[2].stdout
    page = started[2].stdout.readline().removeprefix("Viewer: ").strip()
    admin = connect(own.url("admin"))

    wait_until(lambda: labelled(own, "door") >= 3, 40, "frames are labelled")
    publish_as_camera(own, "broken", jpeg[:300])
    (letter,) = wait_until(lambda: list_dead_letters(Bus(admin)), 30, "a damaged picture is dead")
    own.server.client.set(root.shard_of("broken").key("pixels", "broken:1:1"), jpeg)
    replay_dead_letter(Bus(admin), letter.id)
    wait_until(lambda: labelled(own, "broken"), 30, "what was put back is labelled")
    wait_until(lambda: labelled(own, "lost"), 30, "what a killed worker held is taken over")
    snapshot = wait_until(lambda: fetched(f"{page}cameras/door/snapshot.jpg"), 30, "the viewer shows frames")
    wait_until(lambda: events.exists() and stored(events), 30, "the recorder has events and their thumbnails")
    metrics = fetched(f"{page}metrics")
    status = read_status(Bus(admin))
    told = {user: len(read_heartbeats(connect(own.url(user)))) for user in USERS}
    label = processes.start("label", folder, "--json", tmp_path / "out.jsonl", "--redis", own.url("admin"))
    assert label.wait(60) == 0
    for process in reversed(started):
        process.terminate()
        assert process.wait(30) == 0

    assert snapshot[:2] == b"\xff\xd8"
    assert b'maskwatch_frames_labelled_total{camera="door"}' in metrics
    assert told == dict.fromkeys(USERS, 5)
    assert {one.role for one in status.processes} == {"camera", "detector", "classifier", "viewer", "recorder"}
    assert json.loads((tmp_path / "out.jsonl").read_text())["faces"]
    ledgers = read_ledgers(Bus(admin), ["door", "broken", "lost"])
    assert ledgers["door"].balances
    assert ledgers["broken"] == Ledger(produced=2, labelled=1, dropped={"dead": 1})
    assert ledgers["lost"] == Ledger(produced=1, labelled=1)
    assert len({root.shard_of(name).tag for name in ledgers}) == SHARDS
    assert own.server.client.get("{all}:shards") == str(SHARDS).encode()
    assert own.server.client.zrange(PROCESSES, 0, -1) == []
    assert denials(own) == []
    assert "permission" not in processes.log()
    admin.close()


def test_an_admin_forgets_a_camera_and_a_recorder_learns_of_it(own: Locked) -> None:
    with bus_of(own, "admin", SHARDS) as admins, bus_of(own, "recorder", SHARDS) as recorders:
        for camera in ("door", "hall"):
            shard = admins.shard_of(camera)
            own.server.client.zadd(shard.key("cameras"), {camera: shard.clock.now()})

        forget_camera(admins, "door")

        assert read_forgotten(recorders).keys() == {"door"}
        assert [camera.name for camera in read_status(admins).cameras] == ["hall"]
    assert denials(own) == []


@pytest.mark.parametrize("shards", [1, SHARDS])
def test_the_queue_works_for_the_users_of_its_roles_and_newer_frames_replace_older_ones(
    own: Locked, shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = own.server.client
    with (
        bus_of(own, "camera", shards) as cameras,
        bus_of(own, "detector", shards) as detectors,
        bus_of(own, "classifier", shards) as classifiers,
        bus_of(own, "viewer", shards) as viewers,
    ):
        detector = Reader(detectors, stage="frames", record_type=Frame, consumer="detector-1")
        classifier = Reader(classifiers, stage="faces", record_type=FaceCrops, consumer="classifier-1")
        consumer = ResultConsumer(viewers.shards)
        for camera in ("door", "hall"):
            shard = cameras.shard_of(camera)
            lease = Lease(shard, camera, lambda _: False)
            lease.acquire()
            writer = Writer(shard, camera=camera, token=lease.token, pixels_ms=COMPLETE_PIXELS_MS)
            for seq in (1, 2):
                writer.publish(frame_of(shard, camera, seq), b"jpeg")
            (second,) = read(detector)
            writer.publish(frame_of(shard, camera, 3), b"jpeg")
            (third,) = read(detector)
            for entry in (second, third):
                detector.renew([entry])
                assert detector.forward(entry, faces_of(entry), b"c" * 192)
            left = set(client.scan_iter(f"*s:{camera}:1:*"))
            (faces,) = read(classifier)

            assert left == {shard.key(kind, f"{camera}:1:3").encode() for kind in ("pixels", "crops")}
            assert (detector.fetch(third, third.record.pixels_key), faces.data) == (b"jpeg", b"c" * 192)
            assert classifier.fetch(faces, faces.record.crops_key) == b"c" * 192
            assert label(classifier, faces)
            assert client.exists(faces.record.crops_key) == 0
            lease.release()
        monkeypatch.setattr("pipeline.bus.group_consumer.IDLE_CONSUMER_MS", -1)
        GroupConsumer(detectors, DedicatedConnection(detectors.client), "frames", "detector-2").remove_idle_consumers()
        GroupConsumer(
            classifiers, DedicatedConnection(classifiers.client), "faces", "classifier-2"
        ).remove_idle_consumers()
        for reader in (detector, classifier):
            reader.leave_group()
        status = read_status(viewers)
        ends = [(result.seq, result.reason) for _ in range(shards) for result in consumer.read()]

    assert sorted(ends, key=str) == [(1, "stale"), (1, "stale"), (2, "stale"), (2, "stale"), (3, None), (3, None)]
    assert [camera.ledger for camera in status.cameras] == [Ledger(produced=3, labelled=1, dropped={"stale": 2})] * 2
    assert len({Bus(client, shards).shard_of(name).tag for name in ("door", "hall")}) == shards
    assert denials(own) == []


@pytest.mark.parametrize("shards", [1, SHARDS])
@pytest.mark.parametrize("live", [True, False], ids=["live", "complete"])
def test_frames_are_taken_over_settled_and_put_back_by_the_users_of_their_roles(
    own: Locked, shards: int, live: bool
) -> None:
    client = own.server.client
    with (
        bus_of(own, "camera" if live else "admin", shards) as senders,
        bus_of(own, "detector", shards) as detectors,
        bus_of(own, "classifier", shards) as classifiers,
        bus_of(own, "admin", shards) as admins,
    ):
        shard = senders.shard_of("door")
        writer = writer_of(shard, "door")
        readers: dict[str, list[Reader[Any]]] = {
            "frames": [Reader(detectors, stage="frames", record_type=Frame, consumer=f"detector-{n}") for n in (1, 2)],
            "faces": [
                Reader(classifiers, stage="faces", record_type=FaceCrops, consumer=f"classifier-{n}") for n in (1, 2)
            ],
        }
        for stage, (dying, living) in readers.items():
            for reader in (dying, living):
                reader.read(1)
            writer.publish(frame_of(shard, "door", len(stage), live=live), b"jpeg")
            if stage == "faces":
                (entry,) = read(readers["frames"][1])
                assert readers["frames"][1].forward(entry, faces_of(entry), b"c" * 192)
            (held,) = read(dying)
            stream = shard.key(held.at.stream)
            client.xclaim(stream, GROUP, "dead", 0, [held.at.id], idle=RECLAIM_IDLE_MS + 1, justid=True)
            (taken,) = read(living)
            assert taken.alone
            assert living.dead_letter(taken, "a test")
            (letter,) = list_dead_letters(admins)
            client.set(shard.key("crops", taken.record.frame_id), b"c" * 192)
            replay_dead_letter(admins, letter.id)
            (again,) = read(living)
            assert label(living, again)
            client.delete(shard.key(stage))  # as if Redis had lost it: the frame in it gets another ticket
            living.read(1)
        ledger = read_ledgers(admins, ["door"])["door"]

    assert ledger == Ledger(produced=4, labelled=2, dropped={"dead": 2})
    assert denials(own) == []


def test_label_renews_and_deletes_what_is_its_own_as_the_user_admin(own: Locked) -> None:
    with bus_of(own, "admin", SHARDS) as admins:
        shard = admins.shard_of("file-0000000a")
        writer, sent = writer_of(shard, "file-0000000a"), frame_of(shard, "file-0000000a", live=False)
        writer.publish(sent, b"jpeg")
        standing = writer.standing()
        writer.renew([sent])
        writer.delete_pixels([sent])

    assert standing == {sent.frame_id}
    assert list(own.server.client.scan_iter("*pixels*")) == []
    assert own.denials() == []


FOREIGN = ["{s0}:lease:gate", "{s0}:crops:gate:1:1", "{s1}:pixels:gate:1:1", "{s0}:ledger:gate", "anything"]


@pytest.mark.parametrize("user", ["camera", "root"])
def test_a_newer_frame_removes_no_foreign_key_that_an_older_one_names(own: Locked, user: str) -> None:
    with bus_of(own, "camera") as cameras, bus_of(own, user) as bus:
        for number, key in enumerate(FOREIGN):
            own.server.client.set(key, "foreign")
            forge(cameras.shards[0], f"cam-{number}", data_key=key, other_key=key)

        answers = {
            writer_of(bus.shards[0], name).publish(frame_of(bus.shards[0], name, 2), b"jpeg")
            for name in (f"cam-{number}" for number in range(len(FOREIGN)))
        }

    removed = {key for key in FOREIGN if not own.server.client.exists(key)}
    ledgers = read_ledgers(own.server.bus, [f"cam-{number}" for number in range(len(FOREIGN))])
    assert answers == {"published"}
    assert removed == (
        {FOREIGN[1]} if user == "root" else set()
    )  # crops are data of a frame, which cameras leave alone
    assert all(ledger == Ledger(produced=2, dropped={"stale": 1}, in_flight=1) for ledger in ledgers.values())


@pytest.mark.parametrize("user", ["detector", "root"])
def test_a_worker_reads_no_foreign_key_that_a_frame_names_and_goes_on(own: Locked, user: str) -> None:
    with bus_of(own, "camera") as cameras, bus_of(own, user) as bus:
        shard = cameras.shards[0]
        reader = Reader(bus, stage="frames", record_type=Frame, consumer="detector-1")
        reader.read(1)
        for number, key in enumerate(FOREIGN):
            own.server.client.set(key, "foreign")
            forge(shard, f"cam-{number}", data_key=key)

        entries = read(reader, len(FOREIGN))
        for entry in entries:
            with reader.guard(entry):
                reader.fetch(entry, entry.record.pixels_key)
        writer_of(shard, "yard").publish(frame_of(shard, "yard"), b"jpeg")
        (after,) = read(reader)

    ledgers = read_ledgers(own.server.bus, [entry.record.camera for entry in entries])
    given = {entry.record.camera for entry in entries if entry.data is not None}
    assert given == ({"cam-1"} if user == "root" else set())
    assert sum(ledger.dropped.get("pixels_gone", 0) for ledger in ledgers.values()) == len(FOREIGN) - len(given)
    assert after.data == b"jpeg"
    assert own.server.client.mget(FOREIGN) == [b"foreign"] * len(FOREIGN)


def forge(shard: Shard, camera: str, *, data_key: str, other_key: str = "") -> None:
    """Let a frame wait that names another key as its data, as a hostile camera could."""
    frame = frame_of(shard, camera)
    fields = frame_arguments(frame, data_key=data_key, other_key=other_key)
    shard.client.hset(shard.key("standing", camera), frame.frame_id, "frames")
    shard.client.hincrby(shard.key("ledger", camera), "produced", 1)
    wait_with(shard, camera, [as_text(one) for one in fields])


def wait_with(shard: Shard, camera: str, fields: list[Any]) -> None:
    """Let something wait as a camera's frame."""
    shard.client.hset(shard.key("frames", "waiting"), camera, msgspec.msgpack.encode(fields))
    shard.client.zadd(shard.key("frames", "order"), {camera: 0})
    shard.client.xadd(shard.key("frames"), {"ticket": 1})


def as_text(field: Any) -> Any:
    """Return a field as Lua packs it: bytes as a string, whatever they are."""
    return msgspec.Raw(bytes([0xDA, *len(field).to_bytes(2, "big")]) + field) if isinstance(field, bytes) else field


def test_a_waiting_frame_with_a_value_of_another_type_stops_neither_camera_nor_worker(own: Locked) -> None:
    places = range(8)
    with bus_of(own, "camera") as cameras, bus_of(own, "detector") as detectors:
        shard = cameras.shards[0]
        reader = Reader(detectors, stage="frames", record_type=Frame, consumer="detector-1")
        reader.read(1)
        for place in places:
            for camera in (f"cam-{place}", f"silent-{place}"):
                forged: list[Any] = [camera, f"{camera}:1:1", 1, 1, "record", "result", "key", ""]
                forged[place] = {"a": ["table"]}
                wait_with(shard, camera, forged)

        answers = {
            writer_of(shard, f"cam-{place}").publish(frame_of(shard, f"cam-{place}", 2), b"jpeg") for place in places
        }
        entries = read(reader, 100)

    ledgers = read_ledgers(own.server.bus, [f"cam-{place}" for place in places])
    assert answers == {"published"}
    assert {entry.record.frame_id for entry in entries} == {f"cam-{place}:1:2" for place in places}
    assert all(ledger == Ledger(produced=1, in_flight=1) for ledger in ledgers.values())


def test_a_key_of_another_type_is_removed_by_who_writes_such_keys(own: Locked) -> None:
    client = own.server.client
    with bus_of(own, "camera") as cameras, bus_of(own, "detector") as detectors:
        shard = cameras.shards[0]
        reader = Reader(detectors, stage="frames", record_type=Frame, consumer="detector-1")
        writer = writer_of(shard, "door")
        names = ("standing:door", "ledger:door", "newest:frames:door", "frames:waiting", "frames:order")
        for name in names:
            client.set(shard.key(name), "text")

        answer = writer.publish(frame_of(shard, "door", 1), b"jpeg")
        for name in ("recent:door", "frames:turns", "frames:taken", "frames:alone"):
            client.set(shard.key(name), "text")
        again = writer.publish(frame_of(shard, "door", 2), b"jpeg")
        (entry,) = read(reader)
        settled = label(reader, entry)

    assert (answer, again, settled) == ("published", "published", True)
    assert read_ledgers(own.server.bus, ["door"])["door"] == Ledger(produced=2, labelled=1, dropped={"stale": 1})


@pytest.mark.parametrize("user", USERS)
def test_each_user_is_denied_what_its_role_does_not_need(shared: Locked, user: str) -> None:
    client = connect(shared.url(user))
    shared.server.client.script_load(READ_RESULTS)
    tried = [*NOBODY, *(NO_PROGRAM if user != "admin" else []), *DENIED[user]]

    answers = {line: outcome(client, *words(line)) for line in tried}

    assert {line: answer for line, answer in answers.items() if answer != "denied"} == {}
    client.close()


@pytest.mark.parametrize("user", USERS)
def test_each_user_may_ask_which_node_of_a_cluster_holds_what(shared: Locked, user: str) -> None:
    client = connect(shared.url(user))

    answer = outcome(client, "CLUSTER", "SLOTS")

    assert "cluster support disabled" in answer
    client.close()


@pytest.mark.parametrize("name", ["redis", "valkey"])
def test_a_replica_may_copy_all_data_and_run_no_command_on_keys(name: str) -> None:
    own = ("PSYNC", "REPLCONF")
    tried = [line for line in [*NOBODY, *NO_PROGRAM, "INFO", "CLUSTER SLOTS"] if not line.startswith(own)]

    with locked(name, template=REPLICA_TEMPLATE) as found:
        client = connect(found.url("replica"))
        answers = {line: outcome(client, *words(line)) for line in tried}
        announced = outcome(client, "REPLCONF", "listening-port", "6379")
        client.close()

    assert {line: answer for line, answer in answers.items() if answer != "denied"} == {}
    assert announced == "b'OK'"


@pytest.mark.parametrize("user", USERS)
def test_no_script_does_what_its_user_may_not(shared: Locked, user: str) -> None:
    client = connect(shared.url(user))
    keys = {name: [f"{{all}}:heartbeat:{name}-1"] for name in ("viewer", "recorder")}.get(user, [])

    answers = {}
    for command in SCRIPTED[user]:
        call = ", ".join(f"'{word}'" for word in command)
        sha = shared.server.client.script_load(f"return redis.call({call})")
        for named in (keys, [*keys, *command[1:2]]):
            answers[command, len(named)] = outcome(client, "EVALSHA", sha, str(len(named)), *named)

    assert {call: answer for call, answer in answers.items() if answer != "denied"} == {}
    client.close()


def test_a_viewer_labels_pictures_with_a_user_of_their_own_and_without_it_says_so(
    own: Locked, processes: Processes
) -> None:
    start(own, processes, "detector", "detect")
    start(own, processes, "classifier", "classify")
    label_redis = ("--label-redis", own.url("labeller"))
    viewers = [start(own, processes, "viewer", "view", "--port", 0, *flags) for flags in (label_redis, ())]
    pages = [line.removeprefix("Viewer: ").strip() for one in viewers if one.stdout for line in [one.stdout.readline()]]
    picture = encode_jpeg(load_photograph(), 90)
    wait_until(lambda: len(read_heartbeats(own.server.client)) == 4, 40, "workers and viewers are alive")

    labelled, refused = (
        requests.post(f"{page}api/v1/label", picture, headers={"Content-Type": "image/jpeg"}, timeout=60)
        for page in pages
    )

    assert labelled.status_code == 200, labelled.text
    assert len(labelled.json()["faces"]) == 1
    (run_of_viewer,) = read_status(own.server.bus).files
    assert run_of_viewer.ledger == Ledger(produced=1, labelled=1)
    assert list(own.server.client.scan_iter("*pixels*")) == []
    assert refused.status_code == 503
    assert "MASKWATCH_LABEL_REDIS" in refused.json()["detail"]
    assert {row["username"] for row in denials(own)} == {"viewer"}


def test_the_user_that_publishes_pictures_may_do_nothing_else(shared: Locked) -> None:
    client = connect(shared.url("labeller"))
    shared.server.client.script_load(READ_RESULTS)
    tried = [*NOBODY, *NO_PROGRAM, *DENIED["camera"], *LABELLER_DENIED]
    allowed = "XADD {s0}:frames:complete * a b"  # as its script does

    answers = {line: outcome(client, *words(line)) for line in tried if line != allowed}
    scripted = {
        command: outcome(client, "EVALSHA", shared.server.client.script_load(f"return redis.call({call})"), "1", key)
        for command, key in (
            ("XADD {s0}:frames * a b", "{s0}:frames"),
            ("GET {s0}:pixels:file-api-1:1:1", "{s0}:remote"),
        )
        for call in [", ".join(f"'{word}'" for word in command.split())]
    }

    assert {line: answer for line, answer in {**answers, **scripted}.items() if answer != "denied"} == {}
    client.close()


def outcome(client: redis.Redis, *command: str) -> str:
    """Return "denied" if this user lacks the permission for a known command, else the answer."""
    try:
        return str(client.execute_command(*command))
    except NoPermissionError:
        return "denied"
    except redis.ResponseError as error:  # from inside a script it has no code of its own
        by_user = "ACL failure" in str(error) or "The user executing the script can't" in str(error)
        return "denied" if by_user else str(error)


@pytest.mark.parametrize("user", [*USERS, "default", "nobody"])
def test_a_wrong_password_opens_nothing(shared: Locked, user: str) -> None:
    clients = [connect(shared.url(user, "camera")), connect(f"unix://{shared.socket}")]

    for client in clients:
        with pytest.raises(redis.AuthenticationError):
            client.ping()
        client.close()


@pytest.mark.parametrize("command", ["status", "label PICTURE --json -"], ids=["status", "label"])
def test_a_command_with_a_wrong_password_reports_it_in_one_line(shared: Locked, command: str, tmp_path: Path) -> None:
    picture = tmp_path / "a.jpg"
    picture.write_bytes(encode_jpeg(numbered_picture(1), 90))

    done = run(shared, "admin", *command.replace("PICTURE", str(picture)).split(), password="a-wrong-password")

    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "invalid username-password pair" in line
    assert f"unix://admin:***@{shared.socket}" in line
    assert "a-wrong-password" not in done.stderr


@pytest.mark.parametrize(
    ("user", "password", "reason"),
    [("detector", "a-wrong-password", "invalid username-password pair"), ("camera", None, "ermissions to")],
    ids=["wrong password", "wrong user"],
)
def test_a_worker_that_is_denied_waits_and_logs_the_reason_once(
    own: Locked, processes: Processes, user: str, password: str | None, reason: str
) -> None:
    worker = processes.start("detect", "--redis", own.url(user, password))

    wait_until(lambda: reason in processes.log(), 40, "it says why")
    tried = denied_times(own)
    wait_until(lambda: denied_times(own) > tried + 2, 30, "it tries again")

    assert worker.poll() is None
    assert processes.log().count(reason) == 1
    assert f"unix://{user}:***@{own.socket}" in processes.log()
    assert "a-wrong-password" not in processes.log()


def denied_times(own: Locked) -> int:
    return sum(int(row["count"]) for row in own.denials())


def test_trainers_and_their_clients_need_one_user_only(tmp_path: Path, processes: Processes) -> None:
    with locked("redis", template=JOBS_TEMPLATE) as jobs:
        client = connect(jobs.url("jobs"))
        settings = TrainSettings(datasets=(str(tmp_path),), out=str(tmp_path / "out"))
        cancelled = enqueue_job(client, JobSpec(settings=settings), time_limit_s=60)
        cancel_job(client, cancelled)
        foreign = training_queue(client).enqueue("os.mkdir", str(tmp_path / "made")).id
        trainer = processes.start("trainer", "--redis", jobs.url("jobs"))

        wait_until(lambda: job_with_id(client, foreign).state == "failed", 60, "the trainer has looked at the job")
        trainer.terminate()

        assert trainer.wait(30) == 0
        assert job_with_id(client, cancelled).state == "cancelled"
        assert jobs.denials() == []
        brought = ("SCRIPT LOAD", "PUBLISH", "SUBSCRIBE")  # rq brings scripts and has a channel
        own = [line for line in NOBODY if not line.startswith(brought)]
        tried = [
            *own,
            "SUBSCRIBE anything",
            "SCAN 0",
            "KEYS *",
            "GET {s0}:pixels:door:1:1",
            "XADD {s0}:frames * a b",
            "PUBLISH anything x",
        ]
        answers = {line: outcome(client, *words(line)) for line in tried}
        assert {line: answer for line, answer in answers.items() if answer != "denied"} == {}
        client.close()


def test_the_error_for_a_redis_without_this_versions_scripts_names_the_remedy() -> None:
    with locked("redis", scripts=()) as found:
        viewer, detector = connect(found.url("viewer")), connect(found.url("detector"))
        calls = [
            lambda: read_counts(Bus(viewer).shards[0], ["door"]),
            lambda: Script(detector, "leave_group")(keys=["{s0}:frames"], args=[GROUP, "me"]),
        ]

        for call in calls:
            with pytest.raises(NoPermissionError, match="restart Redis"):
                call()

        viewer.close()
        detector.close()


def test_a_script_that_does_not_end_fails_the_containers_check_and_is_ended_by_the_admin(own: Locked) -> None:
    admin, other = connect(own.url("admin")), connect(own.url("viewer"))
    own.server.client.config_set("busy-reply-threshold", 10)
    well = [answers(own, check) for check in checks()]
    endless = threading.Thread(target=outcome, args=(own.server.client, "EVAL", "while true do end", "0"))
    endless.start()
    wait_until(lambda: outcome(other, "PING").startswith(("BUSY", "Redis is busy")), 30, "everybody waits")

    busy = [answers(own, check) for check in checks()]
    denied, ended = outcome(other, "SCRIPT", "KILL"), outcome(admin, "SCRIPT", "KILL")
    endless.join()

    assert (set(well), set(busy)) == ({True}, {False})
    assert (denied, ended) == ("denied", "b'OK'")
    assert other.ping()
    admin.close()
    other.close()


def checks() -> list[str]:
    """Return the commands by which Compose and Kubernetes ask whether Redis is well."""
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]["redis"]["healthcheck"]
    objects = yaml.safe_load_all((REPOSITORY / "deploy" / "kubernetes" / "base" / "redis.yaml").read_text())
    (pod,) = (one["spec"]["template"]["spec"] for one in objects if one["kind"] == "Deployment")
    probes = [probe for name, probe in pod["containers"][0].items() if name.endswith("Probe")]
    return [compose["test"][-1].replace("$$", "$"), *(probe["exec"]["command"][-1] for probe in probes)]


def answers(own: Locked, check: str) -> bool:
    """Return whether a check succeeds, asked of this server."""
    command = check.replace("redis-cli", f"redis-cli -s {own.socket}")
    variables = {"REDIS_VIEWER_PASSWORD": password_of("viewer"), "PATH": os.environ["PATH"]}
    return subprocess.run(["sh", "-c", command], capture_output=True, check=False, env=variables).returncode == 0
