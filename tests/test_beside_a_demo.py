"""What a newcomer tries while `maskwatch demo` runs works, and no line misleads."""

from __future__ import annotations

import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import cv2
import numpy as np
import pytest
from command_lines import run_all
from conftest import wait_until
from documented import inline_commands
from processes import Processes

import maskwatch as program
from pipeline.bus.connection import connect
from pipeline.bus.shards import Bus
from pipeline.bus.status import read_status
from pipeline.runtime.running_pipelines import find_running_pipelines

MISLEADING = re.compile(r"[Tt]raceback|6379|no Redis answers|MISSING")
# What a user puts in the place of a word of the README.
PLACES = {
    "SOURCE": "pictures",
    "DIR/images": "pictures",
    "FILE": "faces.jsonl",
    "RULES": "rules.toml",
    "ROLE": "detector",
    "ID": "",
}
# Commands of the README that run until they are stopped, train, break things, ask, or need cameras that answer; other
# tests start them.
ELSEWHERE = frozenset(
    {
        "camera",
        "detect",
        "classify",
        "view",
        "record",
        "demo",
        "up",
        "train",
        "trainer",
        "chaos",
        "password",
        "discover",
    }
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A running demo; its port."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="mw-") as runtime:
        patch.setenv("XDG_RUNTIME_DIR", runtime)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = int(listening.getsockname()[1])
        started = Processes(Path(runtime))
        started.start("demo", "--port", port, "--detectors", 1, "--classifiers", 1)
        pipeline = wait_until(find_running_pipelines, 30, "the demo is found")[0]
        with connect(pipeline.redis_url) as client:
            wait_until(lambda: is_labelling(Bus(client)), 60, "the demo labels frames")
            wait_until(lambda: is_recording(Bus(client)), 60, "the demo records events")
        yield port
        started.end()


def paths_of_commands(group: click.Group) -> list[str]:
    """Return the words that name each visible command of a group."""
    paths: list[str] = []
    for name, command in group.commands.items():
        if not command.hidden:
            paths.append(name)
        if isinstance(command, click.Group):
            paths += [f"{name} {path}" for path in paths_of_commands(command)]
    return paths


def is_labelling(bus: Bus) -> bool:
    return any(camera.ledger.labelled for camera in read_status(bus).cameras)


def is_recording(bus: Bus) -> bool:
    return any(one.role == "recorder" and one.state == "active" for one in read_status(bus).processes)


def test_each_command_of_the_readme_that_ends_works(demo: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pictures").mkdir()
    cv2.imwrite(str(tmp_path / "pictures" / "grey.png"), np.full((64, 64, 3), 90, np.uint8))
    (tmp_path / "rules.toml").write_text("[[rules]]\nkind = 'camera_back'\nname = 'back'\n")
    monkeypatch.chdir(tmp_path)
    named = [command.words[1:] for command in inline_commands("README.md") if command.words[0] == "maskwatch"]
    ending = [words for words in named if words[0] not in ELSEWHERE]
    lines = [" ".join(filter(None, (PLACES.get(word, word) for word in words))) for words in ending]

    found = run_all(lines, MASKWATCH_PORT=str(demo))

    assert {"status", "jobs", "models list", "dead list", "check", "health detector"} <= set(lines)
    assert {line: text for line, (status, text) in found.items() if status or MISLEADING.search(text)} == {}
    assert "demo" in found["status"][1]
    assert f"127.0.0.1:{demo} is that of `maskwatch demo`" in found["check"][1]


def test_each_help_is_shown(demo: int) -> None:
    lines = ["--help", *(f"{path} --help" for path in paths_of_commands(program.cli))]

    found = run_all(lines)

    assert {"demo --help", "models list --help", "dead replay --help"} <= set(lines)
    assert {line: text for line, (status, text) in found.items() if status or MISLEADING.search(text)} == {}
    assert all("Usage: maskwatch" in text for _, text in found.values())
