"""A camera's state follows from facts, and the clock is Redis'."""

from __future__ import annotations

import socket
import time
from typing import cast

import pytest
import redis
from click.testing import CliRunner
from conftest import Server, wait_until
from feeding import alive

from commands.status import health
from pipeline.bus import keys
from pipeline.bus.clock import Clock
from pipeline.bus.connection import Redis, hide_password
from pipeline.bus.status import STREAMS, Ledger, State, camera_state, read_heartbeats, read_status, status_table
from pipeline.runtime.slow_rate import SlowRate
from pipeline.runtime.worker_context import WorkerContext


@pytest.mark.parametrize(
    ("age_s", "labelled_age_s", "held", "connected", "fps", "state"),
    [
        (0.05, 0.1, True, True, 20.0, "live"),
        (0.05, 1.5, True, True, 20.0, "unlabelled"),
        (0.05, None, True, True, 20.0, "unlabelled"),
        (3.0, 3.0, True, True, 0.0, "stale"),
        (6.0, None, True, True, 0.0, "offline"),
        (0.05, 0.1, False, True, 20.0, "offline"),
        (0.05, 0.1, True, False, 20.0, "offline"),
        (None, None, True, True, 0.0, "offline"),
        (6.0, 6.0, True, True, 0.2, "live"),
        (20.0, 20.0, True, True, 0.2, "unlabelled"),  # it says that it publishes: what Redis holds of it is at fault
        (6.0, None, True, True, 20.0, "unlabelled"),
        (None, None, True, True, 20.0, "unlabelled"),
        (6.0, None, False, True, 20.0, "offline"),
        (None, None, True, False, 20.0, "offline"),
    ],
)
def test_a_cameras_state(
    age_s: float | None, labelled_age_s: float | None, held: bool, connected: bool, fps: float, state: State
) -> None:
    found = camera_state(age_s, labelled_age_s, held=held, connected=connected, fps=fps)

    assert found == state


def test_what_happens_every_five_seconds_has_a_rate_until_it_ceases() -> None:
    slow = SlowRate()

    for second in (0.0, 5.0, 10.0):
        slow.note(second)

    assert [slow.get(second) for second in (10.1, 14.0, 24.9, 25.1)] == [0.2, 0.2, 0.2, None]


def test_what_happens_often_or_once_has_no_slow_rate() -> None:
    often, once = SlowRate(), SlowRate()

    for number in range(100):
        often.note(number / 20)
    once.note(0.0)

    assert (often.get(5.0), once.get(1.0)) == (None, None)


def test_the_clock_takes_the_fastest_of_its_round_trips() -> None:
    class Times:
        """Answer TIME with 1000 s; the third round trip takes 2 ms, the others 20 ms."""

        calls = 0

        def execute_command(self, *_: object) -> tuple[int, int]:
            self.calls += 1
            return 1000, 0

    times = Times()
    ticks = iter([0.0, 0.0, 0.02, 0.04, 0.06, 0.1, 0.102, 0.12, 0.14, 0.16, 0.18, 0.18, 0.5, 3.101])
    clock = Clock(cast(Redis, times), monotonic=lambda: next(ticks))

    clock.measure()

    assert times.calls == 5
    assert clock.now() == pytest.approx(1000 + 3.101 - 0.101)


def test_the_clock_of_a_slow_network_is_measured_by_one_round_trip() -> None:
    asked = 0

    class SlowTime:
        def execute_command(self, *_: object) -> tuple[int, int]:
            nonlocal asked
            asked += 1
            return 1000, 0

    now = 0.0

    def monotonic() -> float:
        nonlocal now
        now += 0.4
        return now

    Clock(cast(Redis, SlowTime()), monotonic=monotonic).measure()

    assert asked == 1


def test_an_answer_with_another_time_makes_the_clock_measure_again(server: Server) -> None:
    suspended_s = 0.0
    clock = Clock(server.client, monotonic=lambda: time.monotonic() - suspended_s)
    clock.now()

    suspended_s = 30.0  # of which the monotonic clock knows nothing
    clock.compare(clock.monotonic(), server.client.time())

    assert abs(clock.now() - server.clock.now()) < 1


