"""The guarantees of the queue: each frame ends once, counts once, and its ledger always balances."""

from __future__ import annotations

import threading

import msgspec
import pytest
import redis
from conftest import Server, wait_until

from pipeline.bus import keys, messages
from pipeline.bus.clock import Clock
from pipeline.bus.dedicated_connection import DedicatedConnection
from pipeline.bus.group_consumer import RECLAIM_IDLE_MS, GroupConsumer
from pipeline.bus.leases import NameLost
from pipeline.bus.messages import DeadLetter, FaceCrops, Frame, FrameResult, KnownFaces, decode
from pipeline.bus.pixel_reader import PixelsGone
from pipeline.bus.reader import Reader
from pipeline.bus.result_consumer import MAX_RESULTS, ResultConsumer
from pipeline.bus.shards import Bus, Shard, UnusableRedis
from pipeline.bus.status import Ledger, read_ledgers
from pipeline.bus.writer import MAX_STANDING_FRAMES, NEED_HOLDS_S, Writer
from pipeline.vision.faces import Face

CAMERA = "door"


@pytest.fixture(params=["valkey", "redis_server"])
def server(request: pytest.FixtureRequest) -> Server:
    """Give Valkey and Redis in turn: the guarantees hold on both."""
    found: Server = request.getfixturevalue(request.param)
    return found


TOKEN = messages.encode(messages.LeaseHolder(host="here", pid=1, token="t"))


def frame(
    server: Server, seq: int, *, live: bool = True, age_s: float = 0.0, attempt: int = 0, camera: str = CAMERA
) -> Frame:
    captured_at = server.clock.now() - age_s
    frame_id = messages.frame_id(camera, 7, seq)
    return Frame(
        frame_id=frame_id,
        camera=camera,
        start=7,
        seq=seq,
        attempt=attempt,
        width=64,
        height=48,
        pixels_key=f"{{s0}}:pixels:{frame_id}",
        captured_at=captured_at,
        deadline_at=captured_at + 1.0 if live else None,
    )


def writer(server: Server, camera: str = CAMERA) -> Writer:
    return Writer(server.shard, camera=camera, token=TOKEN, pixels_ms=5_000)


def frames_reader(server: Server, consumer: str = "detector-1") -> Reader[Frame]:
    return Reader(server.bus, stage="frames", record_type=Frame, consumer=consumer)


def faces_reader(server: Server, consumer: str = "classifier-1") -> Reader[FaceCrops]:
    return Reader(server.bus, stage="faces", record_type=FaceCrops, consumer=consumer)


def read(reader: Reader, most: int = 100) -> list:
    """Read; the first read of a new stream only creates its group."""
    return reader.read(most) or reader.read(most)


def labelled(record: messages.FrameIdentity) -> FrameResult:
    faces = [Face(box=(1, 2, 3, 4), score=0.9, label="mask", confidence=0.8)]
    return FrameResult.for_frame(record, faces=faces, model="test", seconds={})


def add_results(server: Server, *seqs: int) -> None:
    """Add results of frames to their stream, as workers do."""
    for seq in seqs:
        record = messages.encode(labelled(frame(server, seq)))
        server.client.xadd("{s0}:results", {"camera": CAMERA, "record": record})


def ledger(server: Server) -> Ledger:
    found = read_ledgers(server.bus, [CAMERA])[CAMERA]
    assert found.balances, found
    return found


def silence(server: Server, stream: str, consumer: str) -> None:
    """Set the idle time of a consumer's entries to more than the reclaim time."""
    ids = [row["message_id"] for row in server.client.xpending_range(stream, keys.GROUP, "-", "+", 100, consumer)]
    server.client.xclaim(stream, keys.GROUP, consumer, 0, ids, idle=RECLAIM_IDLE_MS + 1, justid=True)


def test_a_published_frame_is_labelled_and_counted_once(server: Server) -> None:
    writer(server).publish(frame(server, 0), b"jpeg")
    detector, classifier, consumer = frames_reader(server), faces_reader(server), ResultConsumer(server.bus.shards)

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
    assert server.client.xlen("{s0}:frames") == server.client.xlen("{s0}:faces") == 0


def one_face(record: Frame) -> FaceCrops:
    return FaceCrops.for_frame(record, boxes=[(1, 2, 3, 4)], scores=[0.9], crop_px=8, seconds={})


def test_who_needs_a_jpeg_is_not_known_any_more_a_second_after_redis_said_so(server: Server) -> None:
    now = [100.0]
    shard = Shard(server.client, 0, Clock(server.client, monotonic=lambda: now[0]))
    camera = Writer(shard, camera=CAMERA, token=TOKEN, pixels_ms=keys.LIVE_PIXELS_MS)
    camera.publish(frame(server, 0), b"jpeg")

    just_now = camera.needs_jpeg
    now[0] += NEED_HOLDS_S + 0.1

    assert (just_now, camera.needs_jpeg) == (False, True)


