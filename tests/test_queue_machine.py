"""Random steps on the scripts of a real server, compared with the pure model of the queue after each step.

The seed of a failing run is printed by hypothesis. Cameras, files, detectors and classifiers act in any order; workers
die between any two steps, or come back late; Redis loses its memory, its memory is full, and its clock steps.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any

import hypothesis.strategies as st
from feeding import serving
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from queue_model import STAGES, ModelFrame, QueueModel, Stage

from pipeline.bus.dedicated_connection import DedicatedConnection
from pipeline.bus.group_consumer import RECLAIM_IDLE_MS
from pipeline.bus.keys import GROUP
from pipeline.bus.messages import FaceCrops, Frame, FrameResult, LeaseHolder, decode, encode, frame_id
from pipeline.bus.scripts import Script
from pipeline.bus.settling import Settler, StreamEntry, settlement
from pipeline.bus.status import read_ledgers
from pipeline.bus.writer import Writer
from pipeline.vision.faces import Face

LIVE = ("door", "gate", "hall")
FILES = ("file-0000000a", "file-0000000b")
WORKERS = ("one", "two", "three")
TOKEN = encode(LeaseHolder(host="here", pid=1, token="t"))

cameras = st.sampled_from(LIVE + FILES)
stages = st.sampled_from(STAGES)
workers = st.sampled_from(WORKERS)


class QueueMachine(RuleBasedStateMachine):
    """The real scripts beside the model. A held entry is its number in the model, and what the server gave for it."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.server = self._stack.enter_context(serving())
        self.shard = self.server.shard
        self.model = QueueModel()
        self.seqs: Counter[str] = Counter()
        self.entries: dict[int, tuple[StreamEntry, Frame | FaceCrops | None]] = {}
        self.frames: dict[ModelFrame, Frame] = {}
        self.memory_full = False
        self.settlers = {stage: Settler(DedicatedConnection(self.server.client), stage) for stage in STAGES}
        self.create_groups()

    def teardown(self) -> None:
        self._stack.close()

    def create_groups(self) -> None:
        for stage in STAGES:
            self.script("create_groups", stage, [GROUP])

    def script(self, name: str, stage: Stage, args: list[Any]) -> Any:
        return Script(self.server.client, name)(self.shard.stage_keys(stage), args)

    @rule(camera=cameras)
    def publish(self, camera: str) -> None:
        seq = self.seqs[camera]
        self.seqs[camera] += 1
        one = ModelFrame(camera, seq, live=camera in LIVE)
        self.frames[one] = self.record(one)
        writer = Writer(self.shard, camera=camera, token=TOKEN, pixels_ms=60_000)

        answers = [writer.publish(self.frames[one], b"jpeg") for _ in range(2)]  # the second as after a lost answer

        assert answers == [self.model.publish(one, memory_full=self.memory_full), "again"]

    @rule(target=held, stage=stages, worker=workers, files_first=st.booleans())
    def take(self, stage: Stage, worker: str, files_first: bool) -> Any:
        first = "files" if files_first else ""
        rows = self.script("take", stage, [GROUP, worker, 1, first, 1])[2]

        number = self.model.take(stage, worker, files_first=files_first)

        if number is None:
            assert rows == []
            return multiple()
        ((stream, id_, flat, data, _known),) = rows
        self.note(number, stream, id_, flat)
        assert data == (b"jpeg" if stage == "frames" else b"crops")
        return number

    @rule(target=held, stage=stages, worker=workers)
    def read_and_die_before_taking(self, stage: Stage, worker: str) -> Any:
        answer = self.server.client.xreadgroup(GROUP, worker, {self.shard.key(stage): ">"}, count=1)

        number = self.model.read_ticket(stage, worker)

        if number is None:
            assert not answer
            return multiple()
        self.entries[number] = (StreamEntry(self.shard, stage, answer[0][1][0][0]), None)
        return number

    @precondition(lambda self: any(one.frame is None for one in self.model.held.values()))
    @rule(data=st.data())
    def take_after_waiting(self, data: Any) -> None:
        untied = sorted({(one.stage, one.worker) for one in self.model.held.values() if one.frame is None})
        stage, worker = data.draw(st.sampled_from(untied))
        tickets = [
            self.entries[number][0].id
            for number, one in sorted(self.model.held.items())
            if (one.stage, one.worker, one.frame) == (stage, worker, None)
        ]
        ranges = [id_ for id_ in tickets for _ in range(2)]

        rows = self.script("take", stage, [GROUP, worker, 1, "", 1, *ranges])[2]

        number = self.model.take_held(stage, worker)

        assert len(rows) == (number is not None)
        for stream, id_, flat, *_ in rows:
            self.note(number, stream, id_, flat)

    @rule(target=held, number=consumes(held), outcome=st.sampled_from(["labelled", "expired", "pixels_gone", "dead"]))
    def settle(self, number: int, outcome: Any) -> Any:
        at, record = self.entries[number]
        if record is None:
            return number
        face = Face(box=(1, 2, 3, 4), score=0.9, label="mask", confidence=0.8)
        if outcome == "labelled":
            result = FrameResult.for_frame(record, faces=[face], model="test", seconds={})
        else:
            result = FrameResult.dropped(record, outcome)
        stage: Stage = "frames" if isinstance(record, Frame) else "faces"

        answers = [self.settlers[stage].settle(settlement(at, result)) for _ in range(2)]  # both workers that hold it

        assert answers == [self.model.settle(number, outcome), False]
        return multiple()

    @rule(target=held, number=consumes(held))
    def forward(self, number: int) -> Any:
        at, record = self.entries[number]
        if not isinstance(record, Frame):
            return number
        faces = FaceCrops.for_frame(record, boxes=[(1, 2, 3, 4)], scores=[0.9], crop_px=8, seconds={})

        answers = [self.settlers["frames"].forward(at, faces, b"crops") for _ in range(2)]

        assert answers == [self.model.forward(number), False]
        return multiple()

    @rule(target=held, number=consumes(held), worker=workers)
    def take_over(self, number: int, worker: str) -> Any:
        if number not in self.model.held:  # Redis has lost it
            return multiple()
        at, _ = self.entries[number]
        self.age(at, self.model.held[number].worker)
        stage = self.model.held[number].stage

        _, _, _, *rows = self.script("reclaim", stage, [GROUP, worker, RECLAIM_IDLE_MS, 1, "0-0"])

        if not self.model.take_over(number, worker):
            assert rows == []
            return multiple()
        ((stream, id_, flat, _deaths, _deliveries),) = rows
        assert id_ == at.id
        self.note(number, stream, id_, flat)
        return number

    @rule(number=held)
    def renew(self, number: int) -> None:
        at, _ = self.entries[number]
        if number in self.model.held:
            worker = self.model.held[number].worker
            self.age(at, worker)
            self.server.client.xclaim(self.shard.key(at.stream), GROUP, worker, 0, [at.id], justid=True)

        for stage in STAGES:  # what nobody left alone stays with its worker
            assert len(self.script("reclaim", stage, [GROUP, "other", RECLAIM_IDLE_MS, 1, "0-0"])) == 3

    @precondition(lambda self: not self.memory_full)  # the test itself has to write
    @rule(number=held)
    def set_the_clock_back(self, number: int) -> None:
        at, _ = self.entries[number]
        if number in self.model.held:
            stream, worker = self.shard.key(at.stream), self.model.held[number].worker
            later = int(1000 * (self.server.clock.now() + 3600))
            self.server.client.xclaim(stream, GROUP, worker, 0, [at.id], time=later, justid=True)
        for stage in STAGES:
            self.server.client.hset(self.shard.stage_keys(stage)[4], "@seen", int(self.server.clock.now()) + 3600)
            assert len(self.script("reclaim", stage, [GROUP, "other", RECLAIM_IDLE_MS, 1, "0-0"])) == 3

    @precondition(lambda self: not self.memory_full)
    @rule()
    def fill_the_memory(self) -> None:
        self.memory_full = True
        self.server.client.config_set("maxmemory", 1)

    @precondition(lambda self: self.memory_full)
    @rule()
    def free_the_memory(self) -> None:
        self.memory_full = False
        self.server.client.config_set("maxmemory", 0)

    @rule()
    def lose_the_memory(self) -> None:
        self.server.client.flushall()
        self.model.flush()
        self.frames = {}
        self.create_groups()

    @invariant()
    def agrees_with_the_model(self) -> None:
        self.model.check()
        expected: dict[str, dict[bytes, bytes]] = {camera: {} for camera in LIVE + FILES}
        for one, stage in self.model.standing().items():
            expected[one.camera][self.frames[one].frame_id.encode()] = stage.encode()
        ledgers = read_ledgers(self.server.bus, LIVE + FILES)
        for camera, ledger in ledgers.items():
            assert self.server.client.hgetall(self.shard.key("standing", camera)) == expected[camera]
            ended = Counter(outcome for one, outcome in self.model.ended.items() if one.camera == camera)
            assert (ledger.produced, ledger.labelled) == (self.model.produced[camera], ended.pop("labelled", 0))
            assert Counter(ledger.dropped) == ended
            assert ledger.balances

    @invariant()
    def each_frame_has_one_result(self) -> None:
        rows = self.server.client.xrange(self.shard.key("results"))
        results = [decode(FrameResult, fields[b"record"]) for _, fields in rows]
        ended = {self.frames[one].frame_id: outcome for one, outcome in self.model.ended.items()}
        assert {result.frame_id: result.reason or result.outcome for result in results} == ended
        assert len(results) == len(ended)

    def record(self, one: ModelFrame) -> Frame:
        identity = frame_id(one.camera, 7, one.seq)
        now = self.server.clock.now()
        return Frame(
            frame_id=identity,
            camera=one.camera,
            start=7,
            seq=one.seq,
            width=64,
            height=48,
            pixels_key=self.shard.key("pixels", identity),
            captured_at=now,
            deadline_at=now + 60 if one.live else None,
        )

    def note(self, number: int | None, stream: bytes, id_: bytes, flat: list[bytes]) -> None:
        """Remember what the server gave for an entry; it has to be the model's frame."""
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        assert number is not None
        one = self.model.held[number]
        record = decode(Frame if one.stage == "frames" else FaceCrops, fields[b"record"])
        assert one.frame and (record.camera, record.seq) == (one.frame.camera, one.frame.seq)
        self.entries[number] = (StreamEntry(self.shard, stream.decode().removeprefix("{s0}:"), id_), record)

    def age(self, at: StreamEntry, worker: str) -> None:
        """Make an entry one that its worker has left alone for too long."""
        stream = self.shard.key(at.stream)
        self.server.client.xclaim(stream, GROUP, worker, 0, [at.id], idle=RECLAIM_IDLE_MS + 1, justid=True)


def test_random_steps_keep_the_promises() -> None:
    machine = settings(
        max_examples=30, stateful_step_count=60, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck)
    )

    run_state_machine_as_test(QueueMachine, settings=machine)  # type: ignore[no-untyped-call]
