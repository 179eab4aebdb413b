"""Data sets become faces on sides that share no photograph, and what cannot be used is said."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from models.files import sha256_of
from trainer.data.annotations import DatasetUnusable, read_annotations
from trainer.data.hash_list import HASH_DIGITS, read_hashes
from trainer.data.prepare import EvaluationFaces, ManifestRow, PreparedData, prepare_data
from trainer.data.sources import DatasetPath, dataset_collection, dataset_name, read_source

CONTRADICTING = {("05.png", "mask"), ("wrong.png", "no_mask")}


def write_picture(path: Path, seed: int | list[int], size: int = 40) -> None:
    """Write a picture like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8))


def write_classes(folder: Path, count: int, seed: int = 0) -> Path:
    for place, name in enumerate(("with_mask", "without_mask")):
        for number in range(count):
            write_picture(folder / name / f"{seed}{number}.png", seed=[seed, place, number])
    return folder


def write_annotation(folder: Path, *labels: str, picture: str = "a.png") -> Path:
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    objects = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{40 * place}</xmin><ymin>2</ymin><xmax>{40 * place + 30}</xmax>"
        "<ymax>32</ymax></bndbox></object>"
        for place, label in enumerate(labels)
    )
    (folder / "annotations" / f"{Path(picture).stem}.xml").write_text(
        f"<annotation><filename>{picture}</filename>{objects}</annotation>"
    )
    return folder


def ready(
    *datasets: Path | str,
    tests: tuple[Path | str, ...] = (),
    validation: Path | None = None,
    copies: bool = False,
    leave_out: frozenset[str] = frozenset(),
    hold_back: frozenset[str] = frozenset(),
    trained_on: frozenset[str] = frozenset(),
    seed: int = 0,
) -> tuple[PreparedData, list[str]]:
    """Prepare at toy size; return what was prepared and the lines that were said."""
    said: list[str] = []
    found = prepare_data(
        [read_source(str(dataset)) for dataset in datasets],
        tests=[read_source(str(test)) for test in tests],
        validation=read_source(str(validation)) if validation else None,
        size_px=32,
        margin=0.05,
        leave_out_copies=copies,
        leave_out=leave_out,
        hold_back=hold_back,
        trained_on=trained_on,
        seed=seed,
        warn=said.append,
    )
    return found, said


def files_of(found: PreparedData, split: str) -> set[str]:
    return {row.file for row in found.manifest if row.split == split}


@pytest.mark.parametrize("names", [("WithMask", "WithoutMask"), ("with_mask", "without_mask"), ("mask", "no mask")])
def test_class_folders_are_known_by_their_usual_names(tmp_path: Path, names: tuple[str, str]) -> None:
    write_picture(tmp_path / names[0] / "a.jpg", 1)
    write_picture(tmp_path / names[1] / "deeper" / "b.JPG", 2)

    source = read_source(str(tmp_path))

    assert [(item.path.name, item.label) for item in source.items] == [("a.jpg", "mask"), ("b.JPG", "no_mask")]


def test_a_fifth_is_kept_and_every_face_has_one_split(tmp_path: Path) -> None:
    found, _ = ready(write_classes(tmp_path / "toy", 40))

    assert found.counts == {"toy: calibration": 4, "toy: training": 60, "toy: validation": 16}
    assert (len(found.training), len(found.calibration), len(found.validation)) == (60, 4, 16)
    assert found.validation.has_mask.sum() == 8
    assert found.validation.crops.shape == (16, 32, 32, 3)
    found.write_manifest(tmp_path)
    first = (tmp_path / "manifest.jsonl").read_bytes().splitlines()[0]
    assert list(msgspec.json.decode(first)) == [
        *("source", "file", "sha256", "frame", "number", "label", "box", "group", "side"),
    ]


def test_preparing_again_gives_the_same(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "toy", 20)
    shutil.copytree(folder, tmp_path / "elsewhere" / "toy")

    first, second = ready(folder)[0], ready(tmp_path / "elsewhere" / "toy")[0]

    assert first.digest == second.digest
    assert first.digests == second.digests
    np.testing.assert_array_equal(first.training.pixels, second.training.pixels)