def test_known_faces_come_with_the_cameras_next_frame_and_expire(server: Server) -> None:
    known = KnownFaces(faces=[])
    detector, classifier = frames_reader(server), faces_reader(server)
    writer(server).publish(frame(server, 0), b"jpeg")
    (first,) = read(detector)
    detector.forward(first, one_face(first.record), b"c" * 192)
    (faces,) = read(classifier)

    classifier.finish(faces, labelled(faces.record), known)
    writer(server).publish(frame(server, 1), b"jpeg")
    writer(server, "hall").publish(frame(server, 0, camera="hall"), b"jpeg")
    entries = read(detector)
    ttl_ms = server.client.pttl("{s0}:known:door")
    server.client.delete("{s0}:known:door")
    server.client.lpush("{s0}:known:door", "of another type")
    writer(server).publish(frame(server, 2, live=False), b"jpeg")
    (other,) = read(detector)

    assert not first.known
    assert not faces.known
    assert {entry.record.camera: entry.known for entry in entries} == {"door": messages.encode(known), "hall": b""}
    assert 0 < ttl_ms <= keys.LIVE_PIXELS_MS
    assert (other.record.seq, detector.known_faces(other)) == (2, b"")


def test_known_faces_of_a_frame_that_was_waited_for_are_asked_for(server: Server) -> None:
    known = messages.encode(KnownFaces(faces=[]))
    reader = frames_reader(server)
    assert read(reader) == []
    server.client.set("{s0}:known:door", known)
    writer(server).publish(frame(server, 0, live=False), b"jpeg")

    (entry,) = reader.read(1)

    assert (entry.known, reader.known_faces(entry)) == (None, known)


def test_known_faces_of_a_frame_that_another_process_has_settled_are_not_kept(server: Server) -> None:
    writer(server).publish(frame(server, 0), b"jpeg")
    reader = frames_reader(server)
    (entry,) = read(reader)

    reader.finish(entry, labelled(entry.record))
    reader.finish(entry, labelled(entry.record), KnownFaces(faces=[]))

    assert server.client.exists("{s0}:known:door") == 0


def test_a_detector_learns_with_each_frame_whether_classifiers_need_crops(server: Server) -> None:
    reader, needs = frames_reader(server), []

    for seq in range(3):
        writer(server).publish(frame(server, seq, live=False), b"jpeg")
        (entry,) = read(reader)
        needs.append(reader.needs_crops(entry))
        found = FaceCrops.for_frame(entry.record, boxes=[(1, 2, 3, 4)], scores=[0.9], crop_px=8, seconds={})
        if seq == 1:
            server.client.set("{s0}:remote:faces", 1)
        assert reader.forward(entry, found, b"c" * 192)
        assert not reader.forward(entry, found, b"c" * 192)
    needs.append(reader.needs_crops(entry))

    assert needs == [True, False, True, True]


def test_a_pipelined_reader_settles_with_its_next_call_but_the_first_time_at_once(server: Server) -> None:
    for seq in range(4):
        writer(server).publish(frame(server, seq, live=False), b"jpeg")
    reader = Reader(server.bus, stage="frames", record_type=Frame, consumer="detector-1", pipelined=True)
    first, second, third = read(reader, 3)

    server.client.script_flush()
    reader.drop(first, "pixels_gone")
    at_first = ledger(server)
    reader.drop(second, "pixels_gone")
    frames_reader(server).drop(third, "pixels_gone")
    reader.drop(third, "pixels_gone")
    before = ledger(server)
    server.client.script_flush()
    (fourth,) = reader.read(1)
    after = ledger(server)
    reader.drop(fourth, "pixels_gone")
    reader.leave_group()

    assert at_first == Ledger(produced=4, dropped={"pixels_gone": 1}, in_flight=3)
    assert before == Ledger(produced=4, dropped={"pixels_gone": 2}, in_flight=2)
    assert after == Ledger(produced=4, dropped={"pixels_gone": 3}, in_flight=1)
    assert ledger(server) == Ledger(produced=4, dropped={"pixels_gone": 4})
    assert reader.outcomes == {"dropped:pixels_gone": 3}  # the third one was settled by another process


def test_publishing_again_after_a_lost_answer_changes_nothing(server: Server) -> None:
    one, sent = writer(server), frame(server, 0)

    answers = [one.publish(sent, b"jpeg"), one.publish(sent, b"jpeg")]

    assert answers == ["published", "again"]
    assert ledger(server) == Ledger(produced=1, in_flight=1)


def test_sending_a_frame_again_counts_as_another_production(server: Server) -> None:
    one, reader = writer(server), frames_reader(server)

    one.publish(frame(server, 0, live=False), b"jpeg")
    reader.drop(read(reader)[0], "pixels_gone")
    again = one.publish(frame(server, 0, live=False, attempt=1), b"jpeg")

    assert again == "published"
    assert ledger(server) == Ledger(produced=2, dropped={"pixels_gone": 1}, in_flight=1)


