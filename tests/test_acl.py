"""Each user of Redis has only the permissions of its role, on Redis and on Valkey."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import yaml
from conftest import wait_until
from feeding import numbered_picture
from locked import JOBS_TEMPLATE, REPOSITORY, USERS, Locked, locked, password_of
from processes import Process, Processes, processes
from redis.exceptions import NoPermissionError

from pipeline.bus import messages
from pipeline.bus.clock import Clock
from pipeline.bus.connection import connect
from pipeline.bus.dead_letters import list_dead_letters, replay_dead_letter
from pipeline.bus.keys import COMPLETE_PIXELS_MS, GROUP
from pipeline.bus.messages import Frame, LeaseHolder
from pipeline.bus.scripts import Script
from pipeline.bus.status import Ledger, read_heartbeats, read_ledgers, read_status
from pipeline.bus.writer import Writer
from pipeline.vision.jpeg import encode_jpeg
from trainer.jobs.enqueue import cancel_job, enqueue_job
from trainer.jobs.job_list import job_with_id
from trainer.jobs.job_spec import JobSpec, training_queue
from trainer.settings import TrainSettings

__all__ = ["processes"]

READ_RESULTS = "return redis.call('XRANGE', 'results', '-', '+')"
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
    "EVAL READ_RESULTS 1 results",
    "EVAL_RO READ_RESULTS 1 results",
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
]
NO_PROGRAM = [
    "SCAN 0",
    "KEYS *",
    "RANDOMKEY",
    "DBSIZE",
    "SELECT 1",
    "SET anything x",
    "GET anything",
    "DEL ledger:door",
    "EXPIRE ledger:door 1",
    "HSET ledger:door labelled 9",
    "DUMP pixels:door:1:1",
    "COPY pixels:door:1:1 heartbeat:door",
    "RENAME pixels:door:1:1 heartbeat:door",
    "XRANGE dead - +",
    "XREAD STREAMS dead 0",
    "XDEL dead 1-1",
    "XTRIM results MAXLEN 0",
    "XGROUP DESTROY frames workers",
    "XGROUP DESTROY faces workers",
    "XGROUP SETID frames workers 0",
    "XSETID frames 9-9",
    "SCRIPT KILL",
    "DEL heartbeat:admin-1",
]
DENIED = {
    "camera": [
        "INFO",
        "GET pixels:door:1:1",
        "MGET pixels:door:1:1",
        "GETDEL pixels:door:1:1",
        "SET pixels:door:1:1 x GET",
        "GET crops:door:1:1",
        "SET crops:door:1:1 x",
        "XRANGE results - +",
        "XREVRANGE results + -",
        "XREAD STREAMS results 0",
        "XRANGE faces - +",
        "XADD faces * a b",
        "XADD dead * a b",
        "XDEL frames 1-1",
        "XREADGROUP GROUP workers me STREAMS frames >",
        "XACK frames workers 1-1",
        "XGROUP CREATE frames mine 0",
        "HGETALL ledger:door",
        "GET model",
        "SET model x",
        "SET heartbeat:detector-1 x",
        "EVALSHA_RO READ_RESULTS_SHA 1 results",
    ],
    "detector": [
        "INFO",
        "XADD frames * a b",
        "XRANGE results - +",
        "XREAD STREAMS results 0",
        "XRANGE faces - +",
        "XREADGROUP GROUP workers me STREAMS faces >",
        "XACK faces workers 1-1",
        "SET pixels:door:1:1 x",
        "UNLINK pixels:door:1:1",
        "GET crops:door:1:1",
        "MGET crops:door:1:1",
        "SET model x",
        "SET lease:door x",
        "GET lease:door",
        "HGET newest:frames:door pixels_key",
        "HSET newest:frames:door seq 1",
        "ZADD cameras 1 door",
        "SET heartbeat:camera-1 x",
        "EVALSHA_RO READ_RESULTS_SHA 1 results",
    ],
    "classifier": [
        "INFO",
        "GET pixels:door:1:1",
        "MGET pixels:door:1:1",
        "SET pixels:door:1:1 x",
        "UNLINK pixels:door:1:1",
        "SET crops:door:1:1 x",
        "XADD frames * a b",
        "XADD faces * a b",
        "XRANGE frames - +",
        "XREADGROUP GROUP workers me STREAMS frames >",
        "XACK frames workers 1-1",
        "XRANGE results - +",
        "XREAD STREAMS results 0",
        "SET lease:door x",
        "HGET newest:frames:door pixels_key",
        "ZADD cameras 1 door",
        "SET heartbeat:viewer-1 x",
        "EVALSHA_RO READ_RESULTS_SHA 1 results",
    ],
    "viewer": [
        "XADD frames * a b",
        "XADD faces * a b",
        "XADD results * a b",
        "XDEL results 1-1",
        "XREADGROUP GROUP workers me STREAMS frames >",
        "XCLAIM frames workers me 0 1-1",
        "XACK frames workers 1-1",
        "SET pixels:door:1:1 x",
        "UNLINK pixels:door:1:1",
        "PEXPIRE pixels:door:1:1 9",
        "GET crops:door:1:1",
        "MGET crops:door:1:1",
        "HSET newest:frames:door seq 1",
        "HINCRBY ledger:door produced 1",
        "UNLINK ledger:door",
        "SET lease:door x",
        "GET lease:door",
        "ZADD cameras 1 door",
        "SET model x",
        "SET heartbeat:classifier-1 x",
    ],
    "admin": [],
}
# Calls of scripts that only the server's start can load, each with keys that its user may name.
SCRIPTED = {
    "camera": [("XRANGE", "results", "-", "+"), ("GET", "pixels:door:1:1"), ("XDEL", "frames", "1-1")],
    "detector": [("XRANGE", "results", "-", "+"), ("GET", "crops:door:1:1"), ("XADD", "frames", "*", "a", "b")],
    "classifier": [("GET", "pixels:door:1:1"), ("XRANGE", "results", "-", "+"), ("SET", "crops:door:1:1", "x")],
    "viewer": [("HINCRBY", "ledger:door", "produced", "1"), ("XADD", "results", "*", "a", "b"), ("FLUSHALL",)],
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


def publish_as_camera(own: Locked, name: str, jpeg: bytes) -> None:
    """Publish one frame as the user of cameras."""
    client = connect(own.url("camera"))
    token = messages.encode(LeaseHolder(host="test", pid=1, token=secrets.token_hex(4)))
    now = own.server.clock.now()
    frame = Frame(
        frame_id=f"{name}:1:1",
        camera=name,
        start=1,
        seq=1,
        width=640,
        height=360,
        pixels_key=f"pixels:{name}:1:1",
        captured_at=now,
        deadline_at=now + 60,
    )
    Writer(client, camera=name, token=token, pixels_ms=COMPLETE_PIXELS_MS).publish(frame, jpeg)
    client.close()


def fetched(url: str) -> bytes:
    """Return what a page answers, nothing while it has none."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 -- the test's own viewer
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        assert error.code in (404, 503)
        return b""