def test_augmented_copies_stay_together_by_their_names(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "toy", 20)
    for number in range(60):
        write_picture(folder / "with_mask" / f"Augmented_{number % 10}_{number}.png", 100 + number)

    found, _ = ready(folder)

    splits: dict[str, set[str]] = defaultdict(set)
    for row in found.manifest:
        if "Augmented" in row.file:
            splits[row.file.split("_")[1]].add(row.split)
    assert all(len(of_original) == 1 for of_original in splits.values())


def test_a_split_that_leaks_is_rejected_and_names_the_files(tmp_path: Path) -> None:
    training, test = write_classes(tmp_path / "a", 20), write_classes(tmp_path / "b", 10, seed=1)
    shutil.copy(training / "with_mask" / "07.png", test / "with_mask" / "other-name.png")

    with pytest.raises(DatasetUnusable, match=r"leaks.*a/07\.png and b/other-name\.png.*--leave-out-copies"):
        ready(training, tests=(test,))


def test_parts_of_a_data_set_may_number_their_files_alike(tmp_path: Path) -> None:
    training, test = write_classes(tmp_path / "toy" / "Train", 10), write_classes(tmp_path / "toy" / "Test", 10, seed=1)
    for path in [*test.glob("*/*.png")]:
        path.rename(path.with_name(path.name.replace("1", "0", 1)))

    found, _ = ready(training, tests=(test,))

    assert files_of(found, "test") == {row.file for row in found.manifest if row.source == "toy/Train"}


def test_copies_of_test_pictures_can_be_left_out(tmp_path: Path) -> None:
    training, test = write_classes(tmp_path / "a", 20), write_classes(tmp_path / "b", 10, seed=1)
    shutil.copy(training / "with_mask" / "07.png", test / "with_mask" / "other-name.png")

    found, _ = ready(training, tests=(test,), copies=True)

    assert files_of(found, "out") == {"07.png"}
    assert "other-name.png" in files_of(found, "test")
    assert found.counts["a: out"] == 1


def test_listed_pictures_and_their_copies_are_left_out_but_tested_ones_are_tested(tmp_path: Path) -> None:
    training, test = write_classes(tmp_path / "a", 20), write_classes(tmp_path / "b", 10, seed=1)
    copy = cv2.imread(str(training / "with_mask" / "07.png"))[:, ::-1]
    cv2.imwrite(str(training / "with_mask" / "mirrored.png"), copy)
    listed = (training / "with_mask" / "07.png", test / "with_mask" / "13.png")
    hashes = frozenset(sha256_of(path.read_bytes())[:HASH_DIGITS] for path in listed)

    found, _ = ready(training, tests=(test,), leave_out=hashes)

    assert files_of(found, "out") == {"07.png", "mirrored.png"}
    assert "13.png" in files_of(found, "test")


def test_what_another_model_held_back_is_held_back_whatever_the_seed_and_nothing_else(tmp_path: Path) -> None:
    toy = write_classes(tmp_path / "toy", 40)
    before, _ = ready(toy)
    kept = files_of(before, "validation")
    hashes = frozenset(row.sha256[:HASH_DIGITS] for row in before.manifest if row.split == "validation")
    copy = cv2.imread(str(next(path for path in toy.glob("with_mask/*.png") if path.name in kept)))[:, ::-1]
    more = write_classes(tmp_path / "more", 20, seed=3)
    cv2.imwrite(str(more / "with_mask" / "mirrored.png"), copy)

    again, _ = ready(toy, more, hold_back=hashes, copies=True, seed=5)

    assert files_of(again, "validation") == kept
    assert "mirrored.png" in files_of(again, "out")
    with pytest.raises(DatasetUnusable, match="--leave-out-copies"):
        ready(toy, more, hold_back=hashes, seed=5)


def test_held_back_pictures_that_the_weights_were_trained_on_are_refused(tmp_path: Path) -> None:
    toy = write_classes(tmp_path / "toy", 40)
    before, _ = ready(toy)
    some = next(iter(trained_on(before)))

    with pytest.raises(DatasetUnusable, match="the weights to start from were trained on"):
        ready(toy, hold_back=frozenset({some[:HASH_DIGITS]}), trained_on=trained_on(before))


