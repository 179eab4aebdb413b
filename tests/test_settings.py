"""One record of settings, whoever sets it; what does not fit is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import maskwatch
from commands import up
from commands.errors import wants_json_logs
from pipeline.runtime.settings import BadSettings, Settings, flag_of, read_settings_file, settings_from


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "maskwatch.toml"
    file.write_text("fps = 5\ndeadline_s = 3\njpeg_quality = 50\n")
    monkeypatch.setenv("MASKWATCH_FPS", "7")
    monkeypatch.setenv("MASKWATCH_DEADLINE_S", "4")
    seen: list[Settings] = []
    monkeypatch.setattr(up, "run_pipeline", lambda settings, _cameras: seen.append(settings))

    result = CliRunner().invoke(maskwatch.cli, ["--config", str(file), "demo", "--fps", "9"])

    assert result.exit_code == 0, result.output
    assert (seen[0].fps, seen[0].deadline_s, seen[0].jpeg_quality, seen[0].port) == (9.0, 4.0, 50, 8000)


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"fps": 0.0}, "--fps"),
        ({"port": 70_000}, "--port"),
        ({"detector_px": 100}, "--detector-px"),
        ({"name": "Front Door"}, "--name"),
        ({"score_threshold": 1.0}, "--score-threshold"),
    ],
)
def test_a_value_that_does_not_fit_is_named_by_its_flag(values: dict[str, object], flag: str) -> None:
    with pytest.raises(BadSettings, match=flag):
        settings_from(values)


@pytest.mark.parametrize("name", ["shards", "port", "log_level"])
def test_a_text_that_is_no_unicode_does_not_fit(name: str) -> None:
    with pytest.raises(BadSettings):
        settings_from({name: "\ud800"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("speed = 3\n", "no setting speed"),
        ('redis = "redis://a"\n', "no setting redis; do you mean redis_url?"),
        ("max-batch = 4\n", "no setting max-batch; do you mean max_batch?"),
        ("fps = ", "settings file"),
        ("fps = -1\n", "--fps"),
        (f"port = {'9' * 5_000}\n", "settings file .*digits"),
        (f"models = {'[' * 10_000}\n", "settings file .*recursion"),
    ],
)
def test_a_settings_file_that_is_wrong_says_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "maskwatch.toml"
    file.write_text(text)

    with pytest.raises(BadSettings, match=says):
        read_settings_file(file)


@pytest.mark.parametrize("command", [["models", "list"], ["dead", "list"]])
def test_a_settings_file_holds_for_commands_in_groups_too(tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / "maskwatch.toml"
    file.write_text('models = "nowhere"\nredis_url = "redis://127.0.0.1:1"\n')

    result = CliRunner().invoke(maskwatch.cli, ["--config", str(file), *command])

    assert result.exit_code == 1
    assert ("nowhere is neither a model folder" if command[0] == "models" else "redis://127.0.0.1:1") in result.output


def test_wrong_settings_end_with_status_2_and_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(maskwatch.cli, ["--config", str(tmp_path / "none.toml"), "demo"])

    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1
    assert "none.toml" in result.output


@pytest.mark.parametrize("name", ["redis_url", "jobs_redis", "label_redis"])
def test_a_url_that_does_not_fit_is_not_shown_for_it_may_hold_a_password(name: str) -> None:
    with pytest.raises(BadSettings) as error:
        settings_from({name: "reddis://detector:secret@redis.lan"})

    schemes = "redis://, rediss://, unix://, redis-cluster:// or rediss-cluster://"
    assert str(error.value) == f"{flag_of(name)}: does not begin with {schemes}"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["status", "--redis", "redis://detector:se/cret@redis.lan"], "--redis: this URL cannot be parsed"),
        (["status", "--redis", "redis://redis.lan/?foo=bar"], "--redis: redis://redis.lan/?foo=bar has an"),
        (["trainer", "--jobs-redis", "redis://redis.lan/?foo=bar"], "--jobs-redis: redis://redis.lan/?foo=bar has"),
        (["status", "--redis", "redis-cluster://a:se/cret@a:1,b:2"], "--redis: this URL cannot be parsed"),
        (["status", "--redis", "redis-cluster://a:1,b:2/?foo=bar"], "--redis: redis-cluster://a:1,b:2/?foo=bar has an"),
        (["trainer", "--redis", "redis-cluster://a:1,b:2"], "training jobs need a Redis that is no cluster"),
    ],
)
def test_a_url_that_cannot_be_used_ends_with_status_2_and_one_line(command: list[str], says: str) -> None:
    result = CliRunner().invoke(maskwatch.cli, command)

    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1
    assert result.output.startswith(f"maskwatch: {says}")
    assert "cret" not in result.output


@pytest.mark.parametrize(
    ("camera", "shown"),
    [
        ("rtsp://user:secret@camera.lan/live", "rtsp://user:***@camera.lan/live"),
        ("rtsp://user:secret@camera.lan/live?channel=1", "rtsp://user:***@camera.lan/live?channel=1"),
        ("door:user:secret@camera.lan=demo", "door:***@camera.lan=demo"),
    ],
)
def test_a_camera_without_a_name_is_shown_without_its_password(camera: str, shown: str) -> None:
    result = CliRunner().invoke(maskwatch.cli, ["up", "--camera", camera])

    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1
    assert result.output.startswith(f"maskwatch: --camera {shown}: write NAME=SOURCE")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["detect", "--redis", "nowhere", "--log-json"], "--redis: does not begin with redis://"),
        (["status", "--redis", "redis://redis.lan/?foo=bar"], "has an unknown parameter"),
        (["camera", "demo", "--name", "door", "--fps", "abc"], "'abc' is not a valid float"),
        (["detect", "--metrics-port", "99999"], "--metrics-port"),
        (["camera"], "Missing argument 'SOURCE'"),
        (["nothing"], "No such command 'nothing'"),
        (["models", "promote"], "Missing argument"),
    ],
)
def test_where_lines_are_json_wrong_usage_is_one_too(command: list[str], says: str) -> None:
    done = maskwatch_where(command, log_json="true")

    (line,) = [json.loads(text) for text in done.stderr.splitlines()]
    assert (done.returncode, done.stdout, line["level"]) == (2, "", "ERROR")
    assert says in line["message"]


def test_the_flag_alone_makes_wrong_usage_a_json_line() -> None:
    done = maskwatch_where(["detect", "--log-json", "--fps", "3"], log_json="")

    (line,) = [json.loads(text) for text in done.stderr.splitlines()]
    assert (done.returncode, line["message"]) == (2, "No such option '--fps'.")


def test_what_is_no_error_is_as_it_always_is_where_lines_are_json() -> None:
    done = maskwatch_where(["status", "--help"], log_json="true")

    assert (done.returncode, done.stderr) == (0, "")
    assert "Show cameras" in done.stdout


def maskwatch_where(command: list[str], log_json: str) -> subprocess.CompletedProcess[str]:
    program = "import maskwatch; from commands.errors import command_line; command_line(maskwatch.cli)"
    return subprocess.run(
        [sys.executable, "-c", program, *command],
        capture_output=True,
        text=True,
        env=os.environ | {"MASKWATCH_LOG_JSON": log_json},
    )


@pytest.mark.parametrize(
    ("flags", "variable", "expected"),
    [
        ([], None, False),
        ([], "", False),
        ([], "true", True),
        ([], "1", True),
        ([], "no", False),
        ([], "perhaps", False),
        (["--log-json"], None, True),
        (["--no-log-json"], "true", False),
        (["--no-log-json", "--log-json"], None, True),
    ],
)
def test_a_flag_wins_over_the_variable_that_asks_for_json(
    flags: list[str], variable: str | None, expected: bool
) -> None:
    environment = {} if variable is None else {"MASKWATCH_LOG_JSON": variable}

    assert wants_json_logs(["detect", *flags], environment) == expected
