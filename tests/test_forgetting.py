"""A camera that is out of use is forgotten: its events end, and it is not listed until it comes back."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import Server, wait_until
from event_scenes import Person, scene
from feeding import Feed
from processes import Processes, processes
from test_recorder import append, rows, start

from commands.forget import forget
from pipeline.bus.forgetting import CannotForget, forget_camera, read_forgotten
from pipeline.bus.result_consumer import MAX_RESULTS
from pipeline.bus.status import read_heartbeats, read_status

__all__ = ["processes"]

RULES = "[[rules]]\nkind = 'camera_offline'\nname = 'offline'\nseconds = 1\n"


def listed(server: Server) -> list[str]:
    return [camera.name for camera in read_status(server.bus).cameras]


def left(server: Server) -> list[str]:
    """Return what is kept of a camera."""
    return sorted(key.decode() for key in server.client.scan_iter() if b"yard" in key)


def published(server: Server) -> Feed:
    """Return a camera with a labelled frame and one that waits, whose producer has ended."""
    feed = Feed(server, "yard")
    feed.publish()
    feed.label()
    feed.publish()
    server.client.delete(server.bus.shard_of("yard").key("lease", "yard"))
    return feed


def is_active(server: Server) -> bool:
    """Return whether a recorder is active."""
    return any(beat.state == "active" for beat in read_heartbeats(server.client))


def is_remembered(database: Path, camera: str) -> bool:
    """Return whether a recorder would continue with what it has seen of a camera."""
    with sqlite3.connect(database) as connection:
        found = connection.execute("SELECT camera FROM camera_states WHERE camera = ?", [camera]).fetchone()
    return found is not None


def test_a_camera_that_is_forgotten_leaves_nothing_but_its_pixels_that_expire(server: Server) -> None:
    published(server)
    before = listed(server)

    result = CliRunner().invoke(forget, ["yard", "--redis", server.url])

    assert (result.exit_code, result.output) == (0, "yard is forgotten\n")
    assert (before, listed(server)) == (["yard"], [])
    assert all(":pixels:" in key or ":crops:" in key for key in left(server))
    assert read_forgotten(server.bus).keys() == {"yard"}


def test_a_frame_that_a_worker_still_holds_is_settled_and_counts_nowhere(server: Server) -> None:
    feed = published(server)
    entry = feed.take()
    forget_camera(server.bus, "yard")

    feed.finish(entry)

    assert server.client.xlen("{s0}:results") == 2
    assert [key for key in left(server) if ":ledger:" in key] == []
    assert listed(server) == []


def test_a_camera_that_comes_back_is_listed_anew(server: Server) -> None:
    published(server)
    forget_camera(server.bus, "yard")

    Feed(server, "yard").publish()

    assert listed(server) == ["yard"]
    (camera,) = read_status(server.bus).cameras
    assert (camera.ledger.produced, camera.ledger.in_flight) == (1, 1)


@pytest.mark.parametrize("name", ["gate", "file-1", "no name", "\n", "\udcff"])
def test_what_is_no_camera_cannot_be_forgotten(server: Server, name: str) -> None:
    with pytest.raises(CannotForget, match=r"there is no camera|file-1 is no camera but files"):
        forget_camera(server.bus, name)


def test_a_camera_that_runs_cannot_be_forgotten(server: Server) -> None:
    Feed(server, "yard").publish()

    with pytest.raises(CannotForget, match="camera yard runs: stop it first"):
        forget_camera(server.bus, "yard")

    assert listed(server) == ["yard"]


def test_the_events_of_a_forgotten_camera_end_and_those_of_one_lost_with_redis_do_not(
    server: Server, processes: Processes, tmp_path: Path
) -> None:
    database, rules = tmp_path / "events.db", tmp_path / "rules.toml"
    rules.write_text(RULES)

    def events() -> list[tuple[str, bool]]:
        with sqlite3.connect(database) as connection:
            return connection.execute("SELECT camera, ended_at IS NULL FROM events ORDER BY camera").fetchall()

    def states() -> list[str]:
        with sqlite3.connect(database) as connection:
            return [name for (name,) in connection.execute("SELECT camera FROM camera_states ORDER BY camera")]

    processes.start("record", "--rules", rules, "--database", f"sqlite:///{database}", redis=server)
    wait_until(lambda: is_active(server), 30, "it is active")
    for name in ("yard", "door"):
        Feed(server, name).publish()
    wait_until(lambda: events() == [("door", 1), ("yard", 1)], 30, "both are offline")

    server.client.zrem("{s0}:cameras", "door")
    forget_camera(server.bus, "yard")
    wait_until(lambda: events() == [("door", 1), ("yard", 0)], 20, "the event of the yard ends")

    assert states() == ["door"]


def test_an_event_ends_when_its_camera_was_forgotten_although_no_recorder_was_there(
    server: Server, processes: Processes, tmp_path: Path
) -> None:
    database = tmp_path / "events.db"

    def ends() -> list[float | None]:
        with sqlite3.connect(database) as connection:
            return [end for (end,) in connection.execute("SELECT ended_at FROM events")]

    recorder = start(processes, server, database, RULES)
    wait_until(lambda: is_active(server), 30, "it is active")
    Feed(server, "yard").publish()
    wait_until(lambda: ends() == [None], 30, "it is offline")
    recorder.terminate()
    recorder.wait(10)
    server.client.delete("{s0}:lease:yard")
    forget_camera(server.bus, "yard")

    start(processes, server, database, RULES)
    wait_until(lambda: ends() != [None], 30, "the event has ended")

    assert ends() == [read_forgotten(server.bus)["yard"]]


def test_an_event_of_a_forgotten_camera_is_whole_although_no_recorder_had_read_it_before(
    server: Server, processes: Processes, tmp_path: Path
) -> None:
    database, last = tmp_path / "events.db", pytest.approx(59.9)
    results = scene([Person(1, 0, 60, bare=[(0, 60)])], 60, camera="yard")
    assert len(results) > 2 * MAX_RESULTS
    recorder = start(processes, server, database)
    wait_until(lambda: is_active(server), 30, "it is active")
    recorder.terminate()
    recorder.wait(10)
    for one in results:
        append(server, one)
    server.client.zadd("{s0}:cameras", {"yard": server.clock.now()})
    forget_camera(server.bus, "yard")

    start(processes, server, database)
    wait_until(lambda: any(end == last for *_, end in rows(database)), 30, "the last event ends")

    assert rows(database) == [("bare", 0.0, last)]
    assert not is_remembered(database, "yard")
