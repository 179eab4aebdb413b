"""How many workers run: more when all are busy, fewer when the others could do the work."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from conftest import Server, wait_until
from hypothesis import given
from processes import Processes, live, processes

from pipeline.bus.status import read_heartbeats
from pipeline.runtime.children import Children
from pipeline.runtime.cores import available_cores
from pipeline.runtime.worker_pool import GROW_S, SHRINK_S, Scaler, WorkerPool

__all__ = ["processes"]


def test_a_worker_is_added_once_all_have_been_busy_for_a_while() -> None:
    scaler = Scaler()

    wanted = [scaler.wanted(at_s, busy=[0.9], most=4) for at_s in (10.0, 11.0, 10.0 + GROW_S)]

    assert wanted == [1, 1, 2]
    assert scaler.wanted(13.0, busy=[0.9, 0.8], most=4) == 2
    assert scaler.wanted(13.0 + GROW_S, busy=[0.9, 0.8], most=4) == 3


def test_a_moment_without_work_starts_the_wait_again() -> None:
    scaler = Scaler()

    scaler.wanted(10.0, busy=[1.0], most=4)
    scaler.wanted(11.0, busy=[0.5], most=4)

    assert scaler.wanted(12.5, busy=[1.0], most=4) == 1


def test_there_are_never_more_workers_than_cores() -> None:
    scaler = Scaler()

    wanted = [scaler.wanted(float(at_s), busy=[1.0, 1.0], most=2) for at_s in range(1, 200)]

    assert set(wanted) == {2}


def test_a_worker_is_stopped_once_the_others_could_have_done_its_work_for_a_minute() -> None:
    scaler = Scaler()

    wanted = [scaler.wanted(10.0 + at_s, busy=[0.3, 0.2], most=4) for at_s in (0.0, SHRINK_S - 1, SHRINK_S)]

    assert wanted == [2, 2, 1]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(1, 8))
def test_one_worker_more_or_less_at_a_time_and_always_one(busy: list[float], most: int) -> None:
    scaler = Scaler()

    wanted = {scaler.wanted(1.0 + at_s, busy, most) for at_s in range(130)}

    assert all(abs(count - len(busy)) <= 1 and count >= 1 for count in wanted)
    assert max(wanted) <= max(len(busy), most)


def test_a_stopped_worker_leaves_and_is_not_restarted(server: Server) -> None:
    with Children() as children:
        children.start("detect", environment={"MASKWATCH_REDIS_URL": server.url, "MASKWATCH_LOG_LEVEL": "warning"})
        (kept,) = children.pids("detect")
        children.start_another("detect")
        wait_until(lambda: live(server, "detector", 2), 30, "two detectors")

        pool = WorkerPool(children, "detect")
        for at_s in range(1, int(SHRINK_S) + 2):
            if len(children.pids("detect")) == 2:
                pool.adjust(read_heartbeats(server.client), float(at_s), most=2)

        def one_is_left() -> bool:
            children.supervise()
            return [beat.pid for beat in read_heartbeats(server.client)] == [kept]

        wait_until(one_is_left, 10, "one detector is left")
        assert children.pids("detect") == {kept}


@pytest.mark.skipif(available_cores() < 2, reason="with one core there is one worker of each kind")
def test_up_starts_workers_while_all_are_busy(server: Server, processes: Processes) -> None:
    cameras = [word for name in ("a", "b", "c") for word in ("--camera", f"{name}=demo")]

    processes.start("up", *cameras, "--fps", "120", "--relabel-s", "0", "--port", "0", redis=server)

    wait_until(lambda: live(server, "detector", 2), 90, "a second detector")
    assert len({beat.pid for beat in read_heartbeats(server.client) if beat.role == "detector"}) >= 2