def trained_on(found: PreparedData) -> frozenset[str]:
    return frozenset(row.sha256 for row in found.manifest if row.split == "training")


def test_what_the_weights_to_start_from_were_trained_on_is_never_reported_on(tmp_path: Path) -> None:
    toy = write_classes(tmp_path / "toy", 40)
    before, _ = ready(toy)
    write_classes(toy, 10, seed=7)  # the data set has grown

    again, _ = ready(toy, trained_on=trained_on(before))
    drawn_anew, _ = ready(toy, trained_on=trained_on(before), seed=5)

    for found in (again, drawn_anew):
        kept = {row.sha256 for row in found.manifest if row.split in ("validation", "calibration")}
        assert not kept & trained_on(before)
        assert len(kept) >= 20
    assert files_of(before, "validation") <= files_of(again, "validation") | files_of(again, "calibration")


def test_pictures_that_the_weights_have_learned_cannot_be_tested_with(tmp_path: Path) -> None:
    toy, more = write_classes(tmp_path / "toy", 20), write_classes(tmp_path / "more", 10, seed=1)
    before, _ = ready(toy)
    (tmp_path / "kept").mkdir()
    shutil.copytree(toy, tmp_path / "kept" / "toy")

    with pytest.raises(DatasetUnusable, match=f"were trained on {len(trained_on(before))} of the faces kept"):
        ready(more, tests=(tmp_path / "kept" / "toy",), trained_on=trained_on(before), copies=True)


def test_one_photograph_may_have_its_boxes_in_another_order_elsewhere(tmp_path: Path) -> None:
    street, moved, wrong = (tmp_path / name for name in ("street", "moved", "wrong"))
    for number in range(10):
        for folder in (street, moved, wrong):
            write_picture(folder / "images" / f"{number}.png", number, size=120)
        write_annotation(street, "with_mask", "without_mask", picture=f"{number}.png")
        write_annotation(wrong, "without_mask", "with_mask", picture=f"{number}.png")
        xml = (write_annotation(moved, "x", "y", picture=f"{number}.png") / "annotations" / f"{number}.xml").read_text()
        first, second = xml[xml.index("<object>") : xml.index("</annotation>")].split("</object>")[:2]
        swapped = second.replace(">y<", ">without_mask<") + "</object>" + first.replace(">x<", ">with_mask<")
        (moved / "annotations" / f"{number}.xml").write_text(
            f"<annotation><filename>{number}.png</filename>{swapped}</object></annotation>"
        )

    agreeing, said = ready(street, moved)
    with pytest.raises(DatasetUnusable, match="training needs faces"):  # every picture contradicts its copy
        ready(street, wrong)

    assert said == []
    assert not files_of(agreeing, "out")


def test_a_list_of_hashes_has_comments_and_names_what_is_none(tmp_path: Path) -> None:
    path = tmp_path / "hashes.txt"
    path.write_text("0123456789abcdef  # a picture\n\nFEDCBA9876543210\n")

    assert read_hashes(path) == {"0123456789abcdef", "fedcba9876543210"}
    path.write_text("0123456789abcde\n")
    with pytest.raises(ValueError, match=r"hashes\.txt, line 1: '0123456789abcde' is not the first 16 digits"):
        read_hashes(path)


def test_a_validation_folder_takes_the_place_of_the_fifth(tmp_path: Path) -> None:
    training, validation = write_classes(tmp_path / "a", 20), write_classes(tmp_path / "b", 5, seed=1)

    found, _ = ready(training, validation=validation)

    assert set(found.validation.sources) == {"b"}
    assert "a: validation" not in found.counts


