"""Pixels in shared memory: what a reader gets is of its frame or known not to be, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pipeline.bus import frame_ring
from pipeline.bus.frame_ring import MAX_SLOTS, FrameRing, RingReader
from pipeline.bus.messages import SharedPixels
from pipeline.vision.arrays import Image
from producer.shared_images import SharedImages

HEIGHT, WIDTH = 30, 40
FRAMES = 10_000
# Writes frames whose every pixel is their number modulo 251 into 3 slots, and prints where each is.
PRODUCER = f"""
import sys, msgspec, numpy as np
from pipeline.bus.frame_ring import FrameRing
ring = FrameRing(3, {HEIGHT * WIDTH * 3})
for number in range({FRAMES}):
    where = ring.put(np.full(({HEIGHT}, {WIDTH}, 3), number % 251, np.uint8))
    sys.stdout.buffer.write(msgspec.json.encode(where) + b"\\n")
    sys.stdout.flush()
sys.stdin.read()
"""


def image(value: int, height: int = HEIGHT) -> Image:
    return np.full((height, WIDTH, 3), value, np.uint8)


def shared(ring: FrameRing, value: int, *, hold: bool = False) -> SharedPixels:
    found = ring.put(image(value), hold=hold)
    assert found is not None
    return found


@pytest.fixture
def ring() -> FrameRing:
    return FrameRing(3, HEIGHT * WIDTH * 3)


def mapped_rings() -> int:
    return Path("/proc/self/maps").read_text().count(f"/memfd:{frame_ring.NAME}")


def test_a_reader_sees_an_image_until_it_is_overwritten(ring: FrameRing) -> None:
    frame = RingReader().open(shared(ring, 7), HEIGHT, WIDTH)

    assert frame is not None
    assert frame.is_intact()
    np.testing.assert_array_equal(frame.image, image(7))
    with pytest.raises(ValueError, match="read-only"):
        frame.image[0, 0] = 0
    for value in (8, 9):
        shared(ring, value)
    assert frame.is_intact()
    shared(ring, 10)  # into the slot of the first
    assert not frame.is_intact()


def test_an_image_that_is_held_stays_until_it_is_released(ring: FrameRing) -> None:
    reader, held = RingReader(), [shared(ring, value, hold=True) for value in (1, 2, 3)]

    assert ring.put(image(4)) is None
    ring.release(held[1:2])
    shared(ring, 5)

    intact = [frame.is_intact() for one in held if (frame := reader.open(one, HEIGHT, WIDTH))]
    assert intact == [True, False, True]
    np.testing.assert_array_equal(ring.image(held[2], HEIGHT, WIDTH), image(3))


def test_what_is_erased_cannot_be_read(ring: FrameRing) -> None:
    reader, old, held = RingReader(), shared(ring, 1), shared(ring, 2, hold=True)
    frames = [reader.open(one, HEIGHT, WIDTH) for one in (old, held)]

    ring.erase_older_than(-1)

    assert [frame.is_intact() for frame in frames if frame] == [False, True]
    assert frames[0] is not None
    assert not frames[0].image.any()
    ring.close()
    assert [frame.is_intact() for frame in frames if frame] == [False, False]
    assert not any(frame.image.any() for frame in frames if frame)


def test_an_image_that_does_not_fit_is_not_taken(ring: FrameRing) -> None:
    assert ring.put(image(1, height=200)) is None
    for slots, slot_bytes in ((0, 1), (MAX_SLOTS + 1, 1), (1, 0)):
        with pytest.raises(ValueError, match="a ring has 1 to"):
            FrameRing(slots, slot_bytes)


def test_a_reference_to_what_is_no_ring_of_ours_maps_nothing(ring: FrameRing, tmp_path: Path) -> None:
    good = shared(ring, 1)
    other = FrameRing(1, 1)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    opened = os.open(fifo, os.O_RDWR)
    unsealed = os.memfd_create(frame_ring.NAME)
    os.ftruncate(unsealed, 2 * frame_ring.PAGE)
    empty = os.memfd_create(frame_ring.NAME, os.MFD_ALLOW_SEALING)
    wrong = {
        "another ring": {"fd": msgspec.structs.asdict(other_pixels(other))["fd"]},
        "another token": {"token": "0" * 32},
        "no such slot": {"slot": 3},
        "no such process": {"pid": 2**31 - 1},
        "a closed number": {"fd": 2**31 - 1},
        "a pipe, which would block": {"fd": opened},
        "memory that may shrink": {"fd": unsealed},
        "memory without a header": {"fd": empty},
    }

    for what, change in wrong.items():
        assert RingReader().open(msgspec.structs.replace(good, **change), HEIGHT, WIDTH) is None, what
    assert RingReader().open(good, 200, WIDTH) is None
    for number in (opened, unsealed, empty):
        os.close(number)


def other_pixels(ring: FrameRing) -> SharedPixels:
    found = ring.put(np.zeros((1, 1, 1), np.uint8))
    assert found is not None
    return found


def test_no_frame_is_ever_taken_for_another_one() -> None:
    reader, intact, torn = RingReader(), 0, 0
    with subprocess.Popen([sys.executable, "-c", PRODUCER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as producer:
        assert producer.stdout is not None
        for number, line in enumerate(producer.stdout):
            frame = reader.open(msgspec.json.decode(line, type=SharedPixels), HEIGHT, WIDTH)
            assert frame is not None
            seen = np.unique(frame.image.copy())
            if frame.is_intact():
                assert seen.tolist() == [number % 251], f"frame {number} shows {seen}"
                intact += 1
            else:
                torn += 1
            if number == FRAMES - 1:
                break
        assert intact >= 3  # the last ones stay
        assert torn > 0, "the producer was never faster: nothing was tested"
        producer.kill()


def test_the_memory_of_a_killed_producer_is_gone_when_its_readers_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, before = RingReader(), mapped_rings()
    with subprocess.Popen([sys.executable, "-c", PRODUCER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as producer:
        assert producer.stdout is not None
        frame = reader.open(msgspec.json.decode(producer.stdout.readline(), type=SharedPixels), HEIGHT, WIDTH)
        assert frame is not None
        producer.send_signal(signal.SIGKILL)
    del frame
    reader.let_go()
    assert mapped_rings() == before + 1

    monkeypatch.setattr(frame_ring, "READER_IDLE_S", 0.0)
    reader.let_go()

    assert mapped_rings() == before


def test_larger_images_get_a_larger_ring_unless_some_are_held() -> None:
    live, complete = SharedImages(slots=4, max_bytes=10**6), SharedImages(slots=4, max_bytes=10**6)

    small, large = live.put(image(1)), live.put(image(2, height=200))
    held, does_not_fit = complete.put(image(1), hold=True), complete.put(image(2, height=200), hold=True)

    assert small is not None
    assert large is not None
    assert small.token != large.token
    assert held is not None
    assert does_not_fit is None
    assert SharedImages(slots=4, max_bytes=10**6, enabled=False).put(image(1)) is None
    for images in (live, complete):
        images.close()


def test_without_memfd_nothing_is_shared(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delattr(os, "memfd_create")
    images = SharedImages(slots=4, max_bytes=10**6)

    with caplog.at_level("INFO"):
        assert [images.put(image(1)) for _ in range(2)] == [None, None]

    (line,) = caplog.messages
    assert line == "frames go through Redis as JPEG, because no memory can be shared: this system has no memfd"
