"""A box that cannot be used costs a face, not a picture; it is counted, and the manifest lists it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from annotated_folders import BOX, read, voc, write_photograph, write_text

from trainer.data.manifest import MANIFEST_NAME, ManifestRow
from trainer.data.prepare import PreparedData, prepare_data


def write_street(folder: Path, *boxes: tuple[object, ...]) -> Path:
    """Write twenty photographs of two faces, and one, odd.jpg, of a face at BOX and faces at the boxes given."""
    for number in range(20):
        write_photograph(folder / f"{number}.jpg", number)
        write_text(folder / f"{number}.xml", voc(f"{number}.jpg", "mask", "face", boxes=[BOX, (60, 20, 90, 60)]))
    write_photograph(folder / "odd.jpg", 99)
    write_text(folder / "odd.xml", voc("odd.jpg", *["mask"] * (1 + len(boxes)), boxes=[BOX, *boxes]))
    return folder


def ready(folder: Path) -> tuple[PreparedData, list[str]]:
    said: list[str] = []
    return prepare_data([read(folder)], size_px=32, margin=0.05, warn=said.append), said


@pytest.mark.parametrize(
    ("box", "problem", "listed"),
    [
        ((10, 10, 10, 30), "the box (10.0, 10.0, 10.0, 30.0) has no area", None),
        ((40, 30, 10, 60), "the box (40.0, 30.0, 10.0, 60.0) has no area", None),
        (("nan", 10, 40, 30), "the box (nan, 10.0, 40.0, 30.0) is unusable: its numbers are not finite", None),
        (("", 10, 40, 30), "could not convert string to float: ''", None),
        ((500, 500, 600, 600), "less than 3 px of its face 2 are inside it", (120.0, 80.0, 120.0, 80.0)),
    ],
)
def test_a_box_is_left_out_alone_and_listed_in_the_manifest(
    tmp_path: Path, box: tuple[object, ...], problem: str, listed: tuple[float, ...] | None
) -> None:
    folder = write_street(tmp_path / "street", box)

    found, said = ready(folder)
    found.write_manifest(tmp_path)

    lines = (tmp_path / MANIFEST_NAME).read_bytes().splitlines()
    last = msgspec.json.decode(lines[-1], type=ManifestRow)
    assert len(lines) == 42
    assert [row.box for row in found.manifest if row.file == "odd.jpg"] == [BOX]
    assert (last.file, last.number, last.label, last.box, last.split) == ("odd.jpg", 1, "mask", listed, "out")
    assert last.problem == problem
    assert [line.endswith(f"{problem}: left out") for line in said] == [True]
    assert found.counts["boxes left out"] == 1


def test_several_boxes_are_left_out_one_by_one(tmp_path: Path) -> None:
    found, said = ready(write_street(tmp_path / "street", (1, 1, 1, 9), (60, 20, 90, 60), (9, 9, 3, 20)))

    assert [row.box for row in found.manifest if row.file == "odd.jpg"] == [BOX, (60, 20, 90, 60)]
    assert found.counts["boxes left out"] == len(said) == len(found.left_out) == 2


def test_boxes_that_are_left_out_change_neither_digest_nor_split(tmp_path: Path) -> None:
    without, _ = ready(write_street(tmp_path / "a" / "street"))
    with_bad_box, _ = ready(write_street(tmp_path / "b" / "street", (1, 1, 1, 9)))

    assert with_bad_box.digest == without.digest
    assert with_bad_box.digests == without.digests
    assert str(tmp_path) not in str(with_bad_box.left_out)