def test_settling_a_second_time_returns_false_and_changes_nothing(server: Server) -> None:
    writer(server).publish(frame(server, 0), b"jpeg")
    reader = frames_reader(server)
    (entry,) = read(reader)

    answers = [reader.finish(entry, labelled(entry.record)), reader.finish(entry, labelled(entry.record))]

    assert answers == [True, False]
    assert ledger(server) == Ledger(produced=1, labelled=1)
    assert server.client.xlen("{s0}:results") == 1


def test_a_server_that_forgot_our_scripts_is_sent_them_again(server: Server) -> None:
    publisher, reader = writer(server), frames_reader(server)
    read(reader)
    publisher.publish(frame(server, 1), b"jpeg")

    server.client.script_flush()
    (entry,) = read(reader)
    server.client.script_flush()
    reader.drop(entry, "expired")
    server.client.script_flush()

    assert read_ledgers(server.bus, [CAMERA])[CAMERA] == Ledger(produced=1, dropped={"expired": 1})


def test_only_the_first_worker_to_settle_an_entry_has_an_effect(server: Server) -> None:
    writer(server).publish(frame(server, 0, live=False), b"jpeg")
    slow, fast = frames_reader(server, "slow"), frames_reader(server, "fast")
    (held,) = read(slow)
    silence(server, "{s0}:frames:complete", "slow")

    (taken,) = fast.read(1)
    fast.finish(taken, labelled(taken.record))
    found = FaceCrops.for_frame(held.record, boxes=[(1, 2, 3, 4)], scores=[0.9], crop_px=8, seconds={})
    late = slow.forward(held, found, b"c" * 192)

    assert taken.alone
    assert late is False
    assert ledger(server) == Ledger(produced=1, labelled=1)
    assert server.client.xlen("{s0}:faces") == 0
    assert server.client.exists(held.record.crops_key) == 0


def test_a_worker_that_renews_what_it_holds_keeps_it(server: Server) -> None:
    writer(server).publish(frame(server, 0, live=False), b"jpeg")
    slow, fast = frames_reader(server, "slow"), frames_reader(server, "fast")
    entries = read(slow)
    silence(server, "{s0}:frames:complete", "slow")

    slow.renew(entries)

    assert fast.read(1) == []


def test_an_entry_that_ended_three_processes_alone_is_dead(server: Server) -> None:
    writer(server).publish(frame(server, 0, live=False), b"jpeg")
    consumer = ResultConsumer(server.bus.shards)
    read(frames_reader(server, "batch"))
    silence(server, "{s0}:frames:complete", "batch")
    for death in range(3):
        (entry,) = frames_reader(server, f"alone-{death}").read(1)
        assert entry.alone
        silence(server, "{s0}:frames:complete", f"alone-{death}")

    left = frames_reader(server, "last").read(1)

    assert left == []
    assert ledger(server) == Ledger(produced=1, dropped={"dead": 1})
    (result,) = consumer.read()
    assert (result.outcome, result.reason) == ("dead", "dead")
    assert "alone" in str(result.error)
    assert server.client.hlen("{s0}:frames:alone") == 0


def test_a_live_frame_past_its_deadline_is_dropped_as_expired(server: Server) -> None:
    writer(server).publish(frame(server, 0, age_s=1.5), b"jpeg")

    entries = read(frames_reader(server))

    assert entries == []
    assert ledger(server) == Ledger(produced=1, dropped={"expired": 1})


def test_a_newer_frame_takes_the_place_of_a_waiting_one(server: Server) -> None:
    one, consumer = writer(server), ResultConsumer(server.bus.shards)
    for seq in range(4):
        one.publish(frame(server, seq), b"jpeg")

    standing = ledger(server)
    entries = read(frames_reader(server))

    assert standing == Ledger(produced=4, dropped={"stale": 3}, in_flight=1)
    assert [entry.record.seq for entry in entries] == [3]
    assert [(result.seq, result.reason) for result in consumer.read()] == [(0, "stale"), (1, "stale"), (2, "stale")]
    assert list(server.client.scan_iter("*pixels*")) == [b"{s0}:pixels:door:7:3"]


def test_a_run_of_a_file_is_at_most_half_of_the_frames_that_wait(server: Server) -> None:
    reader, other = frames_reader(server), frames_reader(server, "detector-2")
    for seq in range(6):
        writer(server).publish(frame(server, seq, live=False), b"jpeg")

    taken = [one.read(1, run=4) for one in (reader, other, reader, other)]

    assert [[entry.record.seq for entry in entries] for entries in taken] == [[0, 1, 2], [3, 4], [5], []]
    assert taken[0][2].data == b"jpeg"


def test_a_live_frame_is_taken_alone_before_a_run(server: Server) -> None:
    reader = frames_reader(server)
    for seq in range(6):
        writer(server, "file-1").publish(frame(server, seq, live=False, camera="file-1"), b"jpeg")
    writer(server).publish(frame(server, 0), b"jpeg")

    taken = [reader.read(1, run=8) for _ in range(2)]

    assert [[entry.record.camera for entry in entries] for entries in taken] == [[CAMERA], ["file-1"] * 3]


