"""Kill, pause and starve real processes: no frame is lost or counted twice, and nothing is left behind."""

from __future__ import annotations

import collections
import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest
import redis
from conftest import Server, wait_until
from feeding import alive
from processes import Process, Processes, descendants, gone, live, processes, wait_for_workers

from chaos.lines import read_lines
from models.classifier.card import DEFAULT_FOLDER
from pipeline.bus.connection import connect
from pipeline.bus.frame_ring import RingReader
from pipeline.bus.keys import GROUP
from pipeline.bus.leases import Lease
from pipeline.bus.messages import FaceCrops, FrameResult, SharedPixels, decode
from pipeline.bus.reader import Reader
from pipeline.bus.status import Ledger, read_heartbeats, read_ledgers, read_status
from pipeline.runtime.embedded_server import embedded_server
from pipeline.runtime.settings import Settings
from pipeline.runtime.worker_context import WorkerContext
from pipeline.vision.arrays import Image
from pipeline.vision.jpeg import encode_jpeg
from producer.files.outputs import Outputs
from producer.files.sender import Sender
from producer.shared_images import SharedImages
from producer.sources.source_spec import parse_source
from workers.classify import classify
from workers.face_crops import CropSource
from workers.warm_classifier import load_warm

__all__ = ["processes"]

PICTURES = 120


@pytest.fixture
def street(pictures: Path, tmp_path: Path) -> Path:
    """Return a folder with PICTURES street photographs."""
    folder = tmp_path / "street"
    folder.mkdir()
    for path in sorted((pictures / "face-mask-detection" / "images").iterdir())[:PICTURES]:
        shutil.copy(path, folder)
    return folder


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def half_way(server: Server, processes: Processes, street: Path) -> tuple[Process, Path]:
    """Start a run with a worker of each kind; return it and its lines once it has written some."""
    processes.start("detect", redis=server)
    processes.start("classify", redis=server)
    wait_for_workers(server)
    lines = street.with_name("out.jsonl")
    label = processes.start("label", street, "--json", lines, redis=server)
    wait_until(lambda: lines_in(lines) >= 10, 30, "ten lines")
    return label, lines


def finished(label: Process, lines: Path, server: Server) -> Ledger:
    """Wait for a run to end well; check its lines; return its ledger, which balances."""
    assert label.wait(timeout=120) == 0
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [line["frame"] for line in found] == list(range(PICTURES))
    assert not any("error" in line for line in found)
    (camera,) = [name.decode() for name in cast(list[bytes], server.client.zrange("{s0}:cameras", 0, -1))]
    ledger = read_ledgers(server.bus, [camera])[camera]
    assert ledger.balances
    assert ledger.in_flight == 0
    return ledger


def labelled_counts(server: Server) -> collections.Counter[str]:
    """Return how often each frame was labelled."""
    rows = cast(list[Any], server.client.xrange("{s0}:results"))
    results = [decode(FrameResult, fields[b"record"]) for _, fields in rows]
    return collections.Counter(result.frame_id for result in results if result.outcome == "labelled")


def consumer_of(server: Server, process: Process) -> str:
    return next(beat.id for beat in read_heartbeats(server.client) if beat.pid == process.pid)


def pause_while_holding(server: Server, process: Process, stream: str, consumer: str) -> None:
    """Stop a worker at a moment at which it holds an entry."""

    def held() -> bool:
        os.kill(process.pid, signal.SIGSTOP)
        if server.client.xpending_range(stream, GROUP, "-", "+", 1, consumer):
            return True
        os.kill(process.pid, signal.SIGCONT)
        return False

    wait_until(held, 30, f"{consumer} holds an entry of {stream}")


@pytest.mark.parametrize("role", ["detect", "classify"])
def test_a_worker_killed_at_work_loses_nothing_and_counts_nothing_twice(
    server: Server, processes: Processes, street: Path, tmp_path: Path, role: str
) -> None:
    started = {
        name: [processes.start(name, redis=server), processes.start(name, redis=server)]
        for name in ("detect", "classify")
    }
    wait_for_workers(server, 2, 2)
    lines = tmp_path / "out.jsonl"
    label = processes.start("label", street, "--json", lines, redis=server)
    wait_until(lambda: lines_in(lines) >= 10, 30, "ten lines")

    started[role][0].kill()

    ledger = finished(label, lines, server)
    assert ledger == Ledger(produced=PICTURES, labelled=PICTURES)
    assert set(labelled_counts(server).values()) == {1}


