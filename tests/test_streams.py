"""The guarantees of the streams: each frame ends once, counts once, and its ledger always balances."""

from __future__ import annotations

import threading

import pytest
import redis
from conftest import Server, wait_until

from pipeline.bus import keys, messages
from pipeline.bus.messages import DeadLetter, FaceCrops, Frame, FrameResult, decode
from pipeline.bus.pixel_reader import PixelsGone
from pipeline.bus.reader import RECLAIM_IDLE_MS, Reader
from pipeline.bus.result_consumer import ResultConsumer
from pipeline.bus.status import Ledger, read_ledgers
from pipeline.bus.writer import MAX_QUEUED_FRAMES, NameLost, Writer
from pipeline.vision.faces import Face

CAMERA = "door"


@pytest.fixture(params=["valkey", "redis_server"])
def server(request: pytest.FixtureRequest) -> Server:
    """Give Valkey and Redis in turn: the guarantees hold on both."""
    found: Server = request.getfixturevalue(request.param)
    return found


TOKEN = messages.encode(messages.LeaseHolder(host="here", pid=1, token="t"))


def frame(server: Server, seq: int, *, live: bool = True, age_s: float = 0.0, attempt: int = 0) -> Frame:
    captured_at = server.clock.now() - age_s
    frame_id = messages.frame_id(CAMERA, 7, seq)
    return Frame(
        frame_id=frame_id,
        camera=CAMERA,
        start=7,
        seq=seq,
        attempt=attempt,
        width=64,
        height=48,
        pixels_key=f"pixels:{frame_id}",
        captured_at=captured_at,
        deadline_at=captured_at + 1.0 if live else None,
    )


def writer(server: Server, token: bytes = TOKEN) -> Writer:
    return Writer(server.client, camera=CAMERA, token=token, pixels_ms=5_000)


def frames_reader(server: Server, consumer: str = "detector-1") -> Reader[Frame]:
    return Reader(server.client, server.clock, stream=messages.FRAMES, record_type=Frame, consumer=consumer)


def faces_reader(server: Server, consumer: str = "classifier-1") -> Reader[FaceCrops]:
    return Reader(server.client, server.clock, stream=messages.FACES, record_type=FaceCrops, consumer=consumer)


def read(reader: Reader, most: int = 100) -> list:
    """Read; the first read of a new stream only creates its group."""
    return reader.read(most) or reader.read(most)


def labelled(record: messages.FrameIdentity) -> FrameResult:
    faces = [Face(box=(1, 2, 3, 4), score=0.9, label="mask", confidence=0.8)]
    return FrameResult.for_frame(record, faces=faces, model="test", seconds={})


def ledger(server: Server) -> Ledger:
    found = read_ledgers(server.client, [CAMERA])[CAMERA]
    assert found.balances, found
    return found


def silence(server: Server, stream: str, consumer: str) -> None:
    """Set the idle time of a consumer's entries to more than the reclaim time."""
    ids = [row["message_id"] for row in server.client.xpending_range(stream, keys.GROUP, "-", "+", 100, consumer)]
    server.client.xclaim(stream, keys.GROUP, consumer, 0, ids, idle=RECLAIM_IDLE_MS + 1, justid=True)


def test_a_published_frame_is_labelled_and_counted_once(server: Server) -> None:
    writer(server).publish(frame(server, 0), b"jpeg")
    detector, classifier, consumer = frames_reader(server), faces_reader(server), ResultConsumer(server.client)

    (entry,) = read(detector)
    found = FaceCrops.for_frame(entry.record, boxes=[(1, 2, 3, 4)], scores=[0.9], crop_px=8, seconds={})
    detector.forward(entry, found, b"c" * 192)
    in_flight = ledger(server)
    (faces,) = read(classifier)
    crops = server.client.get(faces.record.crops_key)
    classifier.finish(faces, labelled(faces.record))

    assert in_flight == Ledger(produced=1, in_flight=1)
    assert crops == b"c" * 192
    assert ledger(server) == Ledger(produced=1, labelled=1)
    assert [(r.frame_id, r.outcome) for r in consumer.read()] == [("door:7:0", "labelled")]
    assert server.client.exists(faces.record.crops_key) == 0
    assert server.client.xlen(messages.FRAMES) == server.client.xlen(messages.FACES) == 0