def test_a_frame_that_a_worker_holds_is_not_replaced(server: Server) -> None:
    one, reader = writer(server), frames_reader(server)
    one.publish(frame(server, 0), b"jpeg")
    (held,) = read(reader)

    one.publish(frame(server, 1), b"jpeg")
    one.publish(frame(server, 2), b"jpeg")

    assert ledger(server) == Ledger(produced=3, dropped={"stale": 1}, in_flight=2)
    assert reader.finish(held, labelled(held.record))
    assert [entry.record.seq for entry in read(reader)] == [2]


def test_faces_that_wait_are_replaced_by_newer_ones_in_whatever_order_they_come(server: Server) -> None:
    one = writer(server)
    early, late = frames_reader(server, "early"), frames_reader(server, "late")
    held = []
    for seq, reader in enumerate((early, late)):
        one.publish(frame(server, seq), b"jpeg")
        held += read(reader)

    for reader, entry in ((late, held[1]), (early, held[0])):
        found = FaceCrops.for_frame(entry.record, boxes=[(1, 2, 3, 4)], scores=[0.9], crop_px=8, seconds={})
        assert reader.forward(entry, found, b"c" * 192)

    assert ledger(server) == Ledger(produced=2, dropped={"stale": 1}, in_flight=1)
    assert [entry.record.seq for entry in read(faces_reader(server))] == [1]
    assert list(server.client.scan_iter("*crops*")) == [b"{s0}:crops:door:7:1"]


def test_without_any_worker_a_camera_holds_one_frame_at_each_stage(server: Server) -> None:
    one, detector = writer(server), frames_reader(server)
    for seq in range(100):
        one.publish(frame(server, seq), b"jpeg")
        for entry in read(detector):
            found = FaceCrops.for_frame(entry.record, boxes=[(1, 2, 3, 4)], scores=[0.9], crop_px=8, seconds={})
            detector.forward(entry, found, b"c" * 192)
    one.publish(frame(server, 100), b"jpeg")

    assert ledger(server) == Ledger(produced=101, dropped={"stale": 99}, in_flight=2)
    assert server.client.xlen("{s0}:frames") == server.client.xlen("{s0}:faces") == 1
    assert len(list(server.client.scan_iter("*pixels*"))) == 2


def test_cameras_are_served_by_who_was_served_longest_ago(server: Server) -> None:
    reader = frames_reader(server)
    served = []
    for seq in range(6):
        for camera, rate in (("busy", 3), ("slow", 1), ("usual", 2)):
            for part in range(rate):
                writer(server, camera).publish(frame(server, 10 * seq + part, camera=camera), b"jpeg")
        for _ in range(2):
            (entry,) = read(reader, 1)
            served.append(entry.record.camera)
            reader.drop(entry, "expired")

    assert {camera: served.count(camera) for camera in set(served)} == {"busy": 4, "slow": 4, "usual": 4}


def test_live_frames_go_before_those_of_files_but_every_tenth_time(server: Server) -> None:
    reader = frames_reader(server)
    file, live = writer(server, "file-0000000a"), writer(server)
    for seq in range(20):
        file.publish(frame(server, seq, live=False, camera="file-0000000a"), b"jpeg")
    taken = []
    for seq in range(40):
        live.publish(frame(server, seq), b"jpeg")
        (entry,) = reader.read(1) or reader.read(1)
        taken.append(entry.record.camera)
        reader.drop(entry, "expired")

    assert taken.count("file-0000000a") == 4


def test_a_frame_of_a_file_whose_entry_has_the_id_of_a_ticket_is_read_too(server: Server) -> None:
    reader = frames_reader(server)
    read(reader)
    writer(server).publish(frame(server, 0), b"jpeg")
    name = "file-0000000a"
    writer(server, name).publish(frame(server, 0, live=False, camera=name), b"jpeg")
    ((ticket, _),) = server.client.xrange("{s0}:frames")
    ((_, fields),) = server.client.xrange("{s0}:frames:complete")
    server.client.delete("{s0}:frames:complete")
    server.client.xgroup_create("{s0}:frames:complete", keys.GROUP, id="0", mkstream=True)
    server.client.xadd("{s0}:frames:complete", fields, id=ticket)

    cameras = [entry.record.camera for _ in range(2) for entry in reader.read(1)]

    assert sorted(cameras) == [CAMERA, name]


def test_a_ticket_whose_worker_died_before_taking_gives_the_newest_frame(server: Server) -> None:
    one, reader = writer(server), frames_reader(server)
    read(reader)
    one.publish(frame(server, 0), b"jpeg")
    server.client.xreadgroup(keys.GROUP, "dead", {"{s0}:frames": ">"})
    one.publish(frame(server, 1), b"jpeg")
    silence(server, "{s0}:frames", "dead")

    (entry,) = reader.read(1)

    assert (entry.alone, entry.record.seq) == (True, 1)
    assert ledger(server) == Ledger(produced=2, dropped={"stale": 1}, in_flight=1)


