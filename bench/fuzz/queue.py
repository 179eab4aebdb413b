"""Foreign and damaged data in every stream and key of the queue, on a real Valkey.

Streams hold foreign entries; hashes and sorted sets hold foreign values, or are of another type. No call of a worker, a
camera or the status fails; every entry is settled; the ledger of a camera balances whose own
counts nobody has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from random import Random
from typing import Any, cast

import msgspec

from bench.fuzz.message import PACKED, VALID
from bench.fuzz.mutate import ODD_TEXTS, arbitrary_bytes, mutated_bytes
from bench.fuzz.rounds import BrokenPromise, Round, noting
from pipeline.bus.connection import connect
from pipeline.bus.dead_letters import CannotReplay, describe_dead_letter, list_dead_letters, replay_dead_letter
from pipeline.bus.group_consumer import RECLAIM_IDLE_MS
from pipeline.bus.keys import GROUP, MODEL, PROCESSES, heartbeat_key
from pipeline.bus.leases import NameLost
from pipeline.bus.messages import FaceCrops, Frame, FrameResult, LeaseHolder, encode, frame_id
from pipeline.bus.reader import Entry, Reader
from pipeline.bus.result_consumer import ResultConsumer
from pipeline.bus.shards import Bus, Shard, Stage
from pipeline.bus.status import read_ledgers, read_status, status_table
from pipeline.bus.writer import Writer
from pipeline.runtime.embedded_server import embedded_server

CAMERAS = ("door", "gate", "file-0000000a")  # keys of gate alone, its counts too, are damaged
DAMAGED = "gate"
TOKEN = encode(LeaseHolder(host="here", pid=1, token="t"))  # noqa: S106 -- opens nothing
STAGES: tuple[Stage, ...] = ("frames", "faces")
RECORDS: dict[Stage, Any] = {"frames": Frame, "faces": FaceCrops}
NUMBERS = ("nan", "-nan", "inf", "-inf", "1e999", "-1", "0x10", "9223372036854775807", "9" * 30, "", " 1", "1.5", "\0")


@contextmanager
def ready() -> Iterator[Round]:
    """Yield the round, with a server."""
    with embedded_server() as server:
        server.wait()
        with connect(server.url) as client:
            yield lambda random: QueueRound(random, Bus(client)).run()


class QueueRound:
    """One round: cameras publish, workers work and die, and others write what they like, in random order."""

    def __init__(self, random: Random, bus: Bus) -> None:
        bus.client.flushall()
        self.random, self.bus = random, bus
        self.client: Any = bus.client
        self.shard: Shard = bus.shards[0]
        self.writers = {camera: Writer(self.shard, camera=camera, token=TOKEN, pixels_ms=60_000) for camera in CAMERAS}
        self.seqs = dict.fromkeys(CAMERAS, 0)
        self.workers = 0
        self.done: list[object] = []
        self.consumer = ResultConsumer([self.shard])

    def run(self) -> int:
        """Take random steps, then let the workers finish; return how many inputs of others there were."""
        foreign = 0
        steps: tuple[Callable[[], object], ...] = (self.publish, self.work, self.read_and_die, self.look)
        with noting(self.done):
            for _ in range(self.random.randint(10, 60)):
                if self.random.random() < 0.6:
                    foreign += 1
                    self.write_foreign()
                else:
                    step = self.random.choice(steps)
                    self.done.append(step.__name__)
                    step()
            self.finish()
        return foreign

    def publish(self) -> None:
        """Publish a frame of a camera."""
        camera = self.random.choice(CAMERAS)
        self.seqs[camera] += 1
        with suppress(NameLost):
            self.writers[camera].publish(self._frame(camera, self.seqs[camera]), b"jpeg")

    def work(self, count: int = 1) -> int:
        """Take entries of a stage as a new worker, and settle them; return how many there were."""
        stage = self.random.choice(STAGES)
        reader = self._reader(stage)
        entries = reader.read_new(self.random.randint(count, count + 3), 1)
        self._settle(reader, entries)
        return len(entries)

    def read_and_die(self) -> None:
        """Take entries, or read them only, and leave them alone for long."""
        stage = self.random.choice(STAGES)
        reader = self._reader(stage)
        if self.random.random() < 0.5:
            reader.read_new(2, 1)
        self._age(stage)

    def look(self) -> None:
        """Read the status, the results and the dead letters, and replay one."""
        status_table(read_status(self.bus))
        msgspec.json.encode(read_status(self.bus))
        self.consumer.read(1)
        letters = list_dead_letters(self.bus)
        for letter in letters:
            describe_dead_letter(letter)
        if letters and self.random.random() < 0.3:
            with suppress(CannotReplay):
                replay_dead_letter(self.bus, self.random.choice(letters).id)

    def finish(self) -> None:
        """Let workers settle all that there is; check that nothing is left, and that the ledgers balance."""
        for _ in range(400):
            stages = [
                stage for stage in STAGES if any(stream.startswith(self.shard.key(stage)) for stream in self._left())
            ]
            for stage in stages:
                self._age(stage)
                reader = self._reader(stage)
                self._settle(reader, reader.read(50))
            if not stages:
                break
        if left := self._left():
            raise BrokenPromise(f"entries are left: {left}")
        for camera, ledger in read_ledgers(self.bus, [name for name in CAMERAS if name != DAMAGED]).items():
            if not ledger.balances:
                raise BrokenPromise(f"the ledger of {camera} does not balance: {ledger}")

    def write_foreign(self) -> None:
        """Write anything into any key of the queue."""
        key = self.random.choice(
            [self.shard.key(stage, *part) for stage in STAGES for part in ((), ("complete",), ("waiting",), ("order",))]
            + [self.shard.key(stage, part) for stage in STAGES for part in ("turns", "taken", "alone")]
            + [self.shard.key(name, DAMAGED) for name in ("standing", "ledger", "recent", "newest:frames", "lease")]
            + [self.shard.key(name) for name in ("results", "dead", "cameras")]
            + [PROCESSES, MODEL, heartbeat_key("camera-1"), self.shard.key("pixels", "door:1:2")]
        )
        command = self._foreign(key)
        self.done.append(command)
        self.client.execute_command(*command)

    def _foreign(self, key: str) -> list[Any]:
        name = key.rpartition("}:")[2]
        if name in ("frames", "faces", "frames:complete", "faces:complete", "results", "dead"):
            return self._foreign_entry(key)
        random = self.random
        if name.startswith(("heartbeat", "lease", "pixels", "model")):
            return ["SET", key, self._value(), "PX", 50] if name.startswith("lease") else ["SET", key, self._value()]
        if random.random() < 0.15 and name not in ("cameras", "processes"):  # another type of value
            self.client.unlink(key)
            return random.choice(
                (["SET", key, self._value()], ["RPUSH", key, "1"], ["SADD", key, "x"], ["ZADD", key, 1, "m"])
            )
        kind = cast(bytes, self.client.type(key))
        is_sorted = name.endswith(("order", "cameras", "processes"))
        if kind not in (b"none", b"zset" if is_sorted else b"hash"):
            return ["UNLINK", key]
        if is_sorted:
            score = random.choice((0, 1, "-inf", "inf", 1e308, self.bus.clock.now()))
            return ["ZADD", key, score, self._name(key)]
        return random.choice((["HSET", key, self._name(key), self._value()],) * 5 + (["HDEL", key, self._name(key)],))

    def _foreign_entry(self, key: str) -> list[Any]:
        random = self.random
        if random.random() < 0.1:
            return ["XGROUP", "DESTROY", key, GROUP] if self.client.exists(key) else ["PING"]
        if random.random() < 0.05:
            return ["DEL", key]
        names = ("camera", "frame_id", "record", "data", "ticket", "captured_at", "x", b"\xff")
        fields: list[Any] = []
        if random.random() < 0.5:
            record = random.choice(VALID)
            camera = getattr(record, "camera", None) or "door"
            fields = ["camera", camera, "frame_id", getattr(record, "frame_id", ""), "record", encode(record)]
        while len(fields) < 2 or random.random() < 0.5:
            fields += [random.choice(names), self._value()]
        return ["XADD", key, "*", *fields]

    def _name(self, key: str) -> Any:
        """Return a field of a hash or a member of a sorted set."""
        random = self.random
        found = cast(list[bytes], self.client.hkeys(key)) if self.client.type(key) == b"hash" else []
        slots = [f"{name}:{random.randrange(8)}" for name in ("second", "frames", "ms")]
        known = ("produced", "labelled", "dropped:stale", "last", "seq", "captured_at", "pixels_key", "labelled_at", "")
        return random.choice((*CAMERAS, *found, *slots, *known, "1-0", "junk", arbitrary_bytes(random, 10)))

    def _value(self) -> bytes:
        """Return a value that is damaged, of another kind, or hostile."""
        random = self.random
        match random.randrange(7):
            case 0:
                return arbitrary_bytes(random)
            case 1:
                return random.choice(PACKED)
            case 2:
                return mutated_bytes(random, random.choice(PACKED), PACKED)
            case 3:
                return random.choice(NUMBERS).encode()
            case 4:
                return random.choice(ODD_TEXTS).encode(errors="surrogatepass")
            case _:
                return self._packed_frame()

    def _packed_frame(self) -> bytes:
        """Return a frame as scripts pack it (common.lua), with some values exchanged, or damaged as a whole."""
        random = self.random
        camera = random.choice(CAMERAS)
        frame = self._frame(camera, random.randrange(5))
        stale = encode(FrameResult.dropped(frame, "stale"))
        values: list[Any] = [camera, frame.frame_id, frame.start, frame.seq, encode(frame), stale, frame.pixels_key, ""]
        odd: tuple[Any, ...] = (
            "",
            "x",
            -1,
            1.5,
            float("nan"),
            float("inf"),
            None,
            [],
            {},
            True,
            2**63,
            b"\xff",
            "{s0}:frames",
            "results",
        )
        if random.random() < 0.6:
            values[random.randrange(8)] = random.choice(odd)
        if random.random() < 0.1:
            del values[random.randrange(8) :]
        packed = msgspec.msgpack.encode(values)
        return mutated_bytes(random, packed, PACKED) if random.random() < 0.3 else packed

    def _reader(self, stage: Stage) -> Reader[Any]:
        self.workers += 1
        return Reader(self.bus, stage=stage, record_type=RECORDS[stage], consumer=f"worker-{self.workers}")

    def _settle(self, reader: Reader[Any], entries: list[Entry[Any]]) -> None:
        for entry in entries:
            with reader.guard(entry):
                reader.fetch(entry, entry.record.pixels_key)
                match self.random.randrange(5):
                    case 0:
                        reader.drop(entry, "pixels_gone")
                    case 1:
                        reader.dead_letter(entry, "damaged")
                    case 2 if isinstance(entry.record, Frame):
                        faces = FaceCrops.for_frame(
                            entry.record, boxes=[(1.0, 2.0, 3.0, 4.0)], scores=[0.5], crop_px=8, seconds={}
                        )
                        reader.forward(entry, faces, bytes(192))
                    case _:
                        reader.finish(entry, FrameResult.for_frame(entry.record, faces=[], model="m", seconds={}))

    def _age(self, stage: Stage) -> None:
        """Make all pending entries of a stage ones that their workers have left alone for too long."""
        for stream in self.shard.stage_keys(stage)[:2]:
            groups = self.client.xinfo_groups(stream) if self.client.exists(stream) else []
            if any(group["name"] == GROUP.encode() for group in groups):
                for row in self.client.xpending_range(stream, GROUP, "-", "+", 100):
                    ids = [row["message_id"]]
                    self.client.xclaim(stream, GROUP, row["consumer"], 0, ids, idle=RECLAIM_IDLE_MS + 1, justid=True)

    def _left(self) -> dict[str, int]:
        """Return the lengths of the work streams that hold entries."""
        streams = [stream for stage in STAGES for stream in self.shard.stage_keys(stage)[:2]]
        return {stream: length for stream in streams if (length := int(self.client.xlen(stream)))}

    def _frame(self, camera: str, seq: int) -> Frame:
        identity, now = frame_id(camera, 1, seq), self.bus.clock.now()
        live = not camera.startswith("file-")
        return Frame(
            frame_id=identity,
            camera=camera,
            start=1,
            seq=seq,
            width=64,
            height=48,
            pixels_key=self.shard.key("pixels", identity),
            captured_at=now,
            deadline_at=now + 60 if live else None,
        )
