"""A camera's state follows from facts, and the clock is Redis'."""

from __future__ import annotations

from typing import cast

import pytest
from conftest import Server

from pipeline.bus import messages
from pipeline.bus.clock import Clock
from pipeline.bus.connection import Redis, hide_password
from pipeline.bus.status import Ledger, State, camera_state, read_status, status_table


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


def test_the_clock_takes_the_fastest_of_its_round_trips() -> None:
    class Times:
        """Answer TIME with 1000 s; the third round trip takes 2 ms, the others 100 ms."""

        calls = 0

        def time(self) -> tuple[int, int]:
            self.calls += 1
            return 1000, 0

    times = Times()
    ticks = iter([0.0, 0.1, 1.0, 1.1, 2.0, 2.002, 3.0, 3.1, 4.0, 4.1, 4.1, 4.5, 5.001])
    clock = Clock(cast(Redis, times), monotonic=lambda: next(ticks))

    clock.measure()

    assert times.calls == 5
    assert clock.now() == pytest.approx(1000 + 5.001 - 2.001)


def test_an_empty_redis_has_a_status(server: Server) -> None:
    status = read_status(server.client, server.clock)

    assert status.cameras == status.processes == []
    assert status.streams[messages.FRAMES].length == 0
    assert "no classifier is live" in status_table(status)


def test_an_invalid_heartbeat_or_result_breaks_no_status(server: Server) -> None:
    server.client.zadd(messages.PROCESSES, {"x": 1})
    server.client.set("heartbeat:x", b"junk")
    server.client.xadd(messages.RESULTS, {"record": b"junk"})

    status = read_status(server.client, server.clock)

    assert status.processes == []


def test_an_invalid_camera_name_is_skipped(server: Server) -> None:
    server.client.zadd(messages.CAMERAS, {b"\xff\xfe": 1, "<img>": 1, "door": 1})

    status = read_status(server.client, server.clock)

    assert [camera.name for camera in status.cameras] == ["door"]


@pytest.mark.parametrize("captured_at", ["abc", "nan", "inf", b"\xff", ""])
def test_an_invalid_time_counts_as_missing(server: Server, captured_at: str) -> None:
    server.client.zadd(messages.CAMERAS, {"gone": 1})
    server.client.hset("newest:frames:gone", "captured_at", captured_at)

    (camera,) = read_status(server.client, server.clock).cameras

    assert (camera.state, camera.newest_at) == ("offline", None)


def test_a_newest_frame_of_another_type_counts_as_missing(server: Server) -> None:
    server.client.zadd(messages.CAMERAS, {"gone": 1})
    server.client.set("newest:frames:gone", "text")

    (camera,) = read_status(server.client, server.clock).cameras

    assert camera.newest_at is None


@pytest.mark.parametrize("count", ["abc", "-3", "1.5", b"\xff", "9" * 5000])
def test_a_count_that_is_no_number_is_zero(server: Server, count: str) -> None:
    server.client.zadd(messages.CAMERAS, {"door": 1})
    server.client.hset("ledger:door", mapping={"produced": count, "labelled": 2, "dropped:stale": count})

    (camera,) = read_status(server.client, server.clock).cameras

    assert camera.ledger == Ledger(labelled=2, dropped={"stale": 0})


def test_passwords_are_hidden() -> None:
    assert hide_password("redis://user:secret@host:6379/0") == "redis://user:***@host:6379/0"
    assert hide_password("rtsp://host/stream") == "rtsp://host/stream"