def test_who_takes_over_a_ticket_gets_its_frame(server: Server) -> None:
    one, reader = writer(server), frames_reader(server)
    one.publish(frame(server, 0), b"jpeg")
    read(frames_reader(server, "dead"))
    one.publish(frame(server, 1), b"jpeg")
    silence(server, "{s0}:frames", "dead")

    taken = [entry for _ in range(2) for entry in reader.read(1)]

    assert [(entry.alone, entry.record.seq) for entry in taken] == [(True, 0), (False, 1)]


def test_an_entry_is_reclaimed_behind_many_of_a_living_worker(server: Server) -> None:
    file, living, late = writer(server), frames_reader(server, "living"), frames_reader(server, "late")
    for seq in range(40):
        file.publish(frame(server, seq, live=False), b"jpeg")
    read(living, 39)
    assert len(read(frames_reader(server, "dead"), 1)) == 1
    silence(server, "{s0}:frames:complete", "dead")

    (entry,) = late.read(1)

    assert (entry.alone, entry.record.seq) == (True, 39)


def test_a_ticket_without_a_waiting_frame_is_removed(server: Server) -> None:
    reader = frames_reader(server)
    read(reader)
    server.client.xadd("{s0}:frames", {"ticket": 1})

    assert read(reader) == []
    assert server.client.xlen("{s0}:frames") == 0


def test_a_lost_ticket_is_replaced_when_the_next_frame_comes(server: Server) -> None:
    one, reader = writer(server), frames_reader(server)
    read(reader)
    one.publish(frame(server, 0), b"jpeg")
    server.client.xtrim("{s0}:frames", maxlen=0)

    one.publish(frame(server, 1), b"jpeg")

    assert [entry.record.seq for entry in read(reader)] == [1]


def test_frames_that_were_taken_from_a_lost_stream_get_new_tickets(server: Server) -> None:
    one, reader = writer(server), frames_reader(server)
    one.publish(frame(server, 0), b"jpeg")
    read(frames_reader(server, "dead"))
    server.client.delete("{s0}:frames")

    assert [entry.record.seq for entry in read(reader)] == [0]


def test_entries_of_dead_workers_are_reclaimed_after_redis_clock_was_set_back(server: Server) -> None:
    writer(server).publish(frame(server, 0, live=False), b"jpeg")
    read(frames_reader(server, "dead"))
    stream, in_an_hour = "{s0}:frames:complete", int(server.clock.now()) + 3600
    (row,) = server.client.xpending_range(stream, keys.GROUP, "-", "+", 1)
    server.client.xclaim(stream, keys.GROUP, "dead", 0, [row["message_id"]], time=1000 * in_an_hour, justid=True)
    server.client.hset("{s0}:frames:turns", "@seen", in_an_hour)  # as if an hour had passed before it was set back

    reader = frames_reader(server, "living")
    (entry,) = wait_until(lambda: reader.read(1), 10, "the entry is reclaimed")

    assert entry.alone


def test_the_ticket_of_a_lost_answer_delays_a_camera_by_one_frame_only(server: Server) -> None:
    one, reader = writer(server), frames_reader(server)
    read(reader)
    one.publish(frame(server, 0), b"jpeg")
    server.client.xreadgroup(keys.GROUP, "cut", {"{s0}:frames": ">"})  # whose answer is lost

    one.publish(frame(server, 1), b"jpeg")

    assert [entry.record.seq for entry in read(reader)] == [1]


def test_a_worker_takes_one_frame_and_leaves_the_others_to_others(server: Server) -> None:
    for number in range(25):
        name = f"camera-{number}"
        writer(server, name).publish(frame(server, 0, camera=name, age_s=0.8), b"jpeg")
        writer(server, name).publish(frame(server, 1, camera=name, age_s=1.5 if number % 2 else 0.0), b"jpeg")
    one, other = frames_reader(server, "one"), frames_reader(server, "other")

    held = [read(one, 1), read(other, 1)]

    assert [len(entries) for entries in held] == [1, 1]
    assert server.client.xpending("{s0}:frames", keys.GROUP)["pending"] == 2


def test_no_key_of_a_file_stays_for_ever(server: Server) -> None:
    name = "file-0000000a"
    detector, classifier = frames_reader(server), faces_reader(server)
    for seq in range(3):
        writer(server, name).publish(frame(server, seq, live=False, camera=name), b"jpeg")
    entries = read(detector)
    found = FaceCrops.for_frame(entries[0].record, boxes=[(1, 2, 3, 4)], scores=[0.9], crop_px=8, seconds={})
    detector.forward(entries[0], found, b"c" * 192)
    (faces,) = read(classifier)
    classifier.finish(faces, labelled(faces.record))
    detector.dead_letter(entries[1], "a picture nobody expected")

    own = list(server.client.scan_iter(f"*{name}*"))

    assert len(own) >= 6
    assert [key for key in own if server.client.pttl(key) < 0] == []