def test_publishing_again_after_a_lost_answer_changes_nothing(server: Server) -> None:
    one, sent = writer(server), frame(server, 0)

    answers = [one.publish(sent, b"jpeg"), one.publish(sent, b"jpeg")]

    assert answers == ["published", "again"]
    assert ledger(server) == Ledger(produced=1, in_flight=1)


def test_sending_a_frame_again_counts_as_another_production(server: Server) -> None:
    one = writer(server)

    one.publish(frame(server, 0), b"jpeg")
    again = one.publish(frame(server, 0, attempt=1), b"jpeg")

    assert again == "published"
    assert ledger(server) == Ledger(produced=2, in_flight=2)


def test_settling_a_second_time_returns_false_and_changes_nothing(server: Server) -> None:
    writer(server).publish(frame(server, 0), b"jpeg")
    reader = frames_reader(server)
    (entry,) = read(reader)

    answers = [reader.finish(entry, labelled(entry.record)), reader.finish(entry, labelled(entry.record))]

    assert answers == [True, False]
    assert ledger(server) == Ledger(produced=1, labelled=1)
    assert server.client.xlen(messages.RESULTS) == 1


def test_a_server_that_forgot_our_scripts_is_sent_them_again(server: Server) -> None:
    publisher, reader = writer(server), frames_reader(server)
    read(reader)
    publisher.publish(frame(server, 1), b"jpeg")

    server.client.script_flush()
    (entry,) = read(reader)
    server.client.script_flush()
    reader.drop(entry, "expired")
    server.client.script_flush()

    assert read_ledgers(server.client, [CAMERA])[CAMERA] == Ledger(produced=1, dropped={"expired": 1})


def test_only_the_first_worker_to_settle_an_entry_has_an_effect(server: Server) -> None:
    writer(server).publish(frame(server, 0, live=False), b"jpeg")
    slow, fast = frames_reader(server, "slow"), frames_reader(server, "fast")
    (held,) = read(slow)
    silence(server, messages.FRAMES, "slow")

    (taken,) = fast.read(1)
    fast.finish(taken, labelled(taken.record))
    found = FaceCrops.for_frame(held.record, boxes=[(1, 2, 3, 4)], scores=[0.9], crop_px=8, seconds={})
    late = slow.forward(held, found, b"c" * 192)

    assert taken.alone
    assert late is False
    assert ledger(server) == Ledger(produced=1, labelled=1)
    assert server.client.xlen(messages.FACES) == 0
    assert server.client.exists(held.record.crops_key) == 0


def test_a_worker_that_renews_what_it_holds_keeps_it(server: Server) -> None:
    writer(server).publish(frame(server, 0, live=False), b"jpeg")
    slow, fast = frames_reader(server, "slow"), frames_reader(server, "fast")
    entries = read(slow)
    silence(server, messages.FRAMES, "slow")

    slow.renew(entries)

    assert fast.read(1) == []


def test_an_entry_that_ended_three_processes_alone_is_dead(server: Server) -> None:
    writer(server).publish(frame(server, 0, live=False), b"jpeg")
    consumer = ResultConsumer(server.client)
    read(frames_reader(server, "batch"))
    silence(server, messages.FRAMES, "batch")
    for death in range(3):
        (entry,) = frames_reader(server, f"alone-{death}").read(1)
        assert entry.alone
        silence(server, messages.FRAMES, f"alone-{death}")

    left = frames_reader(server, "last").read(1)

    assert left == []
    assert ledger(server) == Ledger(produced=1, dropped={"dead": 1})
    (result,) = consumer.read()
    assert (result.outcome, result.reason) == ("dead", "dead")
    assert "alone" in str(result.error)
    assert server.client.hlen(keys.alone_key(messages.FRAMES)) == 0


def test_a_live_frame_past_its_deadline_is_dropped_as_expired(server: Server) -> None:
    writer(server).publish(frame(server, 0, age_s=1.5), b"jpeg")

    entries = read(frames_reader(server))

    assert entries == []
    assert ledger(server) == Ledger(produced=1, dropped={"expired": 1})


def test_a_live_frame_with_two_newer_ones_in_its_stream_is_stale(server: Server) -> None:
    one = writer(server)
    for seq in range(4):
        one.publish(frame(server, seq), b"jpeg")

    entries = read(frames_reader(server))

    assert [entry.record.seq for entry in entries] == [2, 3]
    assert ledger(server) == Ledger(produced=4, dropped={"stale": 2}, in_flight=2)