def labelled(own: Locked, camera: str) -> int:
    return read_ledgers(own.server.client, [camera])[camera].labelled


def test_every_process_can_do_all_its_work_as_its_own_user(
    own: Locked, processes: Processes, tmp_path: Path, pictures: Path
) -> None:
    folder = tmp_path / "street"
    folder.mkdir()
    shutil.copy(min((pictures / "face-mask-detection" / "images").iterdir()), folder)
    jpeg = encode_jpeg(numbered_picture(1), 90)
    publish_as_camera(own, "orphan", jpeg)
    own.server.client.xgroup_create(messages.FRAMES, GROUP, id="0")
    own.server.client.xreadgroup(GROUP, "killed", {messages.FRAMES: ">"})
    started = [start(own, processes, "detector", "detect"), start(own, processes, "classifier", "classify")]
    started.append(start(own, processes, "viewer", "view", "--port", 0))
    started.append(start(own, processes, "camera", "camera", "demo", "--name", "door", "--fps", 10))
    assert started[2].stdout
    page = started[2].stdout.readline().removeprefix("Viewer: ").strip()
    admin = connect(own.url("admin"))

    wait_until(lambda: labelled(own, "door") >= 3, 40, "frames are labelled")
    publish_as_camera(own, "broken", jpeg[:300])
    (letter,) = wait_until(lambda: list_dead_letters(admin), 30, "a damaged picture is dead")
    own.server.client.set("pixels:broken:1:1", jpeg)
    replay_dead_letter(admin, letter.id)
    wait_until(lambda: labelled(own, "broken"), 30, "what was put back is labelled")
    wait_until(lambda: labelled(own, "orphan"), 30, "what a killed worker held is taken over")
    snapshot = wait_until(lambda: fetched(f"{page}cameras/door/snapshot.jpg"), 30, "the viewer shows frames")
    metrics = fetched(f"{page}metrics")
    status = read_status(admin, Clock(admin))
    told = {user: len(read_heartbeats(connect(own.url(user)))) for user in USERS}
    label = processes.start("label", folder, "--json", tmp_path / "out.jsonl", "--redis", own.url("admin"))
    assert label.wait(60) == 0
    for process in reversed(started):
        process.terminate()
        assert process.wait(30) == 0

    assert snapshot[:2] == b"\xff\xd8"
    assert b'maskwatch_frames_labelled_total{camera="door"}' in metrics
    assert told == dict.fromkeys(USERS, 4)
    assert {one.role for one in status.processes} == {"camera", "detector", "classifier", "viewer"}
    assert json.loads((tmp_path / "out.jsonl").read_text())["faces"]
    ledgers = read_ledgers(admin, ["door", "broken", "orphan"])
    assert ledgers["door"].balances
    assert ledgers["broken"] == Ledger(produced=2, labelled=1, dropped={"dead": 1})
    assert ledgers["orphan"] == Ledger(produced=1, labelled=1)
    assert own.server.client.zrange(messages.PROCESSES, 0, -1) == []
    assert own.denials() == []
    assert "permission" not in processes.log()
    admin.close()


