"""Batches take all that waits, up to what the model does in half a second, and never split a promise."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.batcher import MAX_CALL_S, Batcher


@given(counts=st.lists(st.integers(0, 128), max_size=40), most=st.integers(1, 128))
def test_every_crop_is_in_exactly_one_call_in_order_and_no_call_is_too_large(counts: list[int], most: int) -> None:
    calls = Batcher(most).plan(counts)

    seen = [(part.entry, crop) for call in calls for part in call for crop in range(part.start, part.stop)]
    assert seen == [(entry, crop) for entry, count in enumerate(counts) for crop in range(count)]
    assert all(0 < sum(part.stop - part.start for part in call) <= most for call in calls)


@given(counts=st.lists(st.integers(0, 128), max_size=40), most=st.integers(1, 128))
def test_there_are_no_more_calls_than_needed(counts: list[int], most: int) -> None:
    calls = Batcher(most).plan(counts)

    assert len(calls) == -(-sum(counts) // most)


def test_a_slow_model_gets_calls_of_half_a_second() -> None:
    batcher = Batcher(64)

    batcher.learn_call(crops=10, seconds=0.5)

    assert batcher.limit == 10
    assert batcher.limit * 0.05 <= MAX_CALL_S


def test_a_model_slower_than_half_a_second_a_crop_still_gets_one() -> None:
    batcher = Batcher(64)

    batcher.learn_call(crops=1, seconds=3.0)

    assert batcher.limit == 1


def test_a_gpu_gets_full_batches_again_after_many_small_ones() -> None:
    batcher = Batcher(128)
    for _ in range(100):
        batcher.learn_call(crops=1, seconds=0.02)  # as long as a call of any size

    sizes = []
    for _ in range(10):
        sizes.append(batcher.limit)
        batcher.learn_call(crops=sizes[-1], seconds=0.02)

    assert sizes[0] == 25
    assert sizes[-1] == 128


def test_as_many_entries_are_read_as_make_one_batch() -> None:
    batcher = Batcher(64)

    for _ in range(50):
        batcher.learn_entry(8)

    assert batcher.entries_to_read == 8


def test_nothing_waits_unless_asked() -> None:
    batcher = Batcher(64)

    assert batcher.wait_s(1, [None], now=0.0) == 0.0


def test_a_full_batch_does_not_wait() -> None:
    batcher = Batcher(4, max_wait_s=0.1)

    assert batcher.wait_s(4, [None], now=0.0) == 0.0


def test_waiting_ends_before_the_oldest_deadline() -> None:
    batcher = Batcher(64, max_wait_s=0.1)
    batcher.learn_call(crops=1, seconds=0.01)

    wait_s = batcher.wait_s(1, [100.06, 101.0], now=100.0)

    assert 0.03 < wait_s < 0.05


def test_a_frame_past_its_deadline_is_not_waited_with() -> None:
    batcher = Batcher(64, max_wait_s=0.1)

    assert batcher.wait_s(1, [99.0], now=100.0) == 0.0
