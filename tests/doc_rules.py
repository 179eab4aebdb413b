"""Rules for the commands of the documentation: each asks the program itself, or its files, whether a command is right.

A command that its program would not understand fails with its page and its words.
"""

from __future__ import annotations

import importlib
import itertools
import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest
import yaml
from documented import Command, text_of
from feeding import REPOSITORY
from manifests import built, kubectl

import maskwatch
from pipeline.runtime.settings import Settings, settings_from

PLACEHOLDERS = {"ROLE": "detector", "NAME": "door", "SOURCE": "demo"}
IMAGES = frozenset({"maskwatch", "maskwatch-train", "maskwatch-gpu", "maskwatch-train-gpu"})
IN_ENV_FILE = {"DOOR_SOURCE": "demo"}  # what the pages tell users to write there themselves
COMPOSE_FLAGS = {  # of the plugin and of docker-compose 1.29
    "up": {"-d", "--scale", "--force-recreate"},
    "run": {"-d", "--rm", "--use-aliases"},
    "exec": {"-T"},
    "logs": {"-f"},
    "build": set(),
    "ps": set(),
    "down": {"-v"},
}
CLUSTER = "overlays/cluster"
OTHER_VARIABLES = frozenset(
    {
        *("MASKWATCH_DATA", "MASKWATCH_SOURCE", "MASKWATCH_CAMERAS", "MASKWATCH_CAMERA_PASSWORD", "MASKWATCH_CONFIG"),
        "MASKWATCH_DOCKER_ENGINE",
    }
)


def maskwatch_rule(command: Command) -> None:
    assert all(map(is_variable, command.variables)), f"{command}: {command.variables}"
    if command.is_name:
        assert command.words[1] in {*maskwatch.cli.commands, "--help"}, str(command)
    else:
        understood(command, command.words[1:])


def understood(command: Command, words: tuple[str, ...]) -> None:
    """Parse the arguments of maskwatch with its own command line and check the settings among them."""
    rest = [PLACEHOLDERS.get(word, word) for word in words]
    if rest[0] == "--config":
        settings_from(tomllib.loads(Path(rest[1]).read_text()))
        rest = rest[2:]
    parsed: click.Command = maskwatch.cli
    while isinstance(parsed, click.Group) and rest[:1] != ["--help"]:
        assert rest and rest[0] in parsed.commands, f"{command}: there is no such command"
        parsed = parsed.commands[rest.pop(0)]
    if "--help" in rest:
        return
    try:
        context = parsed.make_context("maskwatch", rest)
    except click.ClickException as error:
        pytest.fail(f"{command}: {error.format_message()}")
    given = {name: value for name, value in context.params.items() if value is not None}
    settings_from({name: value for name, value in given.items() if name in Settings.__struct_fields__})