@pytest.mark.parametrize(("role", "stream"), [("detect", "{s0}:frames:complete"), ("classify", "{s0}:faces:complete")])
def test_a_worker_that_resumes_after_the_reclaim_time_changes_nothing(
    server: Server, processes: Processes, street: Path, tmp_path: Path, role: str, stream: str
) -> None:
    paused = processes.start(role, redis=server)
    for name in ("detect", "classify"):
        processes.start(name, redis=server)
    wait_for_workers(server)
    wait_until(lambda: any(beat.pid == paused.pid for beat in read_heartbeats(server.client)), 20, "it lives")
    consumer = consumer_of(server, paused)
    lines = tmp_path / "out.jsonl"
    label = processes.start("label", street, "--json", lines, redis=server)
    pause_while_holding(server, paused, stream, consumer)

    ledger = finished(label, lines, server)
    before = server.client.xlen("{s0}:results")
    os.kill(paused.pid, signal.SIGCONT)
    wait_until(lambda: any(beat.id == consumer for beat in read_heartbeats(server.client)), 10, "it goes on")
    paused.terminate()
    paused.wait(timeout=30)

    assert ledger == Ledger(produced=PICTURES, labelled=PICTURES)
    assert server.client.xlen("{s0}:results") == before == PICTURES
    assert set(labelled_counts(server).values()) == {1}
    (camera,) = [name.decode() for name in cast(list[bytes], server.client.zrange("{s0}:cameras", 0, -1))]
    assert read_ledgers(server.bus, [camera])[camera] == ledger
    assert server.client.xlen("{s0}:faces:complete") == server.client.xlen("{s0}:frames:complete") == 0


def test_redis_losing_its_memory_loses_no_frame_of_a_run(server: Server, processes: Processes, street: Path) -> None:
    label, lines = half_way(server, processes, street)

    server.process.terminate()
    server.process.start()

    finished(label, lines, server)
    assert "sending them again" in processes.log()


def test_a_redis_that_was_emptied_loses_no_frame_of_a_run(server: Server, processes: Processes, street: Path) -> None:
    label, lines = half_way(server, processes, street)

    server.client.flushall()

    assert label.wait(timeout=120) == 0
    assert lines_in(lines) == PICTURES


def test_full_memory_lets_a_run_go_on_once_there_is_room(
    server: Server, processes: Processes, street: Path, tmp_path: Path
) -> None:
    processes.start("detect", redis=server)
    classifier = processes.start("classify", redis=server)
    wait_for_workers(server)
    os.kill(classifier.pid, signal.SIGSTOP)
    lines = tmp_path / "out.jsonl"
    label = processes.start("label", street, "--json", lines, redis=server)
    wait_until(lambda: server.client.xlen("{s0}:faces:complete") >= 10, 30, "faces wait")

    server.client.config_set("maxmemory", "1mb")
    os.kill(classifier.pid, signal.SIGCONT)
    wait_until(lambda: lines_in(lines) >= 5, 30, "what was there is labelled although memory is full")
    server.client.config_set("maxmemory", "0")

    ledger = finished(label, lines, server)
    assert ledger.labelled == PICTURES