def test_what_cannot_be_used_gets_a_line_each_and_is_counted(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "toy", 20)
    (folder / "with_mask" / "0.png").write_bytes(b"")
    (folder / "with_mask" / "1.png").write_bytes(b"no picture")
    (folder / "with_mask" / "list.txt").write_text("what?")
    (folder / "unsorted").mkdir()
    shutil.copy(folder / "with_mask" / "05.png", folder / "without_mask" / "wrong.png")

    found, said = ready(folder)

    endings = sorted(line.rsplit("/", 1)[1] for line in said)
    assert endings == [
        "0.png is empty: left out",
        "05.png is labelled mask, the same picture elsewhere is not: left out",
        "1.png is not a picture that can be read: left out",
        "list.txt is neither a picture nor a video by its name: left out",
        "unsorted is not named for a class, mask or no mask: left out",
        "wrong.png is labelled no_mask, the same picture elsewhere is not: left out",
    ]
    assert found.counts["left out"] == 6
    assert {row.split for row in found.manifest if (row.file, row.label) in CONTRADICTING} == {"out"}


def test_a_copy_with_the_other_label_gets_a_line_and_both_are_left_out(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "toy", 20)
    for number in range(3):
        picture = cv2.imread(str(folder / "with_mask" / "05.png"))
        cv2.imwrite(
            str(folder / "without_mask" / f"wrong{number}.jpg"), picture, (cv2.IMWRITE_JPEG_QUALITY, 80 + number)
        )

    found, said = ready(folder)

    lines = sorted(line.replace(f"{folder}/", "") for line in said)
    assert lines[0].startswith("with_mask/05.png labels a face mask that its copy without_mask/wrong")
    assert lines[1:] == [
        f"without_mask/wrong{number}.jpg labels a face no_mask that its copy with_mask/05.png labels mask: left out"
        for number in range(3)
    ]
    assert found.counts["left out"] == 4
    assert {(row.file, row.label) for row in found.manifest if row.split == "out"} == {
        ("05.png", "mask"),
        *((f"wrong{number}.jpg", "no_mask") for number in range(3)),
    }


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder / "nowhere", "does not exist"),
        (lambda folder: f"scarf={folder}", "write mask=PATH or no_mask=PATH"),
        (lambda folder: folder, "no pictures in a folder named with_mask"),
    ],
)
def test_a_data_set_that_is_none_is_rejected_in_one_line(
    tmp_path: Path, make: Callable[[Path], Path | str], says: str
) -> None:
    with pytest.raises(DatasetUnusable, match=says) as error:
        ready(make(tmp_path))

    assert "\n" not in str(error.value)


def test_a_folder_of_one_label_needs_the_other_one_beside_it(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "toy", 10)

    with pytest.raises(DatasetUnusable, match="faces with a mask and faces without"):
        ready(f"no_mask={folder / 'without_mask'}")
    found, _ = ready(f"no_mask={folder / 'without_mask'}", f"mask={folder / 'with_mask'}")
    assert found.training.has_mask.any()


def test_annotated_faces_are_cut_from_their_photographs_and_incorrect_ones_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "street"
    for number in range(10):
        write_annotation(folder, "with_mask", "mask_weared_incorrect", "without_mask", picture=f"{number}.png")
        write_picture(folder / "images" / f"{number}.png", number, size=120)

    found, _ = ready(folder)

    assert Counter(row.label for row in found.manifest) == {"mask": 10, "no_mask": 10}
    assert {row.box for row in found.manifest} == {(0, 2, 30, 32), (80, 2, 110, 32)}
    by_file: dict[str, set[str]] = {}
    for row in found.manifest:
        by_file.setdefault(row.file, set()).add(row.split)
    assert all(len(sides) == 1 for sides in by_file.values())


def test_annotations_that_cannot_be_used_are_reported(tmp_path: Path) -> None:
    folder = write_annotation(tmp_path / "street", "with_mask", "without_mask")
    write_picture(folder / "images" / "a.png", 1, size=120)
    write_annotation(folder, "with_mask", picture="missing.png")
    (folder / "annotations" / "c.xml").write_text("<not xml")

    source = read_source(str(folder))

    assert [item.path.name for item in source.items] == ["a.png"]
    assert [("missing.png is missing" in line, "c.xml" in line) for line in source.problems] == [
        (False, True),
        (True, False),
    ]
    with pytest.raises(DatasetUnusable, match=r"c\.xml"):
        read_annotations(folder)


