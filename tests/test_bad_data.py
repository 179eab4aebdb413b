"""Whatever lies in a data set, training goes on without it: one line for each thing, with its name, and a count."""

from __future__ import annotations

import os
import re
import struct
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from versions import write_version

from models.files import ModelUnusable
from trainer.data.annotations import DatasetUnusable, read_annotations
from trainer.data.decoding import clip_frames
from trainer.data.file_listing import printable
from trainer.data.manifest import MANIFEST_NAME
from trainer.data.prepare import PreparedData, prepare_data
from trainer.data.sources import read_source
from trainer.serving_copy import copy_for_serving


def write_picture(path: Path, seed: int, size: tuple[int, int] = (40, 40)) -> Path:
    """Write a picture like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))
    return path


def write_classes(folder: Path, count: int = 10, seed: int = 0) -> Path:
    for place, name in enumerate(("with_mask", "without_mask")):
        for number in range(count):
            write_picture(folder / name / f"{number}.png", 1000 * seed + 100 * place + number)
    return folder


def write_street(folder: Path, *boxes: str, encoding: str = "utf-8") -> Path:
    """Write twenty photographs with two annotated faces each, and one, odd.png, with faces at the boxes given."""
    (folder / "annotations").mkdir(parents=True)
    for number in range(20):
        write_picture(folder / "images" / f"{number}.png", number, (120, 120))
        write_annotation(folder, f"{number}", "10 10 40 50", "60 60 100 110")
    write_picture(folder / "images" / "odd.png", 99, (120, 120))
    if boxes:
        write_annotation(folder, "odd", *boxes, encoding=encoding)
    return folder


def write_annotation(folder: Path, name: str, *boxes: str, encoding: str = "utf-8", picture: str = "") -> None:
    objects = ""
    for place, box in enumerate(boxes):
        corners = zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True)
        label = ("with_mask", "without_mask")[place % 2]
        inside = "".join(f"<{corner}>{number}</{corner}>" for corner, number in corners)
        objects += f"<object><name>{label}</name><bndbox>{inside}</bndbox></object>"
    (folder / "annotations" / f"{name}.xml").write_text(
        f'<?xml version="1.0" encoding="{encoding}"?>'
        f"<annotation><filename>{picture or name + '.png'}</filename>{objects}</annotation>"
    )


def write_clip(path: Path, count: int, *, live: bool) -> None:
    """Write a clip of noise; a live recording does not know how long it will be."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", format="matroska", options={"live": "1"} if live else {}) as clip:
        stream = clip.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(count):
            picture = rng.integers(0, 256, (48, 64, 3), np.uint8)
            clip.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        clip.mux(stream.encode())


def ready(*datasets: Path | str) -> tuple[PreparedData, list[str]]:
    """Prepare at toy size; return what was prepared and the lines that were said."""
    said: list[str] = []
    found = prepare_data([read_source(str(dataset)) for dataset in datasets], size_px=32, margin=0.05, warn=said.append)
    return found, said