def test_frames_in_the_memory_of_another_machine_are_sent_again_as_jpeg(
    server: Server, processes: Processes, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = SharedImages.put

    def put_elsewhere(images: SharedImages, image: Image, *, hold: bool = False) -> SharedPixels | None:
        """Share an image, and name a process that does not exist here."""
        found = put(images, image, hold=hold)
        return found and msgspec.structs.replace(found, pid=2**31 - 1)

    monkeypatch.setattr(SharedImages, "put", put_elsewhere)
    processes.start("detect", redis=server)
    processes.start("classify", redis=server)
    wait_for_workers(server)
    spec = parse_source(str(pictures / "hand-over-face" / "bird.mkv"))
    outputs = Outputs(spec, json_path=str(tmp_path / "out.jsonl"), out_path=None, resume=False)
    context = WorkerContext("camera", server.url)
    lease = Lease(server.shard, "file-0000000a", context.wait)
    lease.acquire()
    sender = Sender(context, server.shard, lease.token, "file-0000000a", Settings(), spec.open(), outputs)

    wait_until(lambda: sender.step() * 0 or sender.done, 60, "all frames are labelled")
    outputs.close(complete=True)
    sender.close()
    lease.release()
    context.client.close()

    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(lines) > 60
    assert all(line["faces"] and "error" not in line for line in lines)
    dropped = read_ledgers(server.bus, ["file-0000000a"])["file-0000000a"].dropped
    assert 1 <= dropped["pixels_gone"] <= 40  # those that were on their way before the JPEGs


def test_a_classifier_of_another_machine_gets_crops_of_a_file_that_shares_its_pixels(
    server: Server, processes: Processes, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RingReader, "open", lambda *_: None)  # of the classifier, which runs in this process
    processes.start("detect", redis=server)
    wait_until(lambda: live(server, "detector"), 30, "a detector")
    context = WorkerContext("classifier", server.url)
    reader = Reader(context.bus, stage="faces", record_type=FaceCrops, consumer=context.id)
    model, source = load_warm(Settings(), DEFAULT_FOLDER), CropSource()
    lines = tmp_path / "out.jsonl"

    def label_some() -> bool:
        classify(context, reader, model, reader.read(4), source)
        return label.poll() is not None

    with alive(server, "classifier"):
        label = processes.start("label", pictures / "hand-over-face" / "bird.mkv", "--json", lines, redis=server)
        wait_until(label_some, 60, "all frames are labelled")
    context.client.close()

    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert (label.returncode, len(found) > 60) == (0, True)
    assert all(line["faces"] and "error" not in line for line in found)
    (camera,) = [name.decode() for name in cast(list[bytes], server.client.zrange("{s0}:cameras", 0, -1))]
    ledger = read_ledgers(server.bus, [camera])[camera]
    assert ledger.balances
    assert 1 <= ledger.dropped["pixels_gone"] <= 40  # those that were on their way before it had asked for crops


def test_crops_that_expire_are_cut_again_from_the_same_pixels(
    server: Server, processes: Processes, pictures: Path, tmp_path: Path
) -> None:
    clip, quiet, lines = pictures / "hand-over-face" / "bird.mkv", tmp_path / "quiet.jsonl", tmp_path / "out.jsonl"
    detector = processes.start("detect", redis=server)
    classifier = processes.start("classify", redis=server)
    wait_for_workers(server)
    assert processes.start("label", clip, "--json", quiet, redis=server).wait(60) == 0
    detector.terminate()
    detector.wait(10)
    os.kill(classifier.pid, signal.SIGSTOP)

    processes.start("detect", redis=server)
    label = processes.start("label", clip, "--json", lines, redis=server)
    wait_until(lambda: server.client.xlen("{s0}:faces:complete") >= 10, 30, "faces wait")
    expired = server.client.delete(*server.client.scan_iter("{s0}:crops:*"))
    os.kill(classifier.pid, signal.SIGCONT)

    assert (label.wait(60), expired > 0) == (0, True)  # a new detector sends crops until it knows who needs them
    assert read_lines(lines) == read_lines(quiet)


def test_a_picture_that_never_fits_into_redis_gets_a_line_with_its_error(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.files.sender.NO_ROOM_TIMEOUT_S", 0.2)
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), np.uint8)
    (tmp_path / "in" / "large.jpg").write_bytes(encode_jpeg(noise, 95))
    server.client.config_set("maxmemory", "2mb")
    spec = parse_source(str(tmp_path / "in"))
    outputs = Outputs(spec, json_path=str(tmp_path / "out.jsonl"), out_path=None, resume=False)
    context = WorkerContext("camera", server.url)
    lease = Lease(server.shard, "file-0000000a", context.wait)
    lease.acquire()
    sender = Sender(context, server.shard, lease.token, "file-0000000a", Settings(), spec.open(), outputs)

    wait_until(lambda: sender.step() or sender.done, 30, "the frame is given up")
    outputs.close(complete=True)
    lease.release()
    context.client.close()

    (line,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert re.fullmatch(r"Redis has no room for its JPEG of \d+ bytes: raise its maxmemory", line["error"])


def test_a_frame_that_was_read_while_redis_could_not_tell_the_time_is_sent(
    server: Server, processes: Processes, street: Path, tmp_path: Path
) -> None:
    for path in sorted(street.iterdir())[3:]:
        path.unlink()
    processes.start("detect", redis=server)
    processes.start("classify", redis=server)
    wait_for_workers(server)
    spec = parse_source(str(street))
    outputs = Outputs(spec, json_path=str(tmp_path / "out.jsonl"), out_path=None, resume=False)
    context = WorkerContext("camera", server.url)
    lease = Lease(server.shard, "file-0000000a", context.wait)
    lease.acquire()
    sender = Sender(context, context.bus.shards[0], lease.token, "file-0000000a", Settings(), spec.open(), outputs)
    server.process.terminate()
    context.clock.expire()  # as after every reconnection

    with pytest.raises(redis.RedisError):
        sender.step()
    server.process.start()

    def is_done() -> bool:
        with context.reconnecting():
            sender.step()
        return sender.done

    wait_until(is_done, 60, "all frames have a line")
    outputs.close(complete=True)
    lease.release()
    context.client.close()
    assert lines_in(tmp_path / "out.jsonl") == 3


def test_without_detectors_the_newest_frame_of_a_camera_is_still_shown(server: Server, processes: Processes) -> None:
    server.client.set("{s0}:watched:door", 1)  # as a viewer does
    processes.start("camera", "demo", "--name", "door", redis=server)
    wait_until(lambda: read_ledgers(server.bus, ["door"])["door"].dropped.get("stale"), 30, "newer frames come")

    before = cast(bytes, server.client.hget("{s0}:newest:frames:door", "seq"))
    wait_until(lambda: server.client.hget("{s0}:newest:frames:door", "seq") != before, 5, "the newest frame goes on")
    key = cast(bytes, server.client.hget("{s0}:newest:frames:door", "pixels_key"))

    assert server.client.exists(key)


def test_pixels_that_are_gone_are_sent_again(
    server: Server, processes: Processes, street: Path, tmp_path: Path
) -> None:
    processes.start("classify", redis=server)
    idle = processes.start("detect", redis=server)
    wait_for_workers(server)
    os.kill(idle.pid, signal.SIGSTOP)
    lines = tmp_path / "out.jsonl"
    label = processes.start("label", street, "--json", lines, redis=server)
    wait_until(lambda: server.client.keys("{s0}:pixels:*"), 30, "pixels are there")

    server.client.delete(*cast(list[bytes], server.client.keys("{s0}:pixels:*")))
    os.kill(idle.pid, signal.SIGCONT)

    ledger = finished(label, lines, server)
    assert ledger.labelled == PICTURES
    assert ledger.dropped["pixels_gone"] == ledger.produced - PICTURES > 0


def test_a_damaged_image_of_a_live_camera_is_dead_and_all_others_are_labelled(
    server: Server, processes: Processes, street: Path
) -> None:
    for path in sorted(street.iterdir())[10:]:
        path.unlink()
    whole = next(street.iterdir()).read_bytes()
    (street / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    processes.start("detect", redis=server)
    processes.start("classify", redis=server)
    wait_for_workers(server)
    processes.start("camera", street, "--name", "door", redis=server)

    def counts() -> Ledger | None:
        ledger = read_ledgers(server.bus, ["door"])["door"]
        assert ledger.balances
        return ledger if ledger.dropped.get("dead", 0) >= 2 and ledger.labelled >= 20 else None

    wait_until(counts, 20, "dead letters of the damaged picture, and labels of the others")
    assert server.client.xlen("{s0}:dead") >= 2


@pytest.mark.parametrize("role", ["camera", "detect", "classify", "view"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_every_process_ends_by_itself_and_leaves_nothing(
    server: Server, processes: Processes, role: str, number: signal.Signals
) -> None:
    flags = {"camera": ["demo", "--name", "door"], "view": ["--port", "0"]}.get(role, [])
    process = processes.start(role, *flags, redis=server)
    heartbeat = {"detect": "detector", "classify": "classifier", "view": "viewer"}.get(role, role)
    wait_until(lambda: live(server, heartbeat), 20, f"the {role} process lives")
    family = [process.pid, *descendants(process.pid)]

    process.send_signal(number)
    process.wait(timeout=30)

    assert process.returncode == 0, "after STOP_TIMEOUT_S it would have exited with 1"
    wait_until(lambda: gone(family), 10, "no child is left")
    assert not live(server, heartbeat)
    assert list(processes.temporary.iterdir()) == []


@pytest.mark.parametrize("role", ["camera", "detect", "classify", "view"])
def test_every_process_ends_while_redis_hangs(server: Server, processes: Processes, role: str) -> None:
    flags = {"camera": ["demo", "--name", "door"], "view": ["--port", "0"]}.get(role, [])
    process = processes.start(role, *flags, redis=server)
    heartbeat = {"detect": "detector", "classify": "classifier", "view": "viewer"}.get(role, role)
    wait_until(lambda: live(server, heartbeat), 20, f"the {role} process lives")
    family = [process.pid, *descendants(process.pid)]
    redis_pid = server.client.info("server")["process_id"]

    os.kill(redis_pid, signal.SIGSTOP)
    try:
        process.terminate()
        process.wait(timeout=30)
        wait_until(lambda: gone(family), 10, "no child is left")
    finally:
        os.kill(redis_pid, signal.SIGCONT)

    exits_hard = role != "view"  # the viewer's loop does not wait for Redis
    assert process.returncode == (1 if exits_hard else 0)
    assert ("exits without settling" in processes.log()) == exits_hard


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_demo_ends_with_all_it_started_however_it_is_ended(processes: Processes, number: signal.Signals) -> None:
    demo = processes.start("demo", "--port", "0")
    assert demo.stdout is not None
    assert "http://127.0.0.1:" in demo.stdout.readline()
    family = descendants(demo.pid)
    assert len(family) >= 5

    demo.send_signal(number)
    demo.wait(timeout=30)

    wait_until(lambda: gone(family), 30, f"none of {family} is left")
    wait_until(lambda: list(processes.temporary.iterdir()) == [], 10, "no file is left")


def test_ctrl_c_while_workers_are_started_ends_demo_without_an_error(processes: Processes) -> None:
    demo = processes.start("demo", "--port", "0", "--log-json")
    wait_until(lambda: any("fork-children" in command(pid) for pid in descendants(demo.pid)), 30, "workers are forked")
    family = descendants(demo.pid)

    os.killpg(demo.pid, signal.SIGINT)

    assert demo.wait(timeout=60) == 0, processes.log()
    assert {json.loads(line)["level"] for line in processes.log().splitlines()} <= {"INFO"}
    wait_until(lambda: gone(family), 30, f"none of {family} is left")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_demo_continues_after_its_processes_are_ended(processes: Processes, number: signal.Signals) -> None:
    demo = processes.start("demo", "--port", "0")
    assert demo.stdout is not None
    demo.stdout.readline()
    (folder,) = processes.temporary.glob("maskwatch-*")
    client = messages_client(folder)
    wait_until(lambda: labelled(client) >= 20, 30, "labels at first")
    roles = r"maskwatch (detect|classify|camera|view)\b|valkey-server"
    victims = [pid for pid in descendants(demo.pid) if re.search(roles, command(pid))]

    for pid in victims:
        os.kill(pid, number)

    wait_until(lambda: gone(victims), 30, "the victims are gone")
    wait_until(lambda: labelled(client) >= 20, 30, "labels again, from a ledger that began anew")
    status = read_status(client.bus)
    assert status.cameras[0].ledger.balances
    assert len(victims) >= 5
    assert demo.poll() is None
    wait_until(lambda: live(client, "viewer"), 20, "the viewer is back, too")


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def messages_client(folder: Path) -> Server:
    """Return a client of a demo's embedded server."""
    from pipeline.bus.clock import Clock
    from pipeline.bus.connection import connect

    client = connect(f"unix://{folder}/redis.sock")
    return Server(f"unix://{folder}/redis.sock", client, Clock(client), cast(Any, None))


def labelled(server: Server) -> int:
    """Return how many frames of the demo were labelled, 0 while Redis is away."""
    try:
        return read_ledgers(server.bus, ["demo"])["demo"].labelled
    except redis.RedisError:
        return 0


def test_an_embedded_server_that_cannot_be_started_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr("pipeline.runtime.embedded_server.spawn", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(BlockingIOError), embedded_server():
        pass

    assert not list(tmp_path.iterdir())


def test_the_embedded_server_gives_the_memory_of_pixels_back() -> None:
    """Notes that stay between them would pin the heap of an allocator that keeps pixels there."""
    with embedded_server() as server:
        server.wait()
        client = connect(server.url)

        def resident_mb() -> float:
            return float(client.info("memory")["used_memory_rss"] / 1e6)

        before = resident_mb()
        for turn in range(2):  # glibc keeps such blocks in its heap once one of them was freed
            for number in range(300):
                client.set(f"pixels{number}", b"x" * 100_000)
                client.set(f"note{turn}.{number}", b"y" * 400)
            client.delete(*(f"pixels{number}" for number in range(300)))
        wait_until(lambda: resident_mb() < before + 10, 10, "30 MB of pixels are given back")
        client.close()