def make_rule(command: Command) -> None:
    done = subprocess.run(["make", "-n", *command.words[1:]], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def docker_rule(command: Command) -> None:
    if command.words[1] == "compose":
        compose_rule(command, list(command.words[2:]))
    elif command.words[1] == "build":
        target = command.words[command.words.index("--target") + 1]
        assert re.search(rf"^FROM \S+ AS {target}$", text_of("Dockerfile"), re.MULTILINE), str(command)
    else:
        assert command.words[1] == "run", str(command)
        image = next(index for index, word in enumerate(command.words) if word in IMAGES)
        understood(command, command.words[image + 1 :])


def compose_rule(command: Command, words: list[str]) -> None:
    """Check the files, the variables, the flags, the services, and what runs in a container."""
    files, rest = compose_files(words)
    text = "".join(map(text_of, files))
    for name in command.variables:
        assert f"${{{name}:" in text, f"{command}: no file reads {name}"
    missing_ones = set(re.findall(r"\$\{(\w+):\?", text)) - {*command.variables, *IN_ENV_FILE, *made_by_make()}
    assert not missing_ones, f"{command}: Compose needs {missing_ones}"
    if rest[0] == "--profile":
        assert f"profiles: [{rest[1]}]" in text, str(command)
        rest = rest[2:]
    services = {name for file in files for name in services_of(file)}
    subcommand, *rest = rest
    while rest:
        word = rest.pop(0)
        if word.startswith("-"):
            assert word in COMPOSE_FLAGS[subcommand], f"{command}: there is no {word}"
        else:
            assert word.partition("=")[0] in services, f"{command}: there is no service {word}"
            if subcommand in ("run", "exec"):
                break
    if rest and rest[0] != "cat":
        understood(command, tuple(rest[rest[0] == "maskwatch" :]))


def compose_files(words: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the files that a Compose command names, and the words behind them."""
    files = []
    while words[0] == "-f":
        files, words = [*files, words[1]], words[2:]
    for file in files:
        assert (REPOSITORY / file).is_file(), f"there is no {file}"
    assert not files or {"docker-compose.override.yml", "docker-compose.https.yml"} & {*files}, "nobody gets the page"
    return tuple(files) or ("docker-compose.yml", "docker-compose.override.yml"), words


@cache
def services_of(file: str) -> frozenset[str]:
    return frozenset(yaml.safe_load(text_of(file))["services"])


def made_by_make() -> set[str]:
    """Return the variables that `make env` and `make certificates` write into .env."""
    return set(re.findall(r'"([A-Z_]+)"', text_of("scripts/make_env.py") + text_of("scripts/make_certificates.py")))


def kubectl_rule(command: Command) -> None:
    """Check the folders, files, flags and objects of our manifests, and what runs in a pod."""
    words = list(command.words[1:])
    behind = words[words.index("--") + 1 :] if "--" in words else []
    words = words[: len(words) - len(behind) - bool(behind)]
    if behind:
        assert behind[0] == "maskwatch", str(command)
        understood(command, tuple(behind[1:]))
    flags = [word.partition("=")[0] for word in words if word.startswith("-") and word != "-"]
    for flag in flags:
        assert re.search(rf"(?<![\w-]){flag}\b", kubectl_help(words)), f"{command}: there is no {flag}"
    for flag, argument in itertools.pairwise(words):
        if flag == "-k":
            assert built(argument.removeprefix("deploy/kubernetes/")).all, str(command)
        elif flag == "-f" and argument != "-":
            assert (REPOSITORY / argument).is_file(), str(command)
        elif flag == "-l":
            name, _, value = argument.partition("=")
            assert f'"{name}": "{value}"' in json.dumps(built(CLUSTER).all), f"{command}: nothing has this label"
    for word in words:
        if found := re.fullmatch(r"(deploy|svc)/([a-z-]+)", word):
            assert built(CLUSTER).named({"deploy": "Deployment", "svc": "Service"}[found[1]], found[2]), str(command)


@cache
def kubectl_options() -> str:
    return subprocess.run([kubectl(), "options"], capture_output=True, text=True).stdout


def kubectl_help(words: list[str]) -> str:
    """Return what kubectl says of a subcommand, named by the words that are neither flags nor their values."""
    plain = [word for before, word in itertools.pairwise(["", *words]) if before != "-n" and not word.startswith("-")]
    depth = {"secret": 3, "configmap": 2, "restart": 2}.get(plain[1] if plain[1:] else "", 1)
    return kubectl_options() + _kubectl_help(tuple(plain[:depth]))


@cache
def _kubectl_help(subcommand: tuple[str, ...]) -> str:
    return subprocess.run([kubectl(), *subcommand, "--help"], capture_output=True, text=True).stdout


def python_rule(command: Command) -> None:
    """Check that `python -m MODULE` exists and understands its arguments."""
    assert command.words[1] == "-m", str(command)
    if command.words[2] == "pytest":
        pytest_rule(Command(page=command.page, words=command.words[2:]))
        return
    module = importlib.import_module(command.words[2])
    program = importlib.import_module(f"{command.words[2]}.__main__") if hasattr(module, "__path__") else module
    if isinstance(main := getattr(program, "main", None), click.Command):
        main.make_context(command.words[2], list(command.words[3:]))
    else:  # its usage is a line of its docstring
        usage = [line.split() for line in (module.__doc__ or "").splitlines() if command.words[2] in line.split()]
        assert [len(command.words)] == [len(line) for line in usage], f"{command}: its docstring says otherwise"


def pytest_rule(command: Command) -> None:
    paths = [word for word in command.words[1:] if not word.startswith("-")]
    assert paths, str(command)
    assert all((REPOSITORY / path).exists() for path in paths), f"{command}: there is no such file"


def curl_rule(command: Command) -> None:
    path = urlsplit(command.words[-1]).path
    assert is_route(path), f"{command}: nothing of ours answers {path}"


def git_rule(command: Command) -> None:
    assert command.words[1:] == ("pull",), str(command)


def activate_rule(command: Command) -> None:
    assert command.words[1] == ".venv/bin/activate", str(command)
    assert "-m venv .venv" in text_of("Makefile")


def export_rule(command: Command) -> None:
    assert is_variable(command.words[1].partition("=")[0]), str(command)


def known_to_others(_command: Command) -> None:
    """Leave a part of a pipeline alone: tests/test_kubernetes.py runs each of those whole."""


RULES: dict[str, Callable[[Command], None]] = {
    "maskwatch": maskwatch_rule,
    ".venv/bin/maskwatch": maskwatch_rule,
    "make": make_rule,
    "docker": docker_rule,
    "kubectl": kubectl_rule,
    "python": python_rule,
    ".venv/bin/python": python_rule,
    "pytest": pytest_rule,
    "curl": curl_rule,
    "git": git_rule,
    ".": activate_rule,
    "export": export_rule,
    "grep": known_to_others,
    "sed": known_to_others,
    "printf": known_to_others,
}


def all_commands(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        yield command
        if isinstance(command, click.Group):
            yield from all_commands(command)


def is_route(path: str) -> bool:
    """Return whether the viewer serves a path."""
    sources = "".join(source.read_text() for source in (REPOSITORY / "viewer").rglob("*.py"))
    in_api = path.removeprefix("/api/v1")
    if in_api == path:
        return f'"{path}"' in sources
    rules = re.findall(r'path="([^"]+)"', sources)
    return path == "/api/v1" or any(
        re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(rule)), in_api) for rule in rules
    )


def is_variable(name: str) -> bool:
    """Return whether an environment variable is a setting, or is read by a script, a container or a test."""
    settings = {f"MASKWATCH_{field.upper()}" for field in Settings.__struct_fields__}
    return name in settings | OTHER_VARIABLES or bool(re.search(rf"\b{name}\b", variables_of_deployment()))


@cache
def variables_of_deployment() -> str:
    files = [*REPOSITORY.glob("docker-compose*.yml"), *(REPOSITORY / "scripts").glob("*.py")]
    return "\n".join(path.read_text() for path in files)