def test_complete_mode_drops_nothing_however_late_or_overtaken(server: Server) -> None:
    one = writer(server)
    for seq in range(10):
        one.publish(frame(server, seq, live=False, age_s=100), b"jpeg")

    entries = read(frames_reader(server))

    assert [entry.record.seq for entry in entries] == list(range(10))


def test_frames_of_another_camera_make_no_frame_stale(server: Server) -> None:
    writer(server).publish(frame(server, 0), b"jpeg")
    other = Writer(server.client, camera="gate", token=TOKEN, pixels_ms=5_000)
    now = server.clock.now()
    for seq in range(5):
        gate_id = messages.frame_id("gate", 7, seq)
        gate = Frame(
            frame_id=gate_id,
            camera="gate",
            start=7,
            seq=seq,
            width=64,
            height=48,
            pixels_key=f"pixels:{gate_id}",
            captured_at=now,
            deadline_at=None,
        )
        other.publish(gate, b"jpeg")

    entries = read(frames_reader(server))

    assert [entry.record.frame_id for entry in entries if entry.record.camera == CAMERA] == ["door:7:0"]


def test_a_camera_at_its_limit_drops_at_the_source_with_a_result(server: Server) -> None:
    one, consumer = writer(server), ResultConsumer(server.client)

    answers = [one.publish(frame(server, seq), b"jpeg") for seq in range(MAX_QUEUED_FRAMES + 3)]

    assert answers == ["published"] * MAX_QUEUED_FRAMES + ["source_full"] * 3
    assert ledger(server) == Ledger(
        produced=MAX_QUEUED_FRAMES + 3, dropped={"source_full": 3}, in_flight=MAX_QUEUED_FRAMES
    )
    assert [result.reason for result in consumer.read()] == ["source_full"] * 3


def test_full_memory_drops_at_the_source_and_settling_still_works(server: Server) -> None:
    one, reader = writer(server), frames_reader(server)
    one.publish(frame(server, 0), b"jpeg")
    (entry,) = read(reader)
    server.client.config_set("maxmemory", "1mb")

    answer = one.publish(frame(server, 1), b"j" * 100_000)
    settled = reader.finish(entry, labelled(entry.record))

    assert answer == "memory"
    assert settled
    assert ledger(server) == Ledger(produced=2, labelled=1, dropped={"memory": 1})


def test_a_frame_whose_pixels_are_gone_is_dropped_as_such(server: Server) -> None:
    writer(server).publish(frame(server, 0), b"jpeg")
    reader = frames_reader(server)
    (entry,) = read(reader)

    with reader.guard(entry):
        raise PixelsGone(entry.record.pixels_key)

    assert ledger(server) == Ledger(produced=1, dropped={"pixels_gone": 1})


def test_an_exception_dead_letters_its_entry_and_the_worker_continues(server: Server) -> None:
    writer(server).publish(frame(server, 0), b"jpeg")
    reader, consumer = frames_reader(server), ResultConsumer(server.client)
    (entry,) = read(reader)

    with reader.guard(entry):
        raise ValueError("a picture nobody expected")

    assert ledger(server) == Ledger(produced=1, dropped={"dead": 1})
    assert [result.error for result in consumer.read()] == ["ValueError: a picture nobody expected"]
    ((_, fields),) = server.client.xrange(messages.DEAD)
    letter = decode(DeadLetter, fields[b"record"])
    assert (letter.stream, letter.process, letter.fields) == (messages.FRAMES, "detector-1", entry.fields)


def test_a_lost_redis_is_no_fault_of_the_entry(server: Server) -> None:
    writer(server).publish(frame(server, 0), b"jpeg")
    reader = frames_reader(server)
    (entry,) = read(reader)

    with pytest.raises(redis.ConnectionError), reader.guard(entry):
        raise redis.ConnectionError("gone")

    assert ledger(server) == Ledger(produced=1, in_flight=1)


