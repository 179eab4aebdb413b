"""How many workers run: more when all are busy, fewer when the others could do the work."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import hypothesis.strategies as st
import msgspec
import pytest
from conftest import Server, missing, wait_until
from hypothesis import given
from processes import Processes, live, processes

from pipeline.bus.messages import Heartbeat
from pipeline.bus.status import read_heartbeats
from pipeline.runtime.children import Children
from pipeline.runtime.cores import available_cores
from pipeline.runtime.worker_pool import GROW_S, SHRINK_S, Scaler, WorkerPool

__all__ = ["processes"]


def test_a_worker_is_added_once_all_have_been_busy_for_a_while() -> None:
    scaler = Scaler()

    wanted = [scaler.wanted(at_s, busy=[0.9], max_workers=4) for at_s in (10.0, 11.0, 10.0 + GROW_S)]

    assert wanted == [1, 1, 2]
    assert scaler.wanted(13.0, busy=[0.9, 0.8], max_workers=4) == 2
    assert scaler.wanted(13.0 + GROW_S, busy=[0.9, 0.8], max_workers=4) == 3


def test_what_was_seen_before_a_gap_does_not_count() -> None:
    scaler = Scaler()

    wanted = [scaler.wanted(at_s, busy=[1.0], max_workers=4) for at_s in (0.0, 100.0, 101.0, 102.0)]

    assert wanted == [1, 1, 1, 2]


def test_a_moment_without_work_starts_the_wait_again() -> None:
    scaler = Scaler()

    scaler.wanted(10.0, busy=[1.0], max_workers=4)
    scaler.wanted(11.0, busy=[0.5], max_workers=4)

    assert scaler.wanted(12.5, busy=[1.0], max_workers=4) == 1


def test_there_are_never_more_workers_than_cores() -> None:
    scaler = Scaler()

    wanted = [scaler.wanted(float(at_s), busy=[1.0, 1.0], max_workers=2) for at_s in range(1, 200)]

    assert set(wanted) == {2}


def test_a_worker_is_stopped_once_the_others_could_have_done_its_work_for_five_minutes() -> None:
    scaler = Scaler()

    wanted = [scaler.wanted(float(at_s), busy=[0.3, 0.2], max_workers=4) for at_s in range(int(SHRINK_S) + 1)]

    assert wanted == [2] * int(SHRINK_S) + [1]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(1, 8))
def test_one_worker_more_or_less_at_a_time_and_always_one(busy: list[float], max_workers: int) -> None:
    scaler = Scaler()

    wanted = {scaler.wanted(1.0 + at_s, busy, max_workers) for at_s in range(130)}

    assert all(abs(count - len(busy)) <= 1 and count >= 1 for count in wanted)
    assert max(wanted) <= max(len(busy), max_workers)


def test_a_stopped_worker_leaves_and_is_not_restarted(server: Server) -> None:
    with Children() as children:
        children.start("detect", environment={"MASKWATCH_REDIS_URL": server.url, "MASKWATCH_LOG_LEVEL": "warning"})
        (kept,) = children.pids("detect")
        children.start_another("detect")
        wait_until(lambda: live(server, "detector", 2), 30, "two detectors")

        pool = WorkerPool(children, "detector")
        for at_s in range(1, int(SHRINK_S) + 2):
            if len(children.pids("detect")) == 2:
                pool.adjust(read_heartbeats(server.client), float(at_s), max_workers=2)

        def one_is_left() -> bool:
            children.supervise()
            return [beat.pid for beat in read_heartbeats(server.client)] == [kept]

        wait_until(one_is_left, 10, "one detector is left")
        assert children.pids("detect") == {kept}


def test_one_more_worker_that_cannot_start_ends_nothing(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    environment = {"MASKWATCH_REDIS_URL": server.url, "MASKWATCH_LOG_LEVEL": "warning"}
    beat = Heartbeat(role="detector", id="x", host=socket.gethostname(), pid=0, started_at=0, beat_at=0, busy=1.0)
    with Children() as children:
        children.start("detect", environment=environment | {"MASKWATCH_MODELS": str(tmp_path / "models")})
        (pid,) = children.pids("detect")
        os.kill(pid, signal.SIGSTOP)  # the first one, which runs, finds its models; those that start later do not
        pool, beats = WorkerPool(children, "detector"), [msgspec.structs.replace(beat, pid=pid)]
        for at_s in range(1, 5):
            pool.adjust(beats, float(at_s), max_workers=2)
        assert len(children.pids("detect")) == 2

        def it_is_left_out() -> bool:
            children.supervise()
            return children.pids("detect") == {pid}

        wait_until(it_is_left_out, 20, "the second one is left out")
        for at_s in range(5, 60):
            pool.adjust(beats, float(at_s), max_workers=2)

        assert children.pids("detect") == {pid}
    assert "one more detect cannot start" in caplog.text


def test_up_starts_workers_while_all_are_busy(server: Server, processes: Processes) -> None:
    if available_cores() < 2:
        missing("up starts a second worker of a kind only where there are two cores")
    cameras = [word for name in ("a", "b") for word in ("--camera", f"{name}=demo")]

    slow = ("--detector-px", "1920")  # so that detectors have more to do than cameras
    processes.start("up", *cameras, *slow, "--port", "0", redis=server)

    wait_until(lambda: live(server, "detector", 2), 90, "a second detector")
    assert len({beat.pid for beat in read_heartbeats(server.client) if beat.role == "detector"}) >= 2
