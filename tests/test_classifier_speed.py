"""Measuring the speed of a classifier says which file is missing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from bench.classifier_speed import main
from models.classifier.card import DEFAULT_FOLDER, INT8_NAME, read_card, write_card


@pytest.mark.parametrize("runtime", ["int8", "float"])
def test_a_model_without_an_int8_file_is_one_line_that_says_so(tmp_path: Path, runtime: str) -> None:
    write_card(tmp_path, msgspec.structs.replace(read_card(DEFAULT_FOLDER), files={}))

    result = CliRunner().invoke(main, ["--model", str(tmp_path), "--runtime", runtime])

    assert result.exit_code == 1
    assert result.output == f"Error: {tmp_path} has no {INT8_NAME}: choose a run folder of training\n"
