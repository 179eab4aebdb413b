"""Dead letters can be listed, read, and replayed while their pixels exist; started for real."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import Server
from test_streams import CAMERA, frame, frames_reader, ledger, read, writer

from pipeline.bus.dead_letters import (
    CannotReplay,
    NoSuchDeadLetter,
    describe_dead_letter,
    find_dead_letter,
    list_dead_letters,
    replay_dead_letter,
)
from pipeline.bus.status import Ledger


def dead(server: Server, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "maskwatch", "dead", *arguments, "--redis", server.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == expect, done.stderr
    return done


def die(server: Server) -> str:
    """Dead-letter one frame; return the ID of its dead letter."""
    writer(server).publish(frame(server, 0, live=False), b"jpeg")
    reader = frames_reader(server)
    (entry,) = read(reader)
    reader.dead_letter(entry, "a picture nobody expected")
    return list_dead_letters(server.bus)[0].id


def test_dead_letters_are_listed_and_shown(server: Server) -> None:
    id_ = die(server)

    listed, shown = dead(server, "list"), dead(server, "show", id_)

    assert listed.stdout.split(maxsplit=3) == [id_, "frames:complete", CAMERA, "a picture nobody expected\n"]
    assert '"frame_id":"door:7:0"' in shown.stdout


def test_a_dead_letter_is_replayed_while_its_pixels_exist(server: Server) -> None:
    id_ = die(server)

    dead(server, "replay", id_)

    (entry,) = read(frames_reader(server, "detector-2"))
    assert entry.record.seq == 0
    assert ledger(server) == Ledger(produced=2, dropped={"dead": 1}, in_flight=1)
    assert list_dead_letters(server.bus) == []


def test_a_dead_letter_whose_pixels_are_gone_is_not_replayed(server: Server) -> None:
    id_ = die(server)
    server.client.delete("{s0}:pixels:door:7:0")

    done = dead(server, "replay", id_, expect=1)

    assert "its pixels have expired" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert ledger(server) == Ledger(produced=1, dropped={"dead": 1})


def test_an_invalid_message_is_not_replayed(server: Server) -> None:
    reader = frames_reader(server)
    read(reader)
    server.client.xadd("{s0}:frames", {"foo": "bar"})
    read(reader)
    (listed,) = list_dead_letters(server.bus)

    with pytest.raises(CannotReplay, match="no record that a worker accepts"):
        replay_dead_letter(server.bus, listed.id)


def test_a_dead_letter_of_any_bytes_can_be_shown(server: Server) -> None:
    reader = frames_reader(server)
    read(reader)
    server.client.xadd("{s0}:frames", {"record": b"\x91" * 100_000, "x": b"\xc7\xff\xff"})
    read(reader)

    (listed,) = list_dead_letters(server.bus)

    assert f"field      record: {'91' * 100}" in describe_dead_letter(listed)


def test_an_unknown_dead_letter_is_an_error(server: Server) -> None:
    with pytest.raises(NoSuchDeadLetter, match="maskwatch dead list"):
        find_dead_letter(server.bus, "1-1")