def test_a_dead_process_is_not_live_after_redis_clock_was_set_back(server: Server) -> None:
    with alive(server, "detector"):
        wait_until(lambda: len(read_heartbeats(server.client)) == 1, 5, "it lives")
        (name,) = cast(list[bytes], server.client.zrange(keys.PROCESSES, 0, -1))
        packed = cast(bytes, server.client.get(b"{all}:heartbeat:" + name))
        server.client.set("{all}:heartbeat:dead", packed, ex=3600)
        server.client.zadd(keys.PROCESSES, {"dead": server.clock.now() + 3600})

        found = read_heartbeats(server.client)

    assert [beat.id for beat in found] == [name.decode()]


def test_the_clock_measures_again_when_redis_was_away(server: Server) -> None:
    context = WorkerContext("camera", server.url)
    with context.reconnecting():
        context.clock.now()
    moved = context.clock.monotonic
    with context.reconnecting():
        raise redis.ConnectionError("gone")
    context.clock.monotonic = lambda: moved() - 30

    with context.reconnecting():
        context.client.ping()

    assert abs(context.clock.now() - server.clock.now()) < 1
    context.client.close()


def test_an_empty_redis_has_a_status(server: Server) -> None:
    status = read_status(server.bus)

    assert status.cameras == status.processes == []
    assert status.streams["frames"].length == 0
    assert "no classifier is live" in status_table(status)


def test_the_table_s_columns_are_as_wide_as_the_longest_name_of_a_stream(server: Server) -> None:
    lines = status_table(read_status(server.bus)).splitlines()

    streams = lines[next(number for number, line in enumerate(lines) if line.startswith("STREAM")) :]
    assert len(streams) == 1 + len(STREAMS)
    assert len({len(line) for line in streams}) == 1


def test_a_host_is_not_healthy_because_one_with_a_longer_name_is(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for host, status in (("gpu-1", 0), ("gpu", 1)):
        with alive(server, "detector"):
            monkeypatch.setattr(socket, "gethostname", lambda: "gpu-1")
            wait_until(lambda: {beat.host for beat in read_heartbeats(server.client)} == {"gpu-1"}, 5, "it is there")
            monkeypatch.setattr(socket, "gethostname", lambda host=host: host)

            assert CliRunner().invoke(health, ["detector", "--redis", server.url]).exit_code == status


def test_an_invalid_heartbeat_or_result_breaks_no_status(server: Server) -> None:
    server.client.zadd(keys.PROCESSES, {"x": 1})
    server.client.set("{all}:heartbeat:x", b"junk")
    server.client.xadd("{s0}:results", {"record": b"junk"})

    status = read_status(server.bus)

    assert status.processes == []


def test_an_invalid_camera_name_is_skipped(server: Server) -> None:
    server.client.zadd("{s0}:cameras", {b"\xff\xfe": 1, "<img>": 1, "door": 1})

    status = read_status(server.bus)

    assert [camera.name for camera in status.cameras] == ["door"]


@pytest.mark.parametrize("captured_at", ["abc", "nan", "inf", b"\xff", ""])
def test_an_invalid_time_counts_as_missing(server: Server, captured_at: str) -> None:
    server.client.zadd("{s0}:cameras", {"gone": 1})
    server.client.hset("{s0}:newest:frames:gone", "captured_at", captured_at)

    (camera,) = read_status(server.bus).cameras

    assert (camera.state, camera.newest_at) == ("offline", None)


def test_a_newest_frame_of_another_type_counts_as_missing(server: Server) -> None:
    server.client.zadd("{s0}:cameras", {"gone": 1})
    server.client.set("{s0}:newest:frames:gone", "text")

    (camera,) = read_status(server.bus).cameras

    assert camera.newest_at is None


@pytest.mark.parametrize("count", ["abc", "-3", "1.5", b"\xff", "9" * 5000])
def test_a_count_that_is_no_number_is_zero(server: Server, count: str) -> None:
    server.client.zadd("{s0}:cameras", {"door": 1})
    server.client.hset("{s0}:ledger:door", mapping={"produced": count, "labelled": 2, "dropped:stale": count})

    (camera,) = read_status(server.bus).cameras

    assert camera.ledger == Ledger(labelled=2, dropped={"stale": 0})


def test_passwords_are_hidden() -> None:
    assert hide_password("redis://user:secret@host:6379/0") == "redis://user:***@host:6379/0"
    assert hide_password("rtsp://host/stream") == "rtsp://host/stream"
