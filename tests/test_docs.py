"""The documentation is true: each command runs or is understood by its program, each path, link and variable exists.

Commands of maskwatch that end by themselves are run; the others are parsed by the real command line. A command that no
rule knows fails.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from conftest import Server, missing, wait_until
from containers import compose_program
from doc_rules import IN_ENV_FILE, RULES, all_commands, compose_files, is_route, is_variable, made_by_make
from documented import (
    PAGES,
    Command,
    anchors,
    block_commands,
    blocks,
    commands_in,
    inline,
    inline_commands,
    links,
    text_of,
)
from feeding import REPOSITORY
from processes import Processes, live, processes, wait_for_workers
from versions import write_detector, write_version

import maskwatch
from events.rule_file import parse_rules
from pipeline.bus import messages
from pipeline.runtime.settings import settings_from
from producer.sources.demo.people import load_photograph

__all__ = ["processes"]

# What each command of the program is: one that ends by itself is run here, one that runs until it is stopped is parsed.
ENDS = frozenset(
    {
        *("label", "status", "dead", "models", "check", "chaos", "password", "health", "jobs", "discover", "tokens"),
        *("events", "deliveries", "rules", "forget"),
    }
)
GOES_ON = frozenset({"demo", "up", "camera", "detect", "classify", "view", "record", "train", "trainer"})
LOCAL_REDIS = "redis://127.0.0.1:6379/0"
FLAGS_OF_OTHERS = frozenset({"--help", "--maxmemory", "--force-recreate"})
# Files that only exist after set-up, or on a user's machine.
MADE = frozenset(
    {
        ".env",
        ".venv",
        "bench/out/fuzz/",
        "certificates/ca.pem",
        "certificates/ca.key",
        "trainer/assets/",
        "assets/face_detector.onnx",
    }
)
USERS = frozenset(
    {
        *("pictures/", "holiday.mp4", "registry/", "detectors/", "worker.env", "runs/mine/report/report.html"),
        *("faces/WithMask/", "faces/WithoutMask/", "street/images/", "street/annotations/"),
        *("_annotations.coco.json", "instances_train.json", "data.yaml", "classes.txt", "obj.names", "with_mask/face"),
        *("labels/train", "images/train", ".ipynb_checkpoints", ".DS_Store", "desktop.ini", "Thumbs.db"),
        *("card.json", "classifier.keras", "classifier.onnx", "classifier.int8.onnx", "run.lock", "detector.onnx"),
        *("face_detection_yunet_2023mar.onnx", "efficientnet-lite0-57934424.pth", ".keras"),
        *("~/.config/maskwatch/tokens.json", "/dev/video0", "/dev/v4l/by-id/NAME", "/dev/net/tun", "/tmp", "0.0.0.0/0"),  # noqa: S108 -- named, not used
    }
)
SUFFIXES = (".py", ".md", ".json", ".jsonl", ".yml", ".yaml", ".lua", ".txt", ".onnx", ".keras", ".html", ".template")


@pytest.fixture(scope="module")
def users_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that documented commands name; the tests that use it write nothing there."""
    folder = tmp_path_factory.mktemp("user")
    prepare(folder)
    return folder


def test_each_command_of_the_program_is_known_here_and_in_the_readme() -> None:
    visible = {name for name, command in maskwatch.cli.commands.items() if not command.hidden}

    documented = {command.words[1] for command in inline_commands("README.md") if command.words[0] == "maskwatch"}

    assert visible == ENDS | GOES_ON
    assert documented == visible


