"""Arriving records are validated: invalid bytes always raise BadMessage with a reason."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bus import messages
from pipeline.bus.messages import BadMessage, FaceCrops, Frame, FrameResult, decode, encode

FRAME = Frame(
    frame_id="door:1:2",
    camera="door",
    start=1,
    seq=2,
    width=640,
    height=480,
    pixels_key="{s0}:pixels:door:1:2",
    captured_at=1.5,
    deadline_at=None,
)


def changed(**fields: object) -> bytes:
    """Pack FRAME with some fields changed, whatever they are."""
    return msgspec.msgpack.encode(msgspec.to_builtins(FRAME) | fields)


def test_an_encoded_record_decodes_to_itself() -> None:
    packed = encode(FRAME)

    found = decode(Frame, packed)

    assert found == FRAME


@pytest.mark.parametrize(
    "fields",
    [
        {"schema": 2},
        {"camera": "Door"},
        {"camera": "d" * 33},
        {"camera": "door\n"},
        {"camera": "gate"},
        {"frame_id": "door:1:3"},
        {"seq": -1},
        {"width": 0},
        {"height": 70_000},
        {"pixels_key": "frames"},
        {"pixels_key": "{s0}:pixels:../../x"},
        {"captured_at": "now"},
        {"deadline_at": []},
        {"captured_at": float("nan")},
        {"captured_at": 1e300},
        {"deadline_at": float("inf")},
    ],
)
def test_an_invalid_field_is_rejected(fields: dict[str, object]) -> None:
    packed = changed(**fields)

    with pytest.raises(BadMessage):
        decode(Frame, packed)


def test_more_faces_than_the_limit_are_rejected() -> None:
    packed = msgspec.msgpack.encode(
        msgspec.to_builtins(FRAME)
        | {"boxes": [(0, 0, 1, 1)] * 129, "scores": [0.5] * 129, "crop_px": 112, "seconds": {}}
    )

    with pytest.raises(BadMessage, match="128"):
        decode(FaceCrops, packed)


@pytest.mark.parametrize("side", [float("nan"), float("inf"), -1e300])
def test_a_box_that_is_not_in_any_picture_is_rejected(side: float) -> None:
    face = {"box": (side, 0, 1, 1), "score": 0.5, "label": "mask", "confidence": 0.9}
    packed = msgspec.msgpack.encode(msgspec.to_builtins(FRAME) | {"outcome": "labelled", "faces": [face]})

    with pytest.raises(BadMessage, match="box"):
        decode(FrameResult, packed)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_seconds_that_are_no_number_are_rejected(number: float) -> None:
    packed = msgspec.msgpack.encode(
        msgspec.to_builtins(FRAME) | {"boxes": [], "scores": [], "crop_px": 112, "seconds": {"detect": number}}
    )

    with pytest.raises(BadMessage, match="seconds"):
        decode(FaceCrops, packed)


def test_boxes_without_their_scores_are_rejected() -> None:
    packed = msgspec.msgpack.encode(
        msgspec.to_builtins(FRAME) | {"boxes": [(0, 0, 1, 1)] * 2, "scores": [0.5], "crop_px": 112, "seconds": {}}
    )

    with pytest.raises(BadMessage, match="2 boxes but 1 scores"):
        decode(FaceCrops, packed)


@given(packed=st.binary(max_size=300), record_type=st.sampled_from([Frame, FaceCrops, FrameResult, messages.Heartbeat]))
def test_any_bytes_are_a_record_or_a_bad_message(packed: bytes, record_type: type[msgspec.Struct]) -> None:
    try:
        found = decode(record_type, packed)
    except BadMessage:
        return

    assert isinstance(found, record_type)


@given(where=st.integers(0, 400), value=st.integers(0, 255))
def test_a_flipped_byte_never_makes_a_record_of_another_frame_id_pattern(where: int, value: int) -> None:
    packed = bytearray(encode(FRAME))
    packed[where % len(packed)] = value

    try:
        found = decode(Frame, bytes(packed))
    except BadMessage:
        return

    assert found.frame_id == messages.frame_id(found.camera, found.start, found.seq)


FIRST_DECODED_IN_THREADS = """
import sys, threading
from pipeline.bus.messages import FaceCrops, Frame, decode, encode
frame = Frame(
    frame_id="a:1:1", camera="a", start=1, seq=1, width=9, height=9, pixels_key="{s0}:pixels:a:1:1", captured_at=1.0,
    deadline_at=2.0,
)
crops = FaceCrops.for_frame(frame, boxes=[(0.0, 0.0, 9.0, 9.0)], scores=[0.5], crop_px=8, seconds={})
packed = [(type(record), encode(record)) for record in (crops, frame)]
together = threading.Barrier(8)
def work():
    together.wait()
    for record_type, one in packed:
        decode(record_type, one)
sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_the_first_records_of_a_process_may_be_decoded_in_several_threads_at_once() -> None:
    command = [sys.executable, "-c", FIRST_DECODED_IN_THREADS]

    ends = [subprocess.run(command, check=False, timeout=60).returncode for _ in range(20)]

    assert ends == [0] * 20  # without decoders made at import, one in five ends with a segmentation fault
