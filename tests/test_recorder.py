"""Recorders as processes: killed at any moment they lose and double nothing; what is away is waited for."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Server, wait_until
from event_scenes import BEGIN, Person, scene
from processes import Process, Processes, processes

from pipeline.bus import messages
from pipeline.bus.keys import SHARDS
from pipeline.bus.messages import FrameResult
from pipeline.bus.status import read_heartbeats

__all__ = ["processes"]

RULES = """
[[rules]]
kind = "no_mask"
name = "bare"
seconds = 2
[[rules]]
kind = "people_without_mask"
name = "two"
people = 2
"""
# Of whom which rule has an event, with begin and end in seconds of the scene.
PEOPLE = [
    Person(1, 0, 55, bare=[(0, 10), (15, 16), (20, 30), (35, 50)]),
    Person(4, 5, 58, bare=[(8, 9), (22, 40)]),
    Person(7, 32, 33, bare=[(32, 33)]),
]
SCENE_S = 60
EXPECTED = [
    *[("bare", 0, 10), ("bare", 20, 30), ("bare", 35, 50), ("bare", 22, 40)],
    *[("two", 8, 9), ("two", 22, 30), ("two", 32, 33), ("two", 35, 40)],
]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


def start(processes: Processes, server: Server, database: Path, rules: str = RULES) -> Process:
    file = database.with_name("rules.toml")
    file.write_text(rules)
    kept = ("--keep-days", 36_500)  # scenes are of 2023, which a recorder would remove
    return processes.start("record", "--rules", file, "--database", f"sqlite:///{database}", *kept, redis=server)


def states(server: Server) -> list[str]:
    """Return what live recorders report, sorted."""
    return sorted(beat.state for beat in read_heartbeats(server.client) if beat.role == "recorder")


def append(server: Server, result: FrameResult) -> None:
    """Add a result to its stream, as workers do."""
    fields = {"camera": result.camera, "record": messages.encode(result)}
    server.client.xadd(server.shard.key("results"), fields)  # type: ignore[arg-type]


@contextmanager
def appending(server: Server, results: Sequence[FrameResult], every_s: float) -> Iterator[threading.Thread]:
    """Add results one after the other in a thread."""
    ended = threading.Event()

    def feed() -> None:
        for result in results:
            append(server, result)
            if ended.wait(every_s):
                return

    thread = threading.Thread(target=feed)
    thread.start()
    yield thread
    ended.set()
    thread.join()


def rows(database: Path) -> list[tuple[str, float, float | None]]:
    """Return rule, begin and end of all events, in seconds of the scene."""
    with sqlite3.connect(database) as connection:
        found = connection.execute("SELECT rule, started_at, ended_at FROM events ORDER BY rule, started_at").fetchall()
    connection.close()
    return [(rule, begin - BEGIN, None if end is None else end - BEGIN) for rule, begin, end in found]


def value(database: Path, query: str) -> int:
    with sqlite3.connect(database) as connection:
        found = connection.execute(query).fetchone()[0] or 0
    connection.close()
    return found


def positions(database: Path) -> int:
    """Return of how many streams it is known where to continue."""
    return value(database, "SELECT count(*) FROM positions")


def is_recorded(database: Path) -> bool:
    """Return whether as many events as the scene has have ended."""
    return len([end for _, _, end in rows(database) if end is not None]) >= len(EXPECTED)


def check(found: Sequence[tuple[str, float, float | None]]) -> None:
    """Check that events are those of the scene, with times within half a second."""
    merged = sorted(EXPECTED)
    assert [rule for rule, _, _ in found] == [rule for rule, _, _ in merged], found
    for (_, begin, end), (_, expected_begin, expected_end) in zip(found, merged, strict=True):
        assert begin == pytest.approx(expected_begin, abs=0.5)
        assert end == pytest.approx(expected_end, abs=0.5)


def test_a_recorder_that_learns_of_more_shards_still_reads_results_together(
    server: Server, processes: Processes, database: Path
) -> None:
    def questions() -> int:
        return int(server.client.info("commandstats")["cmdstat_xread"]["calls"])

    start(processes, server, database)
    wait_until(lambda: states(server) == ["active"], 30, "it is active")
    server.client.set(SHARDS, 2)
    wait_until(lambda: positions(database) == 2, 10, "it reads both shards")
    results, before = scene(PEOPLE, 20), questions()

    with appending(server, results, 0.01):
        wait_until(lambda: value(database, "SELECT sum(frames) FROM counts") == len(results), 30, "all are counted")

    assert questions() - before < len(results) / 2


def test_one_recorder_is_active_and_the_next_takes_over_at_once_when_it_ends(
    server: Server, processes: Processes, database: Path
) -> None:
    first = start(processes, server, database)
    wait_until(lambda: states(server) == ["active"], 30, "the first is active")
    assert positions(database) == 1, "the next recorder would begin at what is newest then"
    start(processes, server, database)
    wait_until(lambda: len(states(server)) == 2 and states(server)[1].startswith("stands by"), 30, "one stands by")

    first.terminate()

    assert first.wait(10) == 0
    wait_until(lambda: states(server) == ["active"], 10, "the second is active")


def test_a_suspended_recorder_is_replaced_and_stands_by_when_it_goes_on(
    server: Server, processes: Processes, database: Path
) -> None:
    first = start(processes, server, database)
    wait_until(lambda: states(server) == ["active"], 30, "the first is active")

    first.send_signal(signal.SIGSTOP)
    start(processes, server, database)
    with appending(server, scene(PEOPLE, SCENE_S), every_s=0.01) as feeding:
        wait_until(lambda: "active" in states(server), 30, "another has taken over")
        feeding.join()
        first.send_signal(signal.SIGCONT)
        wait_until(lambda: [one[:9] for one in states(server)] == ["active", "stands by"], 30, "one is active")
        wait_until(lambda: is_recorded(database), 20, "all is recorded")

    check(rows(database))


def test_a_database_in_a_place_that_cannot_be_is_waited_for(
    server: Server, processes: Processes, tmp_path: Path
) -> None:
    (tmp_path / "folder").write_text("in the way")
    processes.start("record", "--database", f"sqlite:///{tmp_path}/folder/events.db", redis=server)
    wait_until(lambda: [one[:20] for one in states(server)] == ["its database is away"], 30, "the recorder says so")
    assert re.search(r"WARNING .* its database is away: .*; is --database right\?", processes.log())

    (tmp_path / "folder").unlink()

    wait_until(lambda: states(server) == ["active"], 30, "the recorder is active")


def test_the_commands_show_what_happened(server: Server, processes: Processes, database: Path) -> None:
    start(processes, server, database)
    wait_until(lambda: states(server) == ["active"], 30, "the recorder is active")
    for result in scene(PEOPLE, SCENE_S):
        append(server, result)
    wait_until(lambda: is_recorded(database), 20, "all is recorded")
    where = ("--database", f"sqlite:///{database}")

    def output(*words: str) -> list[str]:
        process = processes.start(*words, *where)
        printed, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        return printed.splitlines()

    listed = output("events", "--kind", "no_mask", "--limit", "2")
    found = [json.loads(line) for line in output("events", "--json", "--camera", "door")]

    assert [line.split()[3:6] for line in listed] == [["s", "door", "bare"]] * 2
    assert [one["started_at"] for one in found] == sorted((one["started_at"] for one in found), reverse=True)
    assert len(found) == len(EXPECTED)
    assert output("events", "--until", "2001-01-01") == []


def test_without_a_database_events_are_said_to_be_missing(processes: Processes, database: Path) -> None:
    process = processes.start("events", "--database", f"sqlite:///{database}")

    assert process.wait(60) == 1
    assert processes.log().splitlines() == [
        f"maskwatch: there are no events yet at sqlite:///{database}; `maskwatch record` writes them"
    ]
    assert not database.exists()
