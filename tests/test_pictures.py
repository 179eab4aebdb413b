"""Pictures as phones, cameras, scanners and browsers write them, and folders as people keep them."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from feeding import REPOSITORY
from PIL import Image

from pipeline.vision.jpeg import BadImage, decode_jpeg, jpeg_size
from pipeline.vision.pictures import to_8_bit
from producer.files.outputs import PictureWriter
from producer.sources.picture_file import read_picture
from producer.sources.source import SourceFailed, SourceFrame
from producer.sources.source_spec import parse_source

WIDTH, HEIGHT = 96, 64
QUANTIZATION, SCAN, END = b"\xff\xdb", b"\xff\xda", b"\xff\xd9"


def picture() -> np.ndarray:
    """Return a picture with red at the left and blue at the right, RGB."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, : WIDTH // 2, 0] = 200
    image[:, WIDTH // 2 :, 2] = 200
    return image


def jpeg(image: np.ndarray | None = None) -> bytes:
    packed = io.BytesIO()
    Image.fromarray(picture() if image is None else image).save(packed, "JPEG", quality=95)
    return packed.getvalue()


def is_picture(bgr: np.ndarray) -> bool:
    left, right = bgr[HEIGHT // 2, WIDTH // 4].astype(int), bgr[HEIGHT // 2, 3 * WIDTH // 4].astype(int)
    return bgr.shape == (HEIGHT, WIDTH, 3) and left[2] > left[0] + 100 and right[0] > right[2] + 100


def before(marker: bytes, extra: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(marker, extra + marker, 1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.removesuffix(END) + b"\x00\x01\x02" + END,
        lambda content: content.removesuffix(END),
        lambda content: content + b"\x00" * 40,
        before(QUANTIZATION, b"\x00\x00"),
        before(b"\xff\xc4", b"\x00"),
        before(SCAN, b"\x11\x22\x33"),
    ],
    ids=["before the end", "no end", "after the end", "before a table", "before another table", "before the scan"],
)
def test_a_jpeg_with_stray_bytes_or_without_its_end_is_read_as_browsers_do(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(damage(jpeg()))

    found = read_picture(path, 0)

    assert (found.error, found.width, found.height) == (None, WIDTH, HEIGHT)
    assert is_picture(decode_jpeg(found.jpeg))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("extra", [b"", b"\x00\x00"], ids=["", "with stray bytes"])
def test_a_jpeg_of_which_a_part_is_missing_is_refused(share: float, extra: bytes) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    content = before(QUANTIZATION, extra)(jpeg(noise))
    start = content.index(SCAN)
    cut = content[: start + round(share * (len(content) - start))]

    assert jpeg_size(cut) == (WIDTH, HEIGHT)
    with pytest.raises(BadImage, match="damaged JPEG"):
        decode_jpeg(cut)


@pytest.mark.parametrize("suffix", ["heic", "heif", "avif"])
@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (HEIGHT, WIDTH), (1, 3)])
def test_phones_pictures_are_read_whole(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    path = tmp_path / f"IMG_0001.{suffix.upper()}"
    Image.new("RGB", size, (200, 30, 30)).save(path, {"heic": "HEIF", "heif": "HEIF"}.get(suffix, "AVIF"), quality=95)

    (found,) = parse_source(str(path)).open()

    assert (found.error, found.width, found.height) == (None, *size)
    assert found.image[0, 0].tolist() == pytest.approx([30, 30, 200], abs=12)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 2040, 4080]], np.uint16), [0, 127, 254]),
        (np.array([[0, 511, 1023]], np.uint16), [0, 127, 255]),
        (np.array([[0, 30_000, 65_535]], np.uint16), [0, 116, 255]),
        (np.array([[0, 100, 255]], np.uint16), [0, 100, 255]),
        (np.array([[-5, 0, 16_383]], np.int32), [0, 0, 255]),
        (np.array([[0, 0.5, 1]], np.float32), [0, 127, 255]),
        (np.array([[0, 77.4, 255]], np.float32), [0, 77, 255]),
        (np.array([[np.nan, -1, 65_535]], np.float64), [0, 0, 255]),
        (np.zeros((1, 3), np.float32), [0, 0, 0]),
    ],
    ids=["12 bit", "10 bit", "16 bit", "8 bit", "14 bit", "0..1", "0..255", "0..65535", "black"],
)
def test_values_of_any_depth_fill_8_bit(values: np.ndarray, expected: list[int]) -> None:
    assert to_8_bit(values).tolist() == [expected]


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
def test_a_picture_of_12_bit_in_a_file_of_16_is_not_dark(tmp_path: Path, suffix: str, channels: int) -> None:
    path = tmp_path / f"a.{suffix}"
    deep = np.linspace(0, 4095, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    assert cv2.imwrite(str(path), np.dstack([deep] * channels) if channels > 1 else deep)

    found = read_picture(path, 0)

    assert (found.error, found.image.dtype, found.image.shape) == (None, np.uint8, (HEIGHT, WIDTH, 3))
    assert found.image[-1, -1].tolist() == pytest.approx([255, 255, 255], abs=2)
    assert found.image[HEIGHT // 2, 0].tolist() == pytest.approx([128, 128, 128], abs=2)


def write_album(folder: Path) -> None:
    """Write pictures under the names that people have for them, some in folders, among other files."""
    (folder / "2024" / "may").mkdir(parents=True)
    for name in ("download.jfif", "no suffix", "photo.jpg_large", "2024/b.jpg", "2024/may/c.JPG"):
        (folder / name).write_bytes(jpeg())
    Image.fromarray(picture()).save(folder / "really_webp.jpg", "WEBP", quality=95)
    Image.fromarray(picture()).save(folder / "new.avif", "AVIF", quality=95)
    (folder / "notes.txt").write_text("of people")
    (folder / "film.mp4").write_bytes(b"\x00\x00\x00\x20ftypisom")
    (folder / ".DS_Store").write_bytes(b"\x00")
    (folder / "2024" / "again").symlink_to(folder, target_is_directory=True)


def test_pictures_are_found_by_what_they_hold_and_the_rest_is_said_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_album(tmp_path)

    found = list(parse_source(str(tmp_path)).open())

    names = ["download.jfif", "new.avif", "no suffix", "photo.jpg_large", "really_webp.jpg"]
    assert [one.name for one in found] == names
    assert [one.error for one in found] == [None] * 5
    assert all(is_picture(one.image if one.image is not None else decode_jpeg(one.jpeg)) for one in found)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        (
            "WARNING",
            f"{tmp_path}: pictures: 5; left out: folders: 1 (--recursive looks into them); "
            "no pictures: 2 (1 .txt, 1 .mp4); hidden: 1",
        )
    ]


def test_a_recursive_source_has_the_pictures_of_all_folders_in_it_but_follows_no_links(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    write_album(tmp_path)

    source = replace(parse_source(str(tmp_path)), recursive=True).open()

    names = [one.name for one in source]
    assert source.total == 7
    assert names[:2] == ["2024/b.jpg", "2024/may/c.JPG"]
    assert "folders: 1 " in caplog.text


def test_a_folder_of_folders_says_how_to_look_into_them(tmp_path: Path) -> None:
    (tmp_path / "DCIM").mkdir()

    with pytest.raises(SourceFailed, match=r"holds no pictures .*; --recursive looks into the folders in it"):
        parse_source(str(tmp_path)).open()


def source_frame(name: str) -> SourceFrame:
    return SourceFrame(name=name, index=0, width=WIDTH, height=HEIGHT)


@pytest.mark.parametrize("name", ["n" * 248 + ".jpg", "ä" * 124 + ".avif", "n" * 255])
def test_a_picture_with_a_long_name_is_written(tmp_path: Path, name: str) -> None:
    writer = PictureWriter(tmp_path, numbered=False)

    writer.write(source_frame(name), picture())

    (written,) = tmp_path.iterdir()
    assert written.name[:100] == name[:100]
    assert cv2.imread(str(written)) is not None


def test_two_pictures_are_never_written_to_one_file(tmp_path: Path) -> None:
    writer = PictureWriter(tmp_path, numbered=False)

    for name in ("a.gif.png", "a.gif", "below/a.gif"):
        writer.write(source_frame(name), picture())

    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    assert written == ["a-2.gif.png", "a.gif.png", "below/a.gif.png"]


def write_odd_ones(folder: Path) -> tuple[set[str], set[str]]:
    """Write 40 files of odd kinds, eight of each of five; return the pictures among them, and the damaged ones."""
    good, bad = set(), set()
    for number in range(8):
        image = Image.fromarray(picture())
        image.save(folder / f"phone-{number}.HEIC", "HEIF", quality=95)
        (folder / f"saved {number}").write_bytes(jpeg())
        (folder / f"camera-{number}.jpg").write_bytes(before(QUANTIZATION, b"\x00\x00")(jpeg()).removesuffix(END))
        (folder / f"cut-{number}.jpg").write_bytes(jpeg()[: -number - 60])
        (folder / f"notes-{number}.txt").write_text("of people")
        good |= {f"phone-{number}.HEIC", f"saved {number}", f"camera-{number}.jpg"}
        bad.add(f"cut-{number}.jpg")
    return good, bad


def test_of_a_folder_with_one_odd_file_in_five_each_is_labelled_told_or_counted(tmp_path: Path) -> None:
    folder, lines, out = tmp_path / "album", tmp_path / "out.jsonl", tmp_path / "labelled"
    folder.mkdir()
    for number in range(160):
        (folder / f"plain-{number}.jpg").write_bytes(jpeg())
    odd, bad = write_odd_ones(folder)
    command = [sys.executable, "-m", "maskwatch", "label", str(folder), "--json", str(lines), "--out", str(out)]

    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)

    found = [json.loads(line) for line in lines.read_text().splitlines()]
    plain = {f"plain-{number}.jpg" for number in range(160)}
    warnings = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert done.returncode == 1
    assert {line["name"] for line in found} == plain | odd | bad
    assert {line["name"] for line in found if "error" in line} == bad
    assert {path.name for path in out.iterdir()} == {
        name if Path(name).suffix == ".jpg" else f"{name}.png" for name in plain | odd
    }
    assert [line.partition(": pictures: ")[2] for line in warnings] == ["192; left out: no pictures: 8 (8 .txt)"]
    assert done.stderr.splitlines()[-1].startswith("192 frames, 0 faces: 0 with a mask, 0 without; 8 frames could not")
