"""Pictures of programs wait while live frames need the workers, and programs that come in vain are spread over time."""

from __future__ import annotations

import contextlib
import threading

import msgspec
import pytest
from conftest import wait_until
from event_scenes import result

from viewer.api.admission import MAX_RETRY_AFTER_S, PRESSED_SHARE, REJECTED_PER_S, WINDOW_S, Admission


class Monotonic:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Monotonic:
    return Monotonic()


@pytest.fixture
def admission(clock: Monotonic) -> Admission:
    return Admission(2, clock)


def live(admission: Admission, labelled: int, dropped: int = 0) -> None:
    """Note live frames."""
    for number in range(labelled + dropped):
        one = result(number, [])
        admission.note(one if number < labelled else msgspec.structs.replace(one, outcome="dropped", reason="stale"))


def may_begin(admission: Admission, cost_s: float = 0.0) -> bool:
    with admission.turn(0) as turn:
        if turn is not None:
            turn.cost_s = cost_s
        return turn is not None


def test_without_live_frames_several_pictures_are_labelled_at_a_time(admission: Admission) -> None:
    with admission.turn(0) as first, admission.turn(0) as second, admission.turn(0) as third:
        begun = [turn is not None for turn in (first, second, third)]

    assert begun == [True, True, False]
    assert may_begin(admission)


def test_fewer_pictures_are_taken_beside_live_frames(clock: Monotonic) -> None:
    admission = Admission(4, clock)

    with contextlib.ExitStack() as stack:
        without = [stack.enter_context(admission.slot()) for _ in range(5)]
    live(admission, 60)
    with contextlib.ExitStack() as stack:
        beside = [stack.enter_context(admission.slot()) for _ in range(5)]

    assert without == [True, True, True, True, False]
    assert beside == [True, True, False, False, False]


def test_beside_live_frames_one_picture_is_labelled_at_a_time(admission: Admission, clock: Monotonic) -> None:
    live(admission, 60)

    with admission.turn(0) as first, admission.turn(0) as second:
        begun = [turn is not None for turn in (first, second)]
    again = may_begin(admission, cost_s=0.5), may_begin(admission)

    assert begun == [True, False]
    assert again == (True, True)


def test_while_live_frames_are_dropped_pictures_take_a_small_share_of_a_core(
    admission: Admission, clock: Monotonic
) -> None:
    live(admission, 60, dropped=1)
    begun_at = []

    while clock.at < 160:
        live(admission, 60, dropped=1)
        if may_begin(admission, cost_s=0.1):
            begun_at.append(clock.at)
        clock.at += 0.1

    share = len(begun_at) * 0.1 / 60
    assert 0.8 * PRESSED_SHARE <= share <= 1.1 * PRESSED_SHARE


def test_pictures_are_free_again_when_no_live_frame_was_dropped_for_a_while(
    admission: Admission, clock: Monotonic
) -> None:
    live(admission, 60, dropped=1)
    may_begin(admission, cost_s=1.0)
    pressed = may_begin(admission)

    clock.at += WINDOW_S + 0.1
    live(admission, 60)

    assert not pressed
    assert may_begin(admission)


def test_a_picture_that_waits_begins_when_the_one_before_it_has_ended() -> None:
    admission, began, waited = Admission(1), threading.Event(), threading.Event()

    def wait() -> None:
        began.set()
        with admission.turn(30) as turn:
            assert turn is not None
            waited.set()

    thread = threading.Thread(target=wait)
    with admission.turn(0):
        thread.start()
        began.wait(10)
        begun_early = waited.is_set()
    wait_until(waited.is_set, 10, "the picture begins")
    thread.join()

    assert not begun_early


def test_programs_that_come_in_vain_are_spread_over_time(admission: Admission, clock: Monotonic) -> None:
    pauses_s = [admission.retry_after_s() for _ in range(100)]
    clock.at += 1_000
    later = admission.retry_after_s()

    assert pauses_s[0] == later == 1
    assert pauses_s == sorted(pauses_s)
    assert pauses_s[-1] == pytest.approx(100 / REJECTED_PER_S, abs=1)
    assert max(admission.retry_after_s() for _ in range(1_000)) == MAX_RETRY_AFTER_S
