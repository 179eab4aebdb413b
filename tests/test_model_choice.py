"""`--model`: which of the built-in classifiers labels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from feeding import REPOSITORY

from models.classifier.card import BUILT_IN_CLASSIFIERS, read_card

MASKWATCH = [sys.executable, "-m", "maskwatch"]


def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MASKWATCH, *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("name", sorted(BUILT_IN_CLASSIFIERS))
@pytest.mark.parametrize("way", ["flag", "variable"])
def test_each_built_in_classifier_labels_when_it_is_chosen(pictures: Path, tmp_path: Path, name: str, way: str) -> None:
    photograph = min((pictures / "face-mask-detection" / "images").iterdir())
    chosen = ["--model", name] if way == "flag" else []
    variables = {"MASKWATCH_MODEL": name} if way == "variable" else {}

    done = run("label", photograph, "--json", tmp_path / "out.jsonl", *chosen, **variables)

    (line,) = [json.loads(text) for text in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (done.returncode, line["model"]) == (0, read_card(BUILT_IN_CLASSIFIERS[name]).version)
    assert line["faces"]


def test_a_built_in_classifier_and_a_folder_are_not_chosen_together(tmp_path: Path) -> None:
    done = run("check", "--model", "resnet18-half", "--models", tmp_path)

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "--model chooses a built-in classifier, and --models has others: leave one of them out"
    )


def test_an_unknown_classifier_is_refused_with_the_names_that_there_are() -> None:
    done = run("check", "--model", "resnet34")

    assert done.returncode == 2
    assert all(name in done.stderr for name in BUILT_IN_CLASSIFIERS)