def test_a_folder_without_annotations_fails(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()

    with pytest.raises(DatasetUnusable, match=r"has no \.xml files"):
        read_annotations(tmp_path)


def test_the_manifest_says_where_each_face_went(tmp_path: Path) -> None:
    found, _ = ready(write_classes(tmp_path / "toy", 10))

    found.write_manifest(tmp_path)

    lines = (tmp_path / "manifest.jsonl").read_bytes().splitlines()
    assert tuple(msgspec.json.decode(line, type=ManifestRow) for line in lines) == found.manifest


def test_a_test_set_has_the_same_digest_whatever_was_trained_on(tmp_path: Path) -> None:
    test = write_classes(tmp_path / "kept", 10)
    first, second = (write_classes(tmp_path / name, 10, seed) for name, seed in (("a", 1), ("b", 2)))
    shutil.copy(test / "with_mask" / "01.png", first / "with_mask")

    digests = [ready(training, tests=(test,), copies=True)[0].digests["kept"] for training in (first, second)]

    assert digests[0] == digests[1]
    write_classes(tmp_path / "kept", 11)
    assert ready(second, tests=(test,))[0].digests["kept"] != digests[0]


def test_faces_of_one_source_are_taken_out(tmp_path: Path) -> None:
    found, _ = ready(write_classes(tmp_path / "a", 20), write_classes(tmp_path / "b", 10, seed=1))

    of_b: EvaluationFaces = found.validation.of_source("b")

    assert len(of_b) == len(of_b.names) == 4
    assert set(of_b.sources) == {"b"}


def test_names_on_the_card_do_not_say_where_data_lies() -> None:
    folders = [Path("/home/someone/face-mask-12k/Train"), Path("/home/someone/street")]

    assert [dataset_name(folder) for folder in folders] == ["face-mask-12k/Train", "street"]


@pytest.mark.parametrize(
    "part", ["Train", "Test/WithoutMask", "test/with_mask", "Validation", "", "Test/WithoutMask/a.png", "Train/mask"]
)
def test_all_parts_of_a_data_set_have_the_name_of_their_family(tmp_path: Path, part: str) -> None:
    write_picture(tmp_path / "small" / "Test" / "WithoutMask" / "a.png", 1)

    assert dataset_collection(tmp_path / "small" / part) == "small"


def test_a_class_folder_by_itself_has_a_family(tmp_path: Path) -> None:
    assert dataset_collection(Path("/mask")) == "mask"
    assert dataset_collection(tmp_path / "street") == "street"


def test_a_path_may_hold_an_equals_sign(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "lr=0.1" / "toy", 2)

    plain, labelled = read_source(str(folder)), read_source(f"no_mask={folder / 'without_mask'}")

    assert (plain.name, len(plain.items)) == ("toy", 4)
    assert {item.label for item in labelled.items} == {"no_mask"}
    assert DatasetPath.parse(str(folder)) == DatasetPath(label=None, path=folder)
    assert DatasetPath.parse(f"mask={folder}") == DatasetPath(label="mask", path=folder)


def test_faces_in_clips_are_found_and_a_clip_stays_on_one_split(pictures: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("learn", "sister"):
        shutil.copy(pictures / "hand-over-face" / f"{name}.mkv", clips)
    masks = sorted((pictures / "face-mask-12k" / "Train" / "WithMask").iterdir())[:10]
    (tmp_path / "masks").mkdir()
    for path in masks:
        shutil.copy(path, tmp_path / "masks")

    found, _ = ready(f"no_mask={clips}", f"mask={tmp_path / 'masks'}")

    sides = {(row.file, row.split) for row in found.manifest if row.source == "clips"}
    assert len(sides) == 2
    assert len([row for row in found.manifest if row.source == "clips"]) > 100


def test_a_real_class_folder_is_cut_as_serving_cuts_it(pictures: Path) -> None:
    folder = pictures / "face-mask-12k" / "Validation"

    found, said = ready(folder)

    assert [line.endswith("shows nothing but one plain colour: left out") for line in said] == [True, True]
    assert len(found.manifest) == 798
    assert found.training.tight.mean() > 0.9