def test_results_are_read_after_redis_lost_its_memory_and_its_clock_was_set_back(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.bus.result_consumer.CHECK_INTERVAL_S", 0.0)
    in_an_hour = int(1000 * (server.clock.now() + 3600))
    server.client.xadd("{s0}:results", {"camera": CAMERA, "record": b"junk"}, id=f"{in_an_hour}-0")
    consumer = ResultConsumer(server.bus.shards)
    server.client.flushall()
    writer(server).publish(frame(server, 0), b"jpeg")
    reader = frames_reader(server)
    reader.finish(read(reader)[0], labelled(frame(server, 0)))

    results = wait_until(lambda: consumer.read(1), 5, "a result is read")

    assert [result.seq for result in results] == [0]


def test_a_reader_that_pauses_between_answers_does_not_fall_behind(server: Server) -> None:
    consumer, found = ResultConsumer(server.bus.shards, interval_s=3_600), list[FrameResult]()
    add_results(server, *range(2 * MAX_RESULTS + 1))

    threading.Thread(target=lambda: [found.extend(consumer.read()) for _ in range(3)], daemon=True).start()

    wait_until(lambda: len(found) == 2 * MAX_RESULTS + 1, 20, "all are read")


def test_a_reader_that_pauses_goes_on_when_its_pause_is_shortened(server: Server) -> None:
    consumer, found = ResultConsumer(server.bus.shards, interval_s=3_600), list[FrameResult]()
    add_results(server, 0)
    consumer.read()
    add_results(server, 1)
    threading.Thread(target=lambda: found.extend(consumer.read()), daemon=True).start()

    consumer.set_interval(0.0)

    wait_until(lambda: [result.seq for result in found] == [1], 20, "the pause has ended")


def test_results_are_bounded_although_redis_clock_was_set_back(server: Server) -> None:
    in_an_hour = int(1000 * (server.clock.now() + 3600))
    add = "for number = 1, 110000 do redis.call('XADD', KEYS[1], ARGV[1] .. '-' .. number, 'record', '') end"
    server.client.eval(add, 1, "{s0}:results", in_an_hour)
    writer(server).publish(frame(server, 0), b"jpeg")
    reader = frames_reader(server)

    reader.finish(read(reader)[0], labelled(frame(server, 0)))

    assert server.client.xlen("{s0}:results") <= 100_100


def test_two_shards_hold_their_own_cameras_and_one_worker_reads_both(server: Server) -> None:
    bus = Bus(server.client, 2)
    cameras = [f"camera-{number}" for number in range(8)]
    for name in cameras:
        shard = bus.shard_of(name)
        sent = frame(server, 0, camera=name)
        sent = msgspec.structs.replace(sent, pixels_key=shard.key("pixels", sent.frame_id))
        Writer(shard, camera=name, token=TOKEN, pixels_ms=5_000).publish(sent, b"jpeg")
    reader = Reader(bus, stage="frames", record_type=Frame, consumer="detector-1")
    consumer = ResultConsumer(bus.shards)

    taken = [entry for _ in range(24) for entry in reader.read(1) if reader.drop(entry, "pixels_gone")]

    assert sorted(entry.record.camera for entry in taken) == cameras
    assert {entry.at.shard.tag for entry in taken} == {"{s0}", "{s2}"}
    assert sorted(result.camera for result in consumer.read()) == cameras
    assert all(found.balances for found in read_ledgers(bus, cameras).values())


def test_another_number_of_shards_than_redis_holds_is_refused(server: Server) -> None:
    server.client.set(keys.SHARDS, 2)

    assert len(Bus(server.client).shards) == 2
    with pytest.raises(UnusableRedis, match="holds 2 shards, --shards says 3"):
        _ = Bus(server.client, 3).shards


def test_a_process_that_started_first_learns_the_number_of_shards(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.bus.shards.ASK_INTERVAL_S", 0.0)
    bus = server.bus
    before = len(bus.shards)

    server.client.set(keys.SHARDS, 3)

    assert (before, len(bus.shards)) == (1, 3)


def test_a_redis_that_evicts_keys_is_refused(server: Server) -> None:
    server.client.config_set("maxmemory-policy", "allkeys-lru")

    with pytest.raises(UnusableRedis, match="set maxmemory-policy noeviction"):
        _ = server.bus.shards


def test_complete_mode_drops_nothing_however_late_or_overtaken(server: Server) -> None:
    one = writer(server)
    for seq in range(10):
        one.publish(frame(server, seq, live=False, age_s=100), b"jpeg")

    entries = read(frames_reader(server))

    assert [entry.record.seq for entry in entries] == list(range(10))


def test_frames_of_another_camera_replace_no_frame(server: Server) -> None:
    writer(server).publish(frame(server, 0), b"jpeg")
    for seq in range(5):
        writer(server, "gate").publish(frame(server, seq, camera="gate"), b"jpeg")

    entries = read(frames_reader(server))

    assert [entry.record.frame_id for entry in entries] == ["door:7:0", "gate:7:4"]


def test_a_camera_at_its_limit_drops_at_the_source_with_a_result(server: Server) -> None:
    one, consumer = writer(server), ResultConsumer(server.bus.shards)

    answers = [one.publish(frame(server, seq, live=False), b"jpeg") for seq in range(MAX_STANDING_FRAMES + 3)]

    assert answers == ["published"] * MAX_STANDING_FRAMES + ["source_full"] * 3
    assert ledger(server) == Ledger(
        produced=MAX_STANDING_FRAMES + 3, dropped={"source_full": 3}, in_flight=MAX_STANDING_FRAMES
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
    reader, consumer = frames_reader(server), ResultConsumer(server.bus.shards)
    (entry,) = read(reader)

    with reader.guard(entry):
        raise ValueError("a picture nobody expected")

    assert ledger(server) == Ledger(produced=1, dropped={"dead": 1})
    assert [result.error for result in consumer.read()] == ["ValueError: a picture nobody expected"]
    ((_, fields),) = server.client.xrange("{s0}:dead")
    letter = decode(DeadLetter, fields[b"record"])
    assert (letter.stream, letter.process, letter.fields) == ("frames", "detector-1", entry.fields)


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
    server.client.xadd("{s0}:frames", fields)
    writer(server).publish(frame(server, 0), b"jpeg")

    entries = read(reader)

    assert [entry.record.seq for entry in entries] == [0]
    assert server.client.xlen("{s0}:dead") == 1
    assert ledger(server) == Ledger(produced=1, in_flight=1)


def test_a_published_record_of_another_version_is_dead_and_counted(server: Server) -> None:
    sent = frame(server, 0, live=False)
    packed = messages.encode(sent).replace(b"schema\x01", b"schema\x02")
    writer(server).publish(sent, b"jpeg")
    stream = "{s0}:frames:complete"
    ((id_, fields),) = server.client.xrange(stream)
    server.client.xdel(stream, id_)
    server.client.xadd(stream, {**fields, b"record": packed})

    entries = read(frames_reader(server))

    assert entries == []
    assert ledger(server) == Ledger(produced=1, dropped={"dead": 1})


def test_a_waiting_frame_of_another_version_is_dead_and_counted(server: Server) -> None:
    writer(server).publish(frame(server, 0), b"jpeg")
    waiting = server.client.hget("{s0}:frames:waiting", CAMERA)
    server.client.hset("{s0}:frames:waiting", CAMERA, waiting.replace(b"schema\x01", b"schema\x02"))

    entries = read(frames_reader(server))

    assert entries == []
    assert ledger(server) == Ledger(produced=1, dropped={"dead": 1})


def test_a_foreign_value_in_the_queue_stops_no_worker(server: Server) -> None:
    reader = frames_reader(server)
    read(reader)
    server.client.hset("{s0}:frames:waiting", "gate", b"junk")
    server.client.zadd("{s0}:frames:order", {"gate": -1, "nobody": -1})
    server.client.set("{s0}:frames:turns", "text")
    writer(server).publish(frame(server, 0), b"jpeg")

    entries = read(reader)

    assert [entry.record.seq for entry in entries] == [0]


def test_a_frame_that_was_never_published_counts_in_no_ledger(server: Server) -> None:
    reader = frames_reader(server)
    read(reader)
    for number, live in enumerate([True, False, False]):
        one = frame(server, number, live=live)
        fields = {"camera": CAMERA, "frame_id": one.frame_id, "record": messages.encode(one)}
        server.client.xadd("{s0}:frames" if live else "{s0}:frames:complete", fields)
    faces = FaceCrops.for_frame(frame(server, 1, live=False), boxes=[(1, 2, 3, 4)], scores=[0.9], crop_px=8, seconds={})

    first, second, third = [entry for _ in range(3) for entry in reader.read_new(3, 1)]
    reader.finish(first, labelled(first.record))
    reader.forward(second, faces, b"crops")
    reader.dead_letter(third, "damaged")

    assert ledger(server) == Ledger()
    assert len(read(faces_reader(server))) == 1


@pytest.mark.parametrize("turn", ["nan", "inf", "text", "1e999"])
def test_a_turn_that_is_no_number_stops_no_camera(server: Server, turn: str) -> None:
    reader = frames_reader(server)
    read(reader)
    server.client.hset("{s0}:frames:turns", CAMERA, turn)

    published = writer(server).publish(frame(server, 0), b"jpeg")

    assert published == "published"
    assert [entry.record.seq for entry in read(reader)] == [0]


def test_an_idle_worker_takes_a_frame_whose_ticket_it_got_before(server: Server) -> None:
    reader = frames_reader(server)
    assert read(reader) == []  # from now on it waits
    writer(server).publish(frame(server, 0), b"jpeg")
    server.client.xreadgroup(keys.GROUP, "detector-1", {"{s0}:frames": ">"})  # the answer was lost

    entries = reader.read(1)

    assert [(entry.record.seq, entry.data) for entry in entries] == [(0, b"jpeg")]


def test_an_idle_worker_that_holds_many_entries_takes_the_next(server: Server) -> None:
    reader = frames_reader(server)
    for number in range(120):
        writer(server, f"c{number}").publish(frame(server, 0, camera=f"c{number}"), b"jpeg")
    assert len(read(reader, 120)) == 120
    assert reader.read_new(1, 5) == []
    writer(server).publish(frame(server, 0), b"jpeg")

    entries = reader.read_new(1, 250)

    assert [entry.record.camera for entry in entries] == [CAMERA]


def test_an_idle_worker_takes_tickets_that_are_older_than_its_last_one(server: Server) -> None:
    reader, other = frames_reader(server), frames_reader(server, "detector-2")
    server.client.xgroup_create("{s0}:frames", keys.GROUP, mkstream=True)
    server.client.xadd("{s0}:frames", {"ticket": 1}, id=f"{2**50}-0")
    assert reader.read(1) == reader.read(1) == []  # the ticket came when Redis' clock was far ahead
    server.client.flushall()
    assert read(other) == []
    writer(server).publish(frame(server, 0), b"jpeg")

    entries = reader.read(1)

    assert [entry.record.seq for entry in entries] == [0]


def test_an_idle_worker_sends_a_script_that_redis_has_forgotten(server: Server) -> None:
    reader = frames_reader(server)
    assert read(reader) == []
    server.client.script_flush()
    writer(server).publish(frame(server, 0), b"jpeg")

    entries = reader.read(1)

    assert [entry.record.seq for entry in entries] == [0]


def test_a_published_frame_renews_the_lease_and_lists_its_camera(server: Server) -> None:
    server.client.set("{s0}:lease:door", TOKEN, px=100)

    writer(server).publish(frame(server, 0), b"jpeg")

    assert server.client.pttl("{s0}:lease:door") > 1_000
    assert server.client.zscore("{s0}:cameras", "door") == pytest.approx(server.clock.now(), abs=5)


def test_a_foreign_ticket_loses_no_frame_when_the_stream_is_lost(server: Server) -> None:
    writer(server).publish(frame(server, 0), b"jpeg")
    reader = frames_reader(server)
    read(reader)
    server.client.hset("{s0}:frames:taken", "junk", "junk")
    server.client.delete("{s0}:frames")

    entries = read(reader)

    assert [entry.record.seq for entry in entries] == [0]


def test_a_key_of_the_wrong_type_fails_before_anything_is_changed(server: Server) -> None:
    writer(server).publish(frame(server, 0), b"jpeg")
    reader = frames_reader(server)
    (entry,) = read(reader)
    server.client.set("{s0}:results", "not a stream")

    with pytest.raises(redis.ResponseError, match="results is no stream"):
        reader.finish(entry, labelled(entry.record))

    assert ledger(server) == Ledger(produced=1, in_flight=1)
    assert server.client.xpending("{s0}:frames", keys.GROUP)["pending"] == 1


def test_publishing_under_a_name_that_another_holds_names_the_holder(server: Server) -> None:
    writer(server).publish(frame(server, 0), b"jpeg")
    other = messages.encode(messages.LeaseHolder(host="there", pid=42, token="o"))

    with pytest.raises(NameLost, match="process 42 on there"):
        server.client.set(f"{{s0}}:lease:{CAMERA}", other)
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

    names = [row["name"] for row in server.client.xinfo_consumers("{s0}:frames", keys.GROUP)]
    assert names == [b"busy"]


def test_consumers_that_died_holding_nothing_are_deleted(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    writer(server).publish(frame(server, 0, live=False), b"jpeg")
    for name in ("holding", "empty"):
        read(frames_reader(server, name))
    living = GroupConsumer(server.bus, DedicatedConnection(server.client), "frames", "living")
    living.read(1, 1)
    monkeypatch.setattr("pipeline.bus.group_consumer.IDLE_CONSUMER_MS", -1)

    living.remove_idle_consumers()

    names = {row["name"] for row in server.client.xinfo_consumers("{s0}:frames:complete", keys.GROUP)}
    assert names == {b"holding"}


def test_old_results_are_removed_also_after_there_were_too_many(server: Server) -> None:
    add = "for number = 1, 100000 do redis.call('XADD', KEYS[1], number .. '-0', 'record', 'old') end"
    server.client.eval(add, 1, "{s0}:results")
    one = writer(server)

    for seq in range(21):
        one.publish(frame(server, seq), b"jpeg")

    assert 20 <= server.client.xlen("{s0}:results") < 200


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
