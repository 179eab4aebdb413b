"""Class names mean what people mean by them, and a name that nobody knows is asked about."""

from __future__ import annotations

from pathlib import Path

import pytest
from annotated_folders import BOX, faces_of, read, voc, write_photograph, write_text

from trainer.checks import plan_training
from trainer.data.annotations import DatasetUnusable
from trainer.data.class_names import ClassNames
from trainer.settings import TrainSettings


def write_street(folder: Path, *names: str) -> Path:
    write_photograph(folder / "images" / "a.jpg")
    write_text(folder / "annotations" / "a.xml", voc("a.jpg", *names))
    return folder


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("with_mask", "mask"),
        ("With Mask", "mask"),
        ("MASK", "mask"),
        ("face_mask", "mask"),
        ("Face-Mask", "mask"),
        ("masked", "mask"),
        ("without_mask", "no_mask"),
        ("no-mask", "no_mask"),
        ("NoMask", "no_mask"),
        ("face", "no_mask"),
        ("Unmasked", "no_mask"),
        ("mask_weared_incorrect", "incorrect"),
        ("Incorrect", "incorrect"),
        ("0", None),
        ("1", None),
        ("mask2", None),
        ("helmet", None),
        ("", None),
    ],
)
def test_usual_names_are_known_however_they_are_spelt(name: str, meaning: str | None) -> None:
    assert ClassNames().meaning_of(name) == meaning


def test_a_user_says_what_other_names_mean(tmp_path: Path) -> None:
    write_street(tmp_path, "Hard hat", "cloth=mask", "bare", "mask_weared_incorrect", "face")

    source = read(tmp_path, "hard_hat=ignore", "cloth=mask=mask", "Bare=no_mask", "mask-weared-incorrect=mask")

    assert faces_of(source) == {"a.jpg": [(worn, BOX) for worn in ("mask", "no_mask", "mask", "no_mask")]}


def test_an_unknown_name_is_refused_in_one_line_with_the_names_and_the_flag(tmp_path: Path) -> None:
    write_street(tmp_path, "with_mask", "hard hat", "scarf")

    with pytest.raises(DatasetUnusable) as error:
        read(tmp_path)

    assert str(error.value) == (
        f"{tmp_path} has faces named hard hat, scarf, with_mask; the meaning of hard hat, scarf is not known: "
        "give it with --map 'hard hat=mask|no_mask|ignore', for each name"
    )


def test_many_unknown_names_are_counted_and_long_ones_shortened(tmp_path: Path) -> None:
    write_street(tmp_path, "n" * 5000, *(f"thing{number}" for number in range(40)))

    with pytest.raises(DatasetUnusable) as error:
        read(tmp_path)

    assert "and 31 more" in str(error.value)
    assert len(str(error.value)) < len(str(tmp_path)) + 600


@pytest.mark.parametrize("choice", ["helmet", "helmet=scarf", "=mask", "_=mask", "helmet=", "helmet=incorrect"])
def test_a_choice_that_makes_no_sense_is_refused_with_its_form(choice: str) -> None:
    with pytest.raises(ValueError, match=r"--map .*: write NAME=mask, NAME=no_mask or NAME=ignore"):
        ClassNames([choice])


def test_a_name_has_one_meaning() -> None:
    with pytest.raises(ValueError, match="helmet has another meaning already"):
        ClassNames(["Helmet=ignore", "helmet=ignore", "helmet=mask"])


def test_the_choices_of_a_training_hold_for_all_its_data_sets(tmp_path: Path) -> None:
    folders = [str(write_street(tmp_path / name, "kn95", "bare")) for name in ("training", "kept", "test")]
    settings = TrainSettings(
        datasets=(folders[0],),
        validation=folders[1],
        tests=(folders[2],),
        out=str(tmp_path / "run"),
        class_names=("kn95=mask", "bare=no_mask"),
    )

    plan = plan_training(settings)

    assert plan.absolute_settings().class_names == settings.class_names
    assert [faces_of(source) for source in (*plan.training, plan.validation, *plan.tests)] == [
        {"a.jpg": [("mask", BOX), ("no_mask", BOX)]}
    ] * 3
