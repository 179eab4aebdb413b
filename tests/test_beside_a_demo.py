"""What a newcomer tries while `maskwatch demo` runs works, in the order of the pages, and no line misleads."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import click
import cv2
import numpy as np
import pytest
from command_lines import CommandRunner, run_all
from conftest import Server, wait_until
from documented import PAGES, inline_commands
from documented_runs import MAY_BE_SILENT, commands_of, is_classified, is_run, is_set
from processes import Processes
from test_docs import LOCAL_REDIS, filled, prepare

import maskwatch as program
from pipeline.bus.clock import Clock
from pipeline.bus.connection import connect
from pipeline.bus.shards import Bus
from pipeline.bus.status import read_status
from pipeline.runtime.running_pipelines import find_running_pipelines

MISLEADING = re.compile(r"[Tt]raceback|\b6379\b|no Redis answers|MISSING")
# What a user puts in the place of a word of the README.
PLACES = {
    "SOURCE": "pictures",
    "DIR/images": "pictures",
    "FILE": "faces.jsonl",
    "RULES": "rules.toml",
    "ROLE": "detector",
    "ID": "",
}
RULE = "[[rules]]\nkind = 'camera_back'\nname = 'back'\n"
PAGE_PLACES = {"NAME": "door-bell", "RULES": "rules.toml"}
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
        "forget",
    }
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A running demo; its port."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="mw-") as runtime:
        patch.setenv("XDG_RUNTIME_DIR", runtime)
        patch.setenv("XDG_CONFIG_HOME", runtime)
        patch.setenv("TMPDIR", runtime)  # a pipeline of this user may have announced itself in the usual one
        patch.setattr(tempfile, "tempdir", runtime)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = int(listening.getsockname()[1])
        started = Processes(Path(runtime))
        started.start("demo", "--port", port, "--detectors", 1, "--classifiers", 1)
        pipeline = wait_until(find_running_pipelines, 30, "the demo is found")[0]
        with connect(pipeline.redis_url) as client:
            wait_until(lambda: is_labelling(Bus(client)), 60, "the demo labels frames")
            wait_until(lambda: is_recording(Bus(client)), 60, "the demo records events")
        wait_until(lambda: serves(port), 60, "the viewer serves")
        yield port
        started.end()


def serves(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
        return bool(answer.status == 200)
    return False


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
    (tmp_path / "rules.toml").write_text(RULE)
    monkeypatch.chdir(tmp_path)
    named = [command.words[1:] for command in inline_commands("README.md") if command.words[0] == "maskwatch"]
    ending = [words for words in named if words[0] not in ELSEWHERE]
    lines = [" ".join(filter(None, (PLACES.get(word, word) for word in words))) for words in ending]

    found = run_all(lines, MASKWATCH_PORT=str(demo))

    assert {"status", "jobs", "models list", "dead list", "check", "health detector"} <= set(lines)
    assert {line: text for line, (status, text) in found.items() if status or MISLEADING.search(text)} == {}
    assert "demo" in found["status"][1]
    assert f"127.0.0.1:{demo} is that of `maskwatch demo`" in found["check"][1]


@pytest.mark.parametrize("page", [page for page in PAGES if page == "README.md" or page.startswith("docs/")])
def test_each_command_of_a_page_is_run_here_or_known_not_to_be(page: str) -> None:
    unknown = [str(command) for command in commands_of(page) if not is_classified(command)]

    assert unknown == [], "add them to tests/documented_runs.py"


def test_the_commands_of_the_pages_that_end_work_in_their_order(
    demo: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, tuple[int, str]] = {}

    for page in PAGES:
        if page.startswith("docs/") and any(map(is_run, commands_of(page))):
            folder = tmp_path / Path(page).stem
            folder.mkdir()
            prepare(folder)
            (folder / "rules.toml").write_text(RULE)
            (folder / "rules.json").write_text('{"rules": [{"kind": "no_mask", "name": "bare"}]}')
            monkeypatch.chdir(folder)
            found |= run_page(page, demo)

    assert {line: text for line, (status, text) in found.items() if status or MISLEADING.search(text)} == {}
    silent = [line.partition(": ")[2] for line, (_, text) in found.items() if not text]
    assert [line for line in silent if not line.startswith(MAY_BE_SILENT)] == []
    assert len(found) > 25


def run_page(page: str, port: int) -> dict[str, tuple[int, str]]:
    """Run the commands of a page that end, in its folder; return by page and command the exit status and the output."""
    (pipeline,) = find_running_pipelines()
    found: dict[str, tuple[int, str]] = {}
    printed: dict[str, str] = {}
    variables = {"MASKWATCH_PORT": str(port)}
    with connect(pipeline.redis_url) as client, CommandRunner() as runner:
        server = Server(pipeline.redis_url, client, Clock(client), None)  # type: ignore[arg-type]
        for command in commands_of(page):
            if is_set(command):
                name, _, value = command.words[1].partition("=")
                variables |= {} if value.startswith("$(") else {name: value.replace(LOCAL_REDIS, server.url)}
            elif is_run(command):
                words = [filled(PAGE_PLACES.get(word, word), command, server, printed) for word in command.words]
                text = " ".join(command.words)
                found[str(command)] = run_one(words, port, runner, variables | command.variables, printed)
                printed[text] = found[str(command)][1]
    return found


def run_one(
    words: list[str], port: int, runner: CommandRunner, variables: dict[str, str], printed: dict[str, str]
) -> tuple[int, str]:
    """Run one command; printed: what the commands before it wrote."""
    if words[0] != "curl":
        return runner.run(words[1:], **variables)
    token = next((text.strip() for line, text in printed.items() if "tokens create" in line), "")
    command = [word.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace("$TOKEN", token) for word in words]
    done = subprocess.run(command, capture_output=True, timeout=60)
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def test_each_help_is_shown(demo: int) -> None:
    lines = ["--help", *(f"{path} --help" for path in paths_of_commands(program.cli))]

    found = run_all(lines)

    assert {"demo --help", "models list --help", "dead replay --help"} <= set(lines)
    assert {line: text for line, (status, text) in found.items() if status or MISLEADING.search(text)} == {}
    assert all("Usage: maskwatch" in text for _, text in found.values())