@pytest.mark.parametrize("user", USERS)
def test_each_user_is_denied_what_its_role_does_not_need(shared: Locked, user: str) -> None:
    client = connect(shared.url(user))
    shared.server.client.script_load(READ_RESULTS)
    tried = [*NOBODY, *(NO_PROGRAM if user != "admin" else []), *DENIED[user]]

    answers = {line: outcome(client, *words(line)) for line in tried}

    assert {line: answer for line, answer in answers.items() if answer != "denied"} == {}
    client.close()


@pytest.mark.parametrize("user", USERS)
def test_no_script_does_what_its_user_may_not(shared: Locked, user: str) -> None:
    client = connect(shared.url(user))
    keys = {"viewer": ["heartbeat:viewer-1"]}.get(user, [])

    answers = {}
    for command in SCRIPTED[user]:
        call = ", ".join(f"'{word}'" for word in command)
        sha = shared.server.client.script_load(f"return redis.call({call})")
        for named in (keys, [*keys, *command[1:2]]):
            answers[command, len(named)] = outcome(client, "EVALSHA", sha, str(len(named)), *named)

    assert {call: answer for call, answer in answers.items() if answer != "denied"} == {}
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
            "GET pixels:door:1:1",
            "XADD frames * a b",
            "PUBLISH anything x",
        ]
        answers = {line: outcome(client, *words(line)) for line in tried}
        assert {line: answer for line, answer in answers.items() if answer != "denied"} == {}
        client.close()


def test_checking_for_stale_frames_needs_read_permission_only(shared: Locked) -> None:
    client = connect(shared.url("viewer"))

    newer = Script(client, "overtaken", read_only=True)(keys=[messages.FRAMES], args=["door", f"{time.time():.6f}"])

    assert newer == [0]
    client.close()


def test_the_error_for_a_redis_without_this_versions_scripts_names_the_remedy() -> None:
    with locked("redis", scripts=()) as found:
        viewer, detector = connect(found.url("viewer")), connect(found.url("detector"))
        calls = [
            lambda: Script(viewer, "ledger", read_only=True)(keys=[messages.FRAMES, messages.FACES], args=[]),
            lambda: Script(detector, "leave_group")(keys=[messages.FRAMES], args=[GROUP, "me"]),
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
