"""The order in which a camera's frames are shown."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.bus.messages import FrameResult, frame_id
from pipeline.bus.status import UNLABELLED_S
from viewer.joiner import MAX_UNLABELLED_S, PRODUCER_TIMEOUT_S, WAIT_S, Joiner

START = 1_000


def result(seq: int, outcome: Literal["labelled", "dropped"] = "labelled", start: int = START) -> FrameResult:
    return FrameResult(
        frame_id=frame_id("demo", start, seq),
        camera="demo",
        start=start,
        seq=seq,
        width=640,
        height=360,
        pixels_key=f"{{s0}}:pixels:demo:{start}:{seq}",
        captured_at=float(seq),
        deadline_at=None,
        outcome=outcome,
        reason=None if outcome == "labelled" else "stale",
    )


def seqs(results: list[FrameResult]) -> list[int]:
    return [one.seq for one in results]


def test_results_that_come_in_order_are_shown_at_once() -> None:
    joiner = Joiner(0.0)

    for seq in (5, 6, 7):
        joiner.add(result(seq), 0.0)

    assert seqs(joiner.take(0.0)) == [5, 6, 7]


def test_a_result_that_overtook_another_waits_for_it() -> None:
    joiner = Joiner(0.0)
    joiner.add(result(1), 0.0)
    joiner.add(result(3), 0.0)

    before = seqs(joiner.take(0.01))
    joiner.add(result(2), 0.02)
    after = seqs(joiner.take(0.02))

    assert (before, after) == ([1], [2, 3])


def test_a_wait_ends_after_50_milliseconds() -> None:
    joiner = Joiner(0.0)
    joiner.add(result(1), 0.0)
    joiner.add(result(3), 0.0)
    joiner.take(0.0)

    due = joiner.due_s()
    early, late = seqs(joiner.take(WAIT_S - 0.001)), seqs(joiner.take(WAIT_S))

    assert due == WAIT_S == 0.05
    assert (early, late) == ([], [3])


def test_a_frame_that_is_known_to_be_dropped_is_not_waited_for() -> None:
    joiner = Joiner(0.0)
    joiner.add(result(1), 0.0)
    joiner.add(result(2, "dropped"), 0.0)
    joiner.add(result(3, "dead"), 0.0)

    joiner.add(result(4), 0.0)

    assert seqs(joiner.take(0.0)) == [1, 4]


def test_a_late_result_is_discarded() -> None:
    joiner = Joiner(0.0)
    joiner.add(result(1), 0.0)
    joiner.add(result(3), 0.0)
    joiner.take(WAIT_S)

    joiner.add(result(2), 0.06)

    assert joiner.take(1.0) == []


def test_a_second_result_for_a_frame_changes_nothing() -> None:
    joiner = Joiner(0.0)
    joiner.add(result(1), 0.0)
    joiner.take(0.0)

    joiner.add(result(1), 0.0)

    assert joiner.take(1.0) == []


def test_a_restarted_camera_is_followed_from_its_first_frame() -> None:
    joiner = Joiner(0.0)
    joiner.add(result(700), 0.0)
    joiner.add(result(702), 0.0)

    joiner.add(result(1, start=START + 1), 0.01)
    joiner.add(result(703), 0.02)

    assert seqs(joiner.take(0.02)) == [700, 702, 1]


def test_a_start_from_the_future_holds_a_camera_for_two_seconds_only() -> None:
    joiner = Joiner(0.0)
    joiner.add(result(7, start=10**15), 0.0)
    joiner.take(0.0)

    joiner.add(result(1), PRODUCER_TIMEOUT_S)
    early = seqs(joiner.take(PRODUCER_TIMEOUT_S))
    joiner.add(result(2), PRODUCER_TIMEOUT_S + 0.1)
    late = seqs(joiner.take(PRODUCER_TIMEOUT_S + 0.1))

    assert (early, late) == ([], [2])


def test_a_start_from_the_future_holds_unlabelled_frames_for_two_seconds_only() -> None:
    joiner = Joiner(0.0)
    joiner.show_newest(10**15, 7, 0.0)

    shown = [
        joiner.show_newest(START, seq, at_s)
        for seq, at_s in ((1, 1.0), (2, PRODUCER_TIMEOUT_S), (3, PRODUCER_TIMEOUT_S + 0.1))
    ]

    assert shown == [False, False, True]


def test_a_producer_that_goes_on_does_not_give_way_to_one_before() -> None:
    joiner = Joiner(0.0)
    for second in range(5):
        joiner.add(result(second, start=START + 1), float(second))

    joiner.add(result(9), 5.0)

    assert 9 not in seqs(joiner.take(6.0))


def test_the_newest_frame_is_wanted_after_a_second_without_labels() -> None:
    joiner = Joiner(0.0)
    for tenth in range(10):
        joiner.add(result(tenth), tenth / 10)

    assert not joiner.wants_newest(0.9 + UNLABELLED_S)
    assert joiner.wants_newest(0.91 + UNLABELLED_S)


def test_workers_that_are_slow_but_alive_are_given_longer() -> None:
    joiner = Joiner(0.0)

    for seq in range(4):
        joiner.add(result(seq), 1.5 * seq)

    assert not joiner.wants_newest(4.5 + 2.9)
    assert joiner.wants_newest(4.5 + MAX_UNLABELLED_S)


def test_an_unlabelled_frame_is_shown_once_and_only_forwards() -> None:
    joiner = Joiner(0.0)
    joiner.add(result(5), 0.0)
    joiner.take(0.0)

    shown = [joiner.show_newest(START, seq, 0.0) for seq in (5, 8, 8, 7, 9)]

    assert shown == [False, True, False, False, True]


def test_labels_may_still_come_for_an_unlabelled_frame_but_not_for_one_before() -> None:
    joiner = Joiner(0.0)
    joiner.show_newest(START, 8, 0.0)

    for seq in (7, 8, 9):
        joiner.add(result(seq), 2.0)

    assert seqs(joiner.take(2.0)) == [8, 9]


arrivals = st.lists(
    st.tuples(
        st.integers(1, 3),  # start
        st.integers(0, 30),  # seq
        st.sampled_from(["labelled", "dropped", "dead"]),
        st.one_of(st.floats(0, 0.2), st.just(1.5)),  # seconds since the one before
        st.booleans(),  # the newest frame is shown unlabelled just before
    ),
    max_size=60,
)


# The higher start is followed, falls silent and gives way, and is followed again.
RETURNING = [
    (1, 14, "dead", 1.5, False),
    (1, 13, "labelled", 1.5, False),
    (2, 24, "labelled", 1.5, True),
    (1, 8, "dropped", 1.5, True),
    (1, 23, "dropped", 0.0, False),
    (1, 24, "dropped", 1.5, False),
    (1, 0, "labelled", 1.5, False),
    (1, 0, "labelled", 1.5, True),
    (2, 0, "labelled", 1.5, False),
]


@given(arrivals)
@example(RETURNING)
def test_whatever_comes_frames_never_go_backwards_and_none_is_held_longer_than_the_wait(
    coming: list[tuple[int, int, str, float, bool]],
) -> None:
    joiner, now = Joiner(0.0), 0.0
    shown: list[tuple[int, int, bool]] = []  # start, seq, with labels
    labelled: set[tuple[int, int]] = set()
    came_s: dict[int, float] = {}  # by start
    may_follow: set[int] = set()  # starts that came while a later one was silent

    def show(results: list[FrameResult]) -> None:
        shown.extend((one.start, one.seq, True) for one in results)

    for start, seq, outcome, gap_s, newest in coming:
        now += gap_s
        show(joiner.take(now))
        if any(now - at_s > PRODUCER_TIMEOUT_S for other, at_s in came_s.items() if other > start):
            may_follow.add(start)
        if newest and joiner.show_newest(start, seq, now):
            shown.append((start, seq, False))
        joiner.add(result(seq, outcome, start), now)
        came_s[start] = now
        labelled |= {(start, seq)} if outcome == "labelled" else set()
        show(joiner.take(now))
    show(joiner.take(now + WAIT_S))

    for before, after in pairwise(shown):
        assert before < after or (after[0] < before[0] and after[0] in may_follow)
    assert {(start, seq) for start, seq, with_labels in shown if with_labels} <= labelled
    assert joiner.due_s() is None


@given(st.permutations(range(8)))
def test_results_that_come_within_the_wait_are_all_shown_in_order(order: list[int]) -> None:
    joiner = Joiner(0.0)
    joiner.add(result(100), 0.0)

    for seq in order:
        joiner.add(result(101 + seq), 0.01)

    assert seqs(joiner.take(0.01)) == list(range(100, 109))