@pytest.mark.parametrize(
    "fields",
    [
        {"foo": "bar"},
        {"record": b"\xc1"},
        {"camera": CAMERA, "record": b"junk"},
        {"camera": b"\xff\xfe", "record": b"\x80"},
        {"camera": CAMERA, "record": b"\x91" * 5_000},
    ],
)
def test_an_invalid_message_is_dead_lettered_and_counts_in_no_ledger(server: Server, fields: dict) -> None:
    reader = frames_reader(server)
    read(reader)
    server.client.xadd(messages.FRAMES, fields)
    writer(server).publish(frame(server, 0), b"jpeg")

    entries = read(reader)

    assert [entry.record.seq for entry in entries] == [0]
    assert server.client.xlen(messages.DEAD) == 1
    assert ledger(server) == Ledger(produced=1, in_flight=1)


def test_a_published_record_of_another_version_is_dead_and_counted(server: Server) -> None:
    sent = frame(server, 0)
    packed = messages.encode(sent).replace(b"schema\x01", b"schema\x02")
    writer(server).publish(sent, b"jpeg")
    ((id_, fields),) = server.client.xrange(messages.FRAMES)
    server.client.xdel(messages.FRAMES, id_)
    server.client.xadd(messages.FRAMES, {**fields, b"record": packed})

    entries = read(frames_reader(server))

    assert entries == []
    assert ledger(server) == Ledger(produced=1, dropped={"dead": 1})


def test_a_key_of_the_wrong_type_fails_before_anything_is_changed(server: Server) -> None:
    writer(server).publish(frame(server, 0), b"jpeg")
    reader = frames_reader(server)
    (entry,) = read(reader)
    server.client.set(messages.RESULTS, "not a stream")

    with pytest.raises(redis.ResponseError, match="results is a string"):
        reader.finish(entry, labelled(entry.record))

    assert ledger(server) == Ledger(produced=1, in_flight=1)
    assert server.client.xpending(messages.FRAMES, keys.GROUP)["pending"] == 1


def test_publishing_under_a_name_that_another_holds_names_the_holder(server: Server) -> None:
    writer(server).publish(frame(server, 0), b"jpeg")
    other = messages.encode(messages.LeaseHolder(host="there", pid=42, token="o"))

    with pytest.raises(NameLost, match="process 42 on there"):
        server.client.set(keys.lease_key(CAMERA), other)
        writer(server).publish(frame(server, 1), b"jpeg")

    assert ledger(server) == Ledger(produced=1, in_flight=1)


def test_readers_create_their_group_again_after_redis_lost_its_memory(server: Server) -> None:
    reader = frames_reader(server)
    read(reader)
    server.client.flushall()
    writer(server).publish(frame(server, 0), b"jpeg")

    entries = read(reader)

    assert [entry.record.seq for entry in entries] == [0]


def test_a_retired_consumer_is_deleted_only_when_it_holds_nothing(server: Server) -> None:
    writer(server).publish(frame(server, 0), b"jpeg")
    busy, idle = frames_reader(server, "busy"), frames_reader(server, "idle")
    read(busy)
    read(idle)

    busy.leave_group()
    idle.leave_group()

    names = [row["name"] for row in server.client.xinfo_consumers(messages.FRAMES, keys.GROUP)]
    assert names == [b"busy"]


def test_consumers_that_died_holding_nothing_are_deleted(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    writer(server).publish(frame(server, 0, live=False), b"jpeg")
    living, holding, empty = (frames_reader(server, name) for name in ("living", "holding", "empty"))
    read(holding)
    read(empty)
    read(living)
    monkeypatch.setattr("pipeline.bus.reader.IDLE_CONSUMER_MS", -1)

    living.remove_idle_consumers()

    names = {row["name"] for row in server.client.xinfo_consumers(messages.FRAMES, keys.GROUP)}
    assert names == {b"holding"}


def test_the_ledger_balances_at_every_moment_while_workers_race(server: Server) -> None:
    one = writer(server)
    readers = [frames_reader(server, f"w{number}") for number in range(3)]
    for reader in readers:
        read(reader)
    done = threading.Event()

    def work(reader: Reader[Frame]) -> None:
        while not done.is_set():
            for entry in reader.read(2):
                reader.finish(entry, labelled(entry.record))

    threads = [threading.Thread(target=work, args=(reader,)) for reader in readers]
    for thread in threads:
        thread.start()
    moments = []
    for seq in range(200):
        one.publish(frame(server, seq), b"jpeg")
        moments.append(ledger(server))
    wait_until(lambda: ledger(server).in_flight == 0, 30, "everything is settled")
    done.set()
    for thread in threads:
        thread.join()

    assert ledger(server).produced == 200
    assert all(moment.balances for moment in moments)
