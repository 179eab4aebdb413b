"""One record of settings, whoever sets it; what does not fit is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import maskwatch
from pipeline.settings import BadSettings, Settings, read_file, settings_from


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "maskwatch.toml"
    file.write_text("fps = 5\ndeadline_s = 3\njpeg_quality = 50\n")
    monkeypatch.setenv("MASKWATCH_FPS", "7")
    monkeypatch.setenv("MASKWATCH_DEADLINE_S", "4")
    seen: list[Settings] = []
    monkeypatch.setattr(maskwatch, "run_all", lambda settings, _cameras: seen.append(settings))

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


@pytest.mark.parametrize(
    ("text", "says"), [("speed = 3\n", "no setting speed"), ("fps = ", "settings file"), ("fps = -1\n", "--fps")]
)
def test_a_settings_file_that_is_wrong_says_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "maskwatch.toml"
    file.write_text(text)

    with pytest.raises(BadSettings, match=says):
        read_file(file)


@pytest.mark.parametrize("command", [["models", "list"], ["dead", "list"]])
def test_a_settings_file_holds_for_commands_in_groups_too(tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / "maskwatch.toml"
    file.write_text('models = "nowhere"\nredis_url = "redis://127.0.0.1:1"\n')

    result = CliRunner().invoke(maskwatch.cli, ["--config", str(file), *command])

    assert result.exit_code == 1
    assert ("nowhere is no model folder" if command[0] == "models" else "redis://127.0.0.1:1") in result.output


def test_wrong_settings_end_with_status_2_and_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(maskwatch.cli, ["--config", str(tmp_path / "none.toml"), "demo"])

    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1
    assert "none.toml" in result.output
