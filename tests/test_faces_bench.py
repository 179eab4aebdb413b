"""Measuring a classifier on a folder of faces gives the figures that the folder deserves."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from bench.faces import main
from models.classifier.card import DEFAULT_FOLDER
from models.files import sha256_of

FACES = 8


@pytest.fixture(scope="module")
def folder(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy portraits with and without masks; one of them has the wrong label, one is no picture."""
    folder = tmp_path_factory.mktemp("faces")
    for name in ("WithMask", "WithoutMask"):
        (folder / name).mkdir()
        for path in sorted((pictures / "face-mask-12k" / "Validation" / name).iterdir())[:FACES]:
            shutil.copy(path, folder / name)
    wrong = next((folder / "WithoutMask").iterdir())
    wrong.rename(folder / "WithMask" / f"wrong {wrong.name}")
    (folder / "WithMask" / "broken.jpg").write_bytes(b"no picture")
    return folder


def measured(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(DEFAULT_FOLDER), *map(str, args)])


def test_the_face_with_the_wrong_label_counts_as_an_error(folder: Path) -> None:
    result = measured(folder)

    name, faces, accuracy, mask_recall, no_mask_recall, _ = result.stdout.splitlines()[1].split()
    assert (name, faces) == (folder.name, str(2 * FACES))
    assert accuracy == f"{1 - 1 / (2 * FACES):.2%}"
    assert (mask_recall, no_mask_recall) == (f"{FACES / (FACES + 1):.2%}", "100.00%")
    assert "broken.jpg" in result.stderr


def test_only_the_listed_files_count(folder: Path, tmp_path: Path) -> None:
    chosen = sorted((folder / "WithoutMask").iterdir())[:3]
    listed = tmp_path / "listed.txt"
    listed.write_text("".join(f"{sha256_of(path.read_bytes())[:16]}\n" for path in chosen))

    result = measured(folder, "--only", listed)

    assert result.stdout.splitlines()[1].split()[:3] == [folder.name, "3", "100.00%"]


def test_faces_of_16_px_and_more_and_copies_are_also_measured_separately(tmp_path: Path, folder: Path) -> None:
    for path in sorted((folder / "WithoutMask").iterdir())[:2]:
        shutil.copy(path, tmp_path)
    picture = np.asarray(cv2.imread(str(path)), np.uint8)
    cv2.imwrite(str(tmp_path / "small.png"), cv2.resize(picture, (14, 14), interpolation=cv2.INTER_AREA))

    result = measured(f"no_mask={tmp_path}")

    rows = result.stdout.splitlines()[1:]
    assert [row.split()[-3] for row in rows] == ["3", "3", "3", "3", "2", "2", "2", "2"]
    assert [row.split()[0] for row in rows[1:4] + rows[5:]] == 2 * ["grey", "dark", "blurred"]


def test_class_names_have_the_meaning_that_the_command_line_gives(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "WithoutMask", tmp_path / "people")
    shutil.copytree(folder / "WithMask", tmp_path / "kn95")

    refused, result = measured(tmp_path), measured(tmp_path, "--map", "people=no_mask", "--map", "kn95=mask")

    assert refused.exit_code == 1
    assert "no pictures in a folder named with_mask" in refused.stderr
    assert result.stdout.splitlines()[1].split()[:2] == [tmp_path.name, str(2 * FACES)]


def test_nothing_to_measure_is_an_error(folder: Path, tmp_path: Path) -> None:
    listed = tmp_path / "listed.txt"
    listed.write_text("0" * 16)

    result = measured(folder, "--only", listed)

    assert result.exit_code == 1
    assert "has no face to measure" in result.stderr
