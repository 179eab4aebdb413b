"""A camera's state follows from facts, and the clock is Redis'."""

from __future__ import annotations

import pytest
from conftest import Server

from pipeline import messages
from pipeline.process import Clock, hide_password
from pipeline.status import State, camera_state, read, table


@pytest.mark.parametrize(
    ("age_s", "labelled_age_s", "held", "connected", "fps", "state"),
    [
        (0.05, 0.1, True, True, 20.0, "live"),
        (0.05, 1.5, True, True, 20.0, "unlabelled"),
        (0.05, None, True, True, 20.0, "unlabelled"),
        (3.0, 3.0, True, True, 20.0, "stale"),
        (6.0, None, True, True, 20.0, "offline"),
        (0.05, 0.1, False, True, 20.0, "offline"),
        (0.05, 0.1, True, False, 20.0, "offline"),
        (None, None, True, True, 0.0, "offline"),
        (6.0, 6.0, True, True, 0.2, "live"),
        (20.0, 20.0, True, True, 0.2, "stale"),
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
    clock = Clock(times, monotonic=lambda: next(ticks))  # type: ignore[arg-type]

    clock.measure()

    assert times.calls == 5
    assert clock.now() == pytest.approx(1000 + 5.001 - 2.001)


def test_an_empty_redis_has_a_status(server: Server) -> None:
    status = read(server.client, server.clock)

    assert status.cameras == status.processes == []
    assert status.streams[messages.FRAMES].length == 0
    assert "no classifier is live" in table(status)


def test_a_wrong_heartbeat_or_result_breaks_no_status(server: Server) -> None:
    server.client.zadd(messages.PROCESSES, {"x": 1})
    server.client.set("heartbeat:x", b"junk")
    server.client.xadd(messages.RESULTS, {"record": b"junk"})

    status = read(server.client, server.clock)

    assert status.processes == []


def test_passwords_are_hidden() -> None:
    assert hide_password("redis://user:secret@host:6379/0") == "redis://user:***@host:6379/0"
    assert hide_password("rtsp://host/stream") == "rtsp://host/stream"