def huge_png(width: int, height: int) -> bytes:
    """Return a PNG whose header promises more than its few bytes hold."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (huge_png(40_000, 30_000), r"is too large: 40000x30000 is 1200 megapixels"),
        (huge_png(60_000, 2), r"is only 60000x2 pixels large"),
        (huge_png(300, 300), "is not a picture that can be read"),
        (b"GIF89a" + bytes(20), "is not a picture that can be read|is too large"),
        (cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes(), "is only 1x1 pixels large"),
        (cv2.imencode(".png", np.zeros((3000, 1, 3), np.uint8))[1].tobytes(), "is only 1x3000 pixels large"),
        (
            cv2.imencode(".png", np.full((300, 300, 3), (0, 0, 255), np.uint8))[1].tobytes(),
            "shows nothing but one plain colour",
        ),
    ],
    ids=["huge", "long", "truncated", "damaged", "a pixel", "a line", "red"],
)
def test_a_picture_with_nothing_to_learn_from_is_left_out_with_a_line(
    tmp_path: Path, content: bytes, says: str
) -> None:
    folder = write_classes(tmp_path / "toy")
    (folder / "with_mask" / "bad.png").write_bytes(content)

    found, said = ready(folder)

    assert len(said) == 1
    assert re.search(rf"toy/with_mask/bad\.png ({says}).*: left out$", said[0])
    assert found.counts["left out"] == 1
    assert len(found.manifest) == 20


@pytest.mark.parametrize("box", ["130 10 170 60", "5000 5000 5100 5100", "10.2 10.2 10.4 10.4", "-90 -90 1 1"])
def test_a_face_of_which_nothing_lies_in_the_picture_is_left_out_with_a_line(tmp_path: Path, box: str) -> None:
    folder = write_street(tmp_path / "street", "10 10 40 50", box)

    found, said = ready(folder)

    assert [line.endswith("odd.png: less than 3 px of its face 2 are inside it: left out") for line in said] == [True]
    assert [(row.number, row.label) for row in found.manifest if row.file == "odd.png"] == [(0, "mask")]
    assert found.counts["left out"] == 1


def test_a_box_is_cut_off_at_the_edges_of_its_picture(tmp_path: Path) -> None:
    folder = write_street(tmp_path / "street", "-80 10 40 50", "60 60 99999999 121")

    found, said = ready(folder)

    assert said == []
    assert [row.box for row in found.manifest if row.file == "odd.png"] == [(0, 10, 40, 50), (60, 60, 120, 120)]


@pytest.mark.parametrize(
    ("box", "encoding", "says"),
    [
        ("10 10 1e400 50", "utf-8", "not finite"),
        ("nan 10 40 50", "utf-8", "not finite"),
        ("10 10 wide 50", "utf-8", "could not convert"),
        ("10 10 40 50", "foo-bar", "unknown encoding"),
    ],
)
def test_an_annotation_that_makes_no_sense_is_left_out_with_a_line(
    tmp_path: Path, box: str, encoding: str, says: str
) -> None:
    folder = write_street(tmp_path / "street", box, encoding=encoding)

    found, said = ready(folder)

    assert [("annotations/odd.xml: " in line, says in line) for line in said] == [(True, True)]
    assert found.counts["left out"] == 1
    assert "odd.png" not in {row.file for row in found.manifest}


def test_what_is_alone_beside_annotations_is_reported(tmp_path: Path) -> None:
    folder = write_street(tmp_path / "street")  # without an annotation of odd.png
    annotations = folder / "annotations"
    (annotations / "3.xml").rename(annotations / "3.XML")
    write_annotation(folder, "twice", "10 10 40 50", picture="4.png")
    (annotations / "folder.xml").mkdir()
    (annotations / "notes.txt").write_text("?")
    os.mkfifo(annotations / "pipe.xml")

    source = read_source(str(folder))

    assert {item.path.stem for item in source.items} == {str(number) for number in range(20)}
    lines = sorted(problem.replace(f"{folder}/", "") for problem in source.problems)
    assert lines == [
        "annotations/folder.xml is a folder, though its name is a file's: left out",
        "annotations/notes.txt is not an .xml file: left out",
        "annotations/pipe.xml is not a file: left out",
        "annotations/twice.xml: its picture 4.png has another annotation already: left out",
        "images/odd.png has no annotation: left out",
    ]
    with pytest.raises(DatasetUnusable, match=r"is a folder"):
        read_annotations(folder)


def test_a_link_to_what_is_no_file_is_not_called_a_link_to_nothing(tmp_path: Path) -> None:
    folder = write_street(tmp_path / "street")
    (folder / "annotations" / "zero.xml").symlink_to("/dev/zero")
    (folder / "annotations" / "nothing.xml").symlink_to("nowhere.xml")

    source = read_source(str(folder))

    assert [problem.replace(f"{folder}/annotations/", "") for problem in source.problems][:2] == [
        "nothing.xml is a link to nothing: left out",
        "zero.xml is not a file: left out",
    ]


@pytest.mark.parametrize("name", ["n" * 5000, "ñ" * 200])
def test_a_name_of_any_length_in_an_annotation_is_not_shown_in_full(tmp_path: Path, name: str) -> None:
    folder = write_street(tmp_path / "street")
    (folder / "images" / "odd.png").unlink()
    write_annotation(folder, "odd", "10 10 40 50", picture=f"{name}.png")

    source = read_source(str(folder))

    assert source.problems == (f"{folder}/annotations/odd.xml: its picture {name[:60]}... is missing: left out",)


def test_a_number_of_any_length_in_an_annotation_is_not_shown_in_full(tmp_path: Path) -> None:
    folder = write_street(tmp_path / "street", "10 10 40 " + "y" * 5000)

    (problem,) = read_source(str(folder)).problems

    assert problem.startswith(f"{folder}/annotations/odd.xml: could not convert string to float: 'yyy")
    assert len(problem) < len(str(folder)) + 400


@pytest.mark.parametrize("live", [True, False])
def test_of_a_long_clip_about_a_hundred_frames_are_taken_whatever_its_header_says(tmp_path: Path, live: bool) -> None:
    path = tmp_path / "clip.mkv"
    write_clip(path, 450, live=live)

    numbers, again = ([number for number, _ in clip_frames(path)] for _ in range(2))

    assert (cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) < 0) == live
    assert numbers == again == list(range(0, 450, 4))


def test_what_is_no_file_is_reported_and_links_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "toy") / "with_mask"
    (folder / "nothing.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()
    (folder / "back").symlink_to("..")
    write_picture(tmp_path / "elsewhere" / "linked.png", 500)
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(folder)

    found, said = ready(tmp_path / "toy")

    assert sorted(line.replace(f"{folder}/", "") for line in said) == [
        "back links back to a folder that contains it: left out",
        "folder.jpg is a folder, though its name is a file's: left out",
        "more/round links back to a folder that contains it: left out",
        "nothing.jpg is a link to nothing: left out",
        "pipe.jpg is not a file: left out",
    ]
    assert found.counts["left out"] == 5
    assert "linked.png" in {row.file for row in found.manifest}
    assert len(found.manifest) == 21


def test_a_name_that_is_not_utf_8_is_left_out_with_a_line_that_any_terminal_can_show(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "toy") / "with_mask"
    content = write_picture(folder / "line\nbreak.png", 500).read_bytes()
    Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff\xfe.png")).write_bytes(content)
    (folder / "ünï 😀.png").write_bytes(write_picture(folder / "a.png", 501).read_bytes())

    found, said = ready(tmp_path / "toy")
    found.write_manifest(tmp_path)

    assert said == [f"{folder}/bad\\udcff\\udcfe.png has a name that is not UTF-8, rename it: left out"]
    assert said[0].isprintable()
    assert {"line\nbreak.png", "ünï 😀.png"} <= {row.file for row in found.manifest}
    assert printable(folder / "line\nbreak.png").endswith("/line\\nbreak.png")


def test_a_data_set_whose_own_name_is_not_utf_8_is_rejected(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/toy\xff"))
    write_classes(tmp_path / "toy").rename(folder)

    with pytest.raises(DatasetUnusable, match=r"toy\\udcff has a name that is not UTF-8"):
        read_source(str(folder))


def test_a_picture_given_twice_is_counted_and_reported_once(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "toy" / "Train")
    (folder / "with_mask" / "empty.png").write_bytes(b"")

    found, said = ready(folder, folder, f"mask={folder / 'with_mask'}")

    assert len(found.manifest) == 20
    assert found.counts["left out"] == 1
    assert found.counts["given twice"] == 30
    assert said == [
        f"{folder}/with_mask/empty.png is empty: left out",
        f"toy/Train: {folder}/with_mask/0.png and 19 more files had been read before: counted once",
        f"with_mask: {folder}/with_mask/0.png and 9 more files had been read before: counted once",
    ]


def test_a_link_to_a_picture_of_the_same_folder_is_counted_once(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "toy")
    (folder / "with_mask" / "link.png").symlink_to("3.png")

    found, said = ready(folder)

    assert len(found.manifest) == 20
    assert said == [f"toy: {folder}/with_mask/link.png had been read before: counted once"]


@pytest.mark.parametrize(
    ("manifest", "what"),
    [(b"junk\n", "is damaged"), (b'{"file": "\xff"}\n', "is not UTF-8"), (None, "cannot be read")],
)
def test_a_run_whose_manifest_cannot_be_read_is_not_published(
    tmp_path: Path, manifest: bytes | None, what: str
) -> None:
    write_version(tmp_path / "run", "a")
    if manifest:
        (tmp_path / "run" / MANIFEST_NAME).write_bytes(manifest)

    with pytest.raises(ModelUnusable, match=rf"manifest\.jsonl {what}.*: train again"):
        copy_for_serving(tmp_path / "run", tmp_path / "served")