@pytest.mark.parametrize("page", PAGES)
def test_each_command_is_understood_by_its_program(
    page: str, users_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(users_folder)

    for command in [*block_commands(page), *inline_commands(page)]:
        rule = RULES.get(command.words[0])
        assert rule, f"{command}: no rule of tests/doc_rules.py knows this program; add one"
        rule(command)


def test_compose_accepts_each_combination_of_files_that_a_page_names() -> None:
    commands = [one for page in PAGES for one in block_commands(page) if one.words[:2] == ("docker", "compose")]
    combinations = {compose_files(list(one.words[2:]))[0]: one.variables for one in commands}
    program = compose_program()
    if shutil.which(program[0]) is None:
        missing("there is no docker-compose on this machine")

    for files, variables in combinations.items():
        named = [part for file in files for part in ("-f", file)]
        secrets = dict.fromkeys(made_by_make(), "made") | IN_ENV_FILE | variables
        done = subprocess.run(
            [*program, *named, "config", "-q"], capture_output=True, text=True, cwd=REPOSITORY, env=os.environ | secrets
        )
        assert done.returncode == 0, f"{files}: {done.stderr}"


@pytest.mark.parametrize("page", PAGES)
def test_each_block_is_of_a_language_that_is_checked(page: str) -> None:
    for language, content in blocks(page):
        assert language in ("bash", "text", "json", "toml", "ini", "yaml"), f"{page}: {language or content}"
        if language == "text":
            assert not [one for one in commands_in(page, content.split("\n")[0]) if one.words[0] in RULES], content
        elif language == "toml" and "[[rules]]" in content:
            assert parse_rules(content).rules
        elif language == "toml":
            settings_from(tomllib.loads(content))
        elif language == "json":
            json.loads(content)
        elif language == "ini":
            lines = dict(line.split("=", 1) for line in content.splitlines())
            files = lines.pop("COMPOSE_FILE", "docker-compose.yml").split(":")
            assert all(map(is_variable, lines)) and all((REPOSITORY / file).is_file() for file in files), content
        elif language == "yaml":
            assert list(yaml.safe_load_all(content))


@pytest.mark.parametrize("page", PAGES)
def test_each_path_exists(page: str) -> None:
    roots = (REPOSITORY, (REPOSITORY / page).parent)

    for code in inline(page):
        if not looks_like_a_path(code) or code in MADE | USERS:
            continue
        if code.startswith("/"):
            assert is_route(code), f"{page}: the viewer has no route {code}"
        else:
            assert any((root / code).exists() for root in roots), f"{page}: there is no {code}"


@pytest.mark.parametrize("page", PAGES)
def test_each_link_leads_to_a_file_and_a_heading(page: str) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (REPOSITORY / page).parent / path if path else REPOSITORY / page

        assert target.exists(), f"{page}: {link}"
        assert not anchor or anchor in anchors(target), f"{page}: {link}"


@pytest.mark.parametrize("page", PAGES)
def test_each_variable_is_one_that_something_reads(page: str) -> None:
    for name in re.findall(r"\b(?:MASKWATCH|REDIS|JOBS|VIEWER|GRAFANA)_[A-Z_]*[A-Z]\b", text_of(page)):
        assert is_variable(name), f"{page}: nothing reads {name}"


@pytest.mark.parametrize("page", PAGES)
def test_each_flag_in_the_text_exists(page: str) -> None:
    options = [one for command in all_commands(maskwatch.cli) for one in command.params]
    known = {name for one in options for name in (*one.opts, *one.secondary_opts)}

    for code in inline(page):
        words = code.split()
        if code.startswith("--"):
            assert words[0].partition("=")[0] in known | FLAGS_OF_OTHERS, f"{page}: {code}"
        elif words[0] in maskwatch.cli.commands and words[1:] and words[1].startswith("--"):
            command = maskwatch.cli.commands[words[0]]
            assert words[1] in {name for one in command.params for name in one.opts}, f"{page}: {code}"


def test_the_commands_of_operating_do_what_the_page_says(
    server: Server, processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documented = {command.words[1:] for command in block_commands("docs/operating.md")}
    assert documented >= {("detect",), ("classify",), ("view",)}
    for words in (("detect",), ("classify",), ("view", "--port", "0")):
        processes.start(*words, redis=server)
    wait_for_workers(server)
    wait_until(lambda: live(server, "viewer"), 20, "the viewer is alive")

    printed = run_page("docs/operating.md", server, tmp_path, monkeypatch)

    shown = next(json.loads(content) for language, content in blocks("docs/operating.md") if language == "json")
    line = json.loads((tmp_path / "pictures.jsonl").read_text().splitlines()[0])
    assert list(line) == list(shown)
    assert list(line["faces"][0]) == list(shown["faces"][0])
    assert (tmp_path / "labelled.mp4").stat().st_size > 0
    assert "in flight" in printed["maskwatch status"]
    assert printed["maskwatch models rollback"].startswith("built-in is current")
    assert printed["maskwatch models register runs/detector"].startswith("yunet-")
    assert printed["maskwatch models promote built-in --detector"] == "built-in is current already\n"


def test_the_commands_of_training_do_what_the_page_says(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = run_page("docs/training.md", server, tmp_path, monkeypatch)

    assert "queued" in printed["maskwatch jobs"]
    assert "is cancelled" in printed["maskwatch jobs ID --cancel"]


def run_page(page: str, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Run the commands of a page that end by themselves, in their order; return what each printed."""
    prepare(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MASKWATCH_REDIS_URL", server.url)
    monkeypatch.setenv("MASKWATCH_PORT", "0")  # another program may use the default one
    printed: dict[str, str] = {}
    for command in block_commands(page):
        if command.words[0] == "export":
            name, _, value = command.words[1].partition("=")
            monkeypatch.setenv(name, value.replace(LOCAL_REDIS, server.url))
        elif command.words[0] == "maskwatch" and ends_by_itself(command):
            words = [filled(word, command, server, printed) for word in command.words[1:]]
            printed[" ".join(command.words)] = run(words)
    return printed


def ends_by_itself(command: Command) -> bool:
    is_job = "train" in command.words and "--queue" in command.words
    return command.words[1] in ENDS or is_job or "--help" in command.words


def filled(word: str, command: Command, server: Server, printed: dict[str, str]) -> str:
    """Return a word of a documented command with its placeholder filled in."""
    if word == "VERSION":
        (version,) = [path.name for path in Path("registry/versions").iterdir()]
        return version
    if word == "ID" and command.words[1] == "dead":
        return dead_letter(server)
    if command.words[1:] == ("forget", word):
        server.client.zadd(server.bus.shard_of(word).key("cameras"), {word: 0})  # one that is out of use
        return word
    if word == "ID":
        queued = next(text for words, text in printed.items() if "--queue" in words)
        return queued.split()[1]
    return word.replace(LOCAL_REDIS, server.url)


def run(words: list[str]) -> str:
    """Run a command and return what it prints. `label` sets up signals and logs, so it gets a process of its own."""
    if words[0] == "label":
        command = [sys.executable, "-m", "maskwatch", *words]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout
    result = CliRunner().invoke(maskwatch.cli, words, input="correct horse battery\n")
    assert result.exit_code == 0, f"{words}: {result.output}"
    return result.output


def prepare(folder: Path) -> None:
    """Write the files that documented commands name."""
    photograph = load_photograph()
    for name in ("pictures", "DIR/images", "faces/with_mask", "faces/without_mask", "street/mask", "clips"):
        (folder / name).mkdir(parents=True)
        cv2.imwrite(str(folder / name / "a.jpg"), photograph)
    shutil.copytree(folder / "faces", folder / "other-faces")
    shutil.copytree(folder / "faces" / "without_mask", folder / "street" / "no_mask")
    video = cv2.VideoWriter(str(folder / "holiday.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 240))
    for level in range(5):
        video.write(np.full((240, 320, 3), 40 * level, np.uint8))
    video.release()
    write_version(folder / "runs" / "mine", "documented")
    write_detector(folder / "runs" / "detector", "documented")
    (folder / "models").symlink_to(REPOSITORY / "models")
    (folder / "out.jsonl").touch()
    toml = next(content for language, content in blocks("docs/operating.md") if language == "toml")
    (folder / "maskwatch.toml").write_text(toml)


def dead_letter(server: Server) -> str:
    """Put a dead letter whose pixels exist, and return its id."""
    frame = messages.Frame(
        frame_id="door:1:0",
        camera="door",
        start=1,
        seq=0,
        width=64,
        height=64,
        pixels_key="{s0}:pixels:door:1:0",
        captured_at=server.clock.now(),
        deadline_at=None,
    )
    _, jpeg = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))
    server.client.set(frame.pixels_key, jpeg.tobytes())
    fields = {b"record": messages.encode(frame), b"camera": b"door", b"captured_at": b"%f" % frame.captured_at}
    letter = messages.DeadLetter(
        stream="frames", entry_id="1-0", fields=fields, error="test", process="test", deliveries=1, died_at=0
    )
    id_ = server.client.xadd("{s0}:dead", {"record": messages.encode(letter), "camera": "door"})
    return id_.decode()


def looks_like_a_path(code: str) -> bool:
    """Return whether inline code names a file, folder or route."""
    if " " in code or "://" in code or "=" in code or code.startswith(("-", "{", "!", "<", "*")):
        return False
    return "/" in code or code.endswith(SUFFIXES)
