"""Records from the network: only BadMessage comes out, and what is a record can be shown, counted and sent on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from random import Random
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np

from bench.fuzz.mutate import arbitrary_bytes, mutated_bytes
from bench.fuzz.rounds import Round, examples, noting
from pipeline.bus import messages
from pipeline.bus.dead_letters import ListedDeadLetter, describe_dead_letter
from pipeline.bus.messages import (
    AnnouncedModel,
    BadMessage,
    DeadLetter,
    FaceCrops,
    Frame,
    FrameIdentity,
    FrameResult,
    Heartbeat,
    LeaseHolder,
    decode,
    encode,
)
from pipeline.vision.drawing import draw_faces
from pipeline.vision.faces import Face
from pipeline.vision.tracks import FaceTracker
from viewer.audience import DisplayFrame
from viewer.sockets import frame_metadata
from workers.known_faces import kept_faces

FACE = Face(box=(200.0, 80.0, 320.0, 220.0), score=0.9, label="mask", confidence=0.96)
FRAME = Frame(
    frame_id="door:1:2",
    camera="door",
    start=1,
    seq=2,
    width=640,
    height=360,
    pixels_key="{s0}:pixels:door:1:2",
    captured_at=1_700_000_000.5,
    deadline_at=1_700_000_001.5,
)
FACES = FaceCrops.for_frame(
    FRAME, boxes=[FACE.box] * 2, scores=[0.9, 0.8], crop_px=112, seconds={"detect": 0.01, "detect_wait": 0.02}
)
VALID: tuple[msgspec.Struct, ...] = (
    FRAME,
    FACES,
    FrameResult.for_frame(FRAME, faces=[FACE, FACE], model="lite-12345678", seconds=FACES.seconds),
    FrameResult.dead(FRAME, "damaged"),
    DeadLetter(
        stream="frames",
        entry_id="1-0",
        fields={b"camera": b"door", b"record": encode(FRAME)},
        error="damaged",
        process="detector-1",
        deliveries=1,
        died_at=1_700_000_000.5,
    ),
    Heartbeat(
        role="camera",
        id="camera-1",
        host="here",
        pid=1,
        started_at=1.5,
        beat_at=2.5,
        camera="door",
        rates={"frames": 20.0},
    ),
    AnnouncedModel(version="lite-12345678", crop_px=112, margin=0.05),
    LeaseHolder(host="here", pid=1, token="t"),  # noqa: S106 -- opens nothing
)
PACKED = tuple(encode(record) for record in VALID)
MUTATIONS = 3_000  # in a round
NESTED = b"\x91" * 100_000
IMAGE = np.zeros((36, 64, 3), np.uint8)

numbers = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.floats(), st.sampled_from([0, -1, 1e308, -1e308, 2**63, 10**15, float("nan")])
)
leaves = st.one_of(
    numbers,
    st.none(),
    st.booleans(),
    st.text(max_size=40),
    st.binary(max_size=40),
    st.sampled_from([datetime(1, 1, 1, tzinfo=UTC), msgspec.msgpack.Ext(5, b"x"), msgspec.Raw(b"\xc7\xff\xff")]),
    st.sampled_from(["door", "door:1:2", "{s0}:pixels:door:1:2", "labelled", "dropped", "dead", "frames", "mask"]),
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=8,
)


@contextmanager
def ready() -> Iterator[Round]:
    """Yield the round."""
    yield one_round


def one_round(random: Random) -> int:
    """Decode arbitrary, damaged and changed records as every type; return how many."""
    for _ in range(MUTATIONS):
        packed = (
            arbitrary_bytes(random) if random.random() < 0.2 else mutated_bytes(random, random.choice(PACKED), PACKED)
        )
        with noting(packed):
            check(packed)
    check(NESTED[: random.randrange(len(NESTED))])
    record = random.choice(VALID)
    names = st.sampled_from([*record.__struct_fields__, "other", "__class__"])
    return (
        MUTATIONS
        + 1
        + examples(st.dictionaries(names, values, max_size=4), lambda changes: check(_changed(record, changes)), random)
    )


def check(packed: bytes) -> None:
    """Decode bytes as every type of record, and use what is one."""
    for record_type in dict.fromkeys(type(record) for record in VALID):
        with suppress(BadMessage):
            use(decode(record_type, packed))
    messages.describe_holder(packed)
    fields = {packed[:20]: packed, b"record": packed}
    letter = DeadLetter(stream="-", entry_id="-", fields=fields, error="", process="", deliveries=0, died_at=0)
    describe_dead_letter(ListedDeadLetter(id="1-0", camera="-", letter=letter))


def use(record: msgspec.Struct) -> None:
    """Do with a record what the processes do with it."""
    json.dumps(json.loads(msgspec.json.encode(record)) if not isinstance(record, DeadLetter) else "", allow_nan=False)
    if isinstance(record, FrameIdentity):
        decode(FrameResult, encode(FrameResult.dropped(record, "stale")))
    if isinstance(record, FaceCrops):
        decode(FaceCrops, encode(record))
        kept = kept_faces(record.known, record.boxes, record.scores)
        if len(kept) + len(record.to_classify) != len(record.boxes):
            raise AssertionError("a face is neither kept nor classified, or both")
    if isinstance(record, FrameResult):
        _show(record)
    if isinstance(record, DeadLetter):
        describe_dead_letter(ListedDeadLetter(id="1-0", camera="-", letter=record))


def _show(result: FrameResult) -> None:
    tracker = FaceTracker()
    tracker.update(result.faces, result.captured_at - 0.1)
    faces = tuple(tracker.update(result.faces, result.captured_at))
    frame = DisplayFrame(
        camera=result.camera,
        frame_id=result.frame_id,
        seq=result.seq,
        width=result.width,
        height=result.height,
        faces=faces,
        labelled=True,
        captured_at=result.captured_at,
        age_s=0.0,
        at_s=0.0,
        jpeg=b"",
    )
    json.dumps(frame_metadata(frame), allow_nan=False)  # browsers cannot parse NaN
    draw_faces(IMAGE, faces)


def _changed(record: msgspec.Struct, changes: dict[str, Any]) -> bytes:
    """Pack a record with some fields changed; where it has faces, those of one of them, too."""
    fields = {name: getattr(record, name) for name in record.__struct_fields__} | changes
    if isinstance(record, FrameResult) and "faces" not in changes and changes:
        value = next(iter(changes.values()))
        fields["faces"] = [msgspec.to_builtins(FACE) | {"box": [value, 1.0, value, 2.0]}]
    return msgspec.msgpack.encode(fields)
