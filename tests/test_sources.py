"""Sources: what a text names, pictures of every kind, videos whole and damaged, streams that fall silent."""

from __future__ import annotations

import http.server
import io
import logging
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.vision.jpeg import decode_jpeg
from producer.sources import timeouts
from producer.sources.folder import natural_order
from producer.sources.packet_reader import PacketReader
from producer.sources.picture_file import read_picture
from producer.sources.source import SourceFailed
from producer.sources.source_spec import parse_source

RED, BLUE = (0, 0, 255), (255, 0, 0)  # BGR


class MjpegCamera(http.server.ThreadingHTTPServer):
    """A camera that streams JPEGs over HTTP, as many as asked, and then falls silent without hanging up."""

    daemon_threads = True

    def __init__(self, jpegs: list[bytes], most: int | None) -> None:
        super().__init__(("127.0.0.1", 0), _MjpegRequest)
        self.jpegs = jpegs
        self.most = most
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/video"


class _MjpegRequest(http.server.BaseHTTPRequestHandler):
    server: MjpegCamera

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
        self.end_headers()
        sent = 0
        while self.server.most is None or sent < self.server.most:
            jpeg = self.server.jpegs[sent % len(self.server.jpegs)]
            header = f"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            try:
                self.wfile.write(header.encode() + jpeg + b"\r\n")
            except ConnectionError:
                return
            sent += 1
            if self.server.closing.wait(0.02):
                return
        self.server.closing.wait()

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def mjpeg_camera() -> Iterator[MjpegCamera]:
    camera = MjpegCamera([jpeg_of(RED), jpeg_of(BLUE)], most=None)
    threading.Thread(target=camera.serve_forever, daemon=True).start()
    yield camera
    camera.closing.set()
    camera.shutdown()
    camera.server_close()


@pytest.fixture
def silent_server() -> Iterator[int]:
    """The port of a server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]  # the system completes connections that nobody accepts


def jpeg_of(colour: tuple[int, int, int], size: tuple[int, int] = (64, 48), **options: object) -> bytes:
    packed = io.BytesIO()
    Image.new("RGB", size, colour[::-1]).save(packed, "JPEG", **options)
    return packed.getvalue()


def write_clip_with_latin_1_title(path: Path) -> None:
    """Write a film of three frames with sound, whose title is no UTF-8, nor are those of its streams."""
    with av.open(str(path), "w") as file:
        picture, sound = file.add_stream("libx264", rate=25), file.add_stream("aac", rate=8000)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        for titled in (file, picture, sound):
            titled.metadata["title"] = "Cafe by night"
        for _ in range(3):
            file.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="bgr24")))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        silence.rate = 8000
        file.mux([*sound.encode(silence), *picture.encode(), *sound.encode()])
    content = path.read_bytes()
    assert content.count(b"Cafe by night") == 3
    path.write_bytes(content.replace(b"Cafe by night", b"Caf\xe9 by night"))


def middle(frame: np.ndarray) -> list[int]:
    return frame[frame.shape[0] // 2, frame.shape[1] // 2].tolist()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0", "webcam"),
        ("/dev/video7", "webcam"),
        ("rtsp://camera.local/live", "rtsp"),
        ("RTSPS://user:word@camera.local:322/live", "rtsp"),
        ("https://camera.local/video.mjpg", "http"),
        ("demo", "demo"),
        ("demo:numbered", "demo"),
    ],
)
def test_a_text_names_its_kind_of_source(text: str, kind: str) -> None:
    assert parse_source(text).kind == kind


def test_a_file_is_a_video_or_a_picture_and_a_directory_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "film.mkv").touch()
    (tmp_path / "photo.JPG").touch()

    kinds = [parse_source(str(path)).kind for path in (tmp_path / "film.mkv", tmp_path / "photo.JPG", tmp_path)]

    assert kinds == ["video", "folder", "folder"]


@pytest.mark.parametrize(
    "text",
    [
        "nothing-here.mp4",
        "ftp://user:secret@host/film.mp4",
        "rtsp://",
        "rtsp://user:secret@host:port/",
        "rtsp:/user:secret@host/",
        "user:secret@host/stream",
        "http://user:[secret@host/",
        "http://user:secret:x//@host/",
        "",
        "a" * 300,
        "~no-such-user/film.mp4",
        "~\0",
        "~\ud800",
    ],
)
def test_a_text_that_can_name_no_source_fails_in_one_line_without_the_password(text: str) -> None:
    with pytest.raises(SourceFailed) as failed:
        parse_source(text).open()

    assert "\n" not in str(failed.value)
    assert "secret" not in str(failed.value)


def test_what_is_shown_of_a_source_has_no_password() -> None:
    spec = parse_source("rtsp://user:secret@camera.local/live")

    assert (spec.name, spec.text) == ("rtsp://user:***@camera.local/live", "rtsp://user:secret@camera.local/live")
    assert "secret" not in repr(spec)


@pytest.mark.parametrize(
    ("text", "numbered", "frames"), [("demo", False, None), ("demo:numbered", True, None), ("demo:frames=7", False, 7)]
)
def test_the_parameters_of_the_demo_are_parsed_once(text: str, numbered: bool, frames: int | None) -> None:
    spec = parse_source(text)

    assert (spec.kind, spec.numbered, spec.frames) == ("demo", numbered, frames)


def test_a_video_gives_every_frame_that_it_decodes_with_its_time(pictures: Path) -> None:
    source = parse_source(str(pictures / "hand-over-face" / "bird.mkv")).open()

    found = list(source)
    source.close()

    assert source.total == 64  # as the file claims
    assert [one.index for one in found] == list(range(63))
    assert {(one.width, one.height, one.image.shape) for one in found} == {(640, 480, (480, 640, 3))}
    assert [one.at_s for one in found] == pytest.approx([i / 30 for i in range(63)], abs=0.002)
    assert not source.is_live


def test_a_video_that_says_it_is_turned_is_shown_upright(tmp_path: Path) -> None:
    flat, turned, shown = tmp_path / "flat.mp4", tmp_path / "turned.mp4", tmp_path / "shown.png"
    halves = "color=red:64x96:d=0.2,format=yuv420p[l];color=blue:64x96:d=0.2,format=yuv420p[r];[l][r]hstack"
    subprocess.run(["ffmpeg", "-v", "error", "-filter_complex", halves, flat], check=True)
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", flat, "-c", "copy", "-metadata:s:v:0", "rotate=90", turned], check=True
    )

    subprocess.run(["ffmpeg", "-v", "error", "-i", turned, "-frames:v", "1", shown], check=True)

    first = next(iter(parse_source(str(turned)).open()))

    expected = np.asarray(Image.open(shown).convert("RGB"))[:, :, ::-1]  # as FFmpeg itself turns it
    assert (first.width, first.height) == (96, 128)
    assert np.abs(first.image.astype(int) - expected).max() < 12


def test_a_damaged_video_gives_what_is_left_and_says_so_once(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = bytearray((pictures / "hand-over-face" / "bird.mkv").read_bytes())
    damage = np.random.default_rng(5)
    for at in damage.integers(len(content) // 4, len(content) * 3 // 4, 400):
        content[at] = damage.integers(256)
    damaged = tmp_path / "damaged.mkv"
    damaged.write_bytes(content)

    found = list(parse_source(str(damaged)).open())

    assert 20 < len(found) <= 63
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) <= 2


def write_ten_greys(path: Path, codec: str, pixel_format: str) -> None:
    """Write a video of ten frames, each of another grey."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        for grey in range(0, 200, 20):
            image = np.full((48, 64, 3), grey, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        file.mux(stream.encode())


def test_damage_that_looks_like_what_ffmpeg_has_not_implemented_costs_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "damaged.avi"
    write_ten_greys(path, "mjpeg", "yuvj420p")
    content = bytearray(path.read_bytes())
    header = content.index(b"\xff\xc0", content.index(b"\xff\xc0", len(content) // 2) + 1)  # the header of a frame
    content[header + 11] = 0x33  # the sampling of its first component
    path.write_bytes(content)

    found = list(parse_source(str(path)).open())

    assert len(found) == 9


def test_a_frame_whose_colours_are_of_no_known_kind_costs_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "damaged.mov"
    write_ten_greys(path, "prores_ks", "yuv422p10le")
    content = bytearray(path.read_bytes())
    header = [match.start() for match in re.finditer(b"icpf", content)][4]  # of the fifth frame
    content[header + 18 : header + 21] = b"\x63\x63\x63"  # its primaries, transfer function and matrix
    path.write_bytes(content)

    found = list(parse_source(str(path)).open())

    assert len(found) == 9


def test_packets_end_where_pyav_fails_at_a_track_that_a_file_s_beginning_does_not_name() -> None:
    class Container:
        def demux(self, _: object) -> Iterator[str]:
            yield from ("first", "flush")
            raise IndexError("list index out of range")

    reader = PacketReader(Container(), None, name="clip.ts", content="video")

    assert list(reader.packets()) == ["first", "flush"]


def test_a_video_that_is_cut_off_gives_its_beginning(pictures: Path, tmp_path: Path) -> None:
    content = (pictures / "hand-over-face" / "bird.mkv").read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(content[: len(content) // 2])

    found = list(parse_source(str(cut)).open())

    assert 20 < len(found) < 63


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_video_whose_titles_are_no_utf_8_is_read(tmp_path: Path, suffix: str) -> None:
    clip = tmp_path / f"clip.{suffix}"
    write_clip_with_latin_1_title(clip)

    source = parse_source(str(clip)).open()
    found = list(source)
    source.close()

    assert [one.index for one in found] == [0, 1, 2]


@pytest.mark.parametrize("content", [b"", b"no video at all", b"\x1a\x45\xdf\xa3" + bytes(200)])
def test_a_file_that_is_no_video_fails_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "film.mkv"
    path.write_bytes(content)

    with pytest.raises(SourceFailed, match=r"film\.mkv") as failed:
        list(parse_source(str(path)).open())

    assert "\n" not in str(failed.value)


def test_a_file_whose_name_looks_like_a_url_is_a_file(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("concat:a.mkv").write_bytes((pictures / "hand-over-face" / "bird.mkv").read_bytes())

    assert len(list(parse_source("concat:a.mkv").open())) == 63


def test_a_folder_gives_its_pictures_in_natural_order_and_counts_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name in ("b10.jpg", "b9.jpg", "B1.JPEG", "a.png", ".hidden.jpg"):
        (tmp_path / name).write_bytes(jpeg_of(RED))
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "album.jpg").mkdir()

    source = parse_source(str(tmp_path)).open()

    assert [source_frame.name for source_frame in source] == ["a.png", "B1.JPEG", "b9.jpg", "b10.jpg"]
    assert source.total == 4
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}: pictures: 4; left out: folders: 1 (--recursive looks into them); "
        "no pictures: 1 (1 .txt); hidden: 1"
    ]


@given(st.lists(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1), max_size=6))
def test_any_names_can_be_ordered_and_their_order_does_not_depend_on_where_they_stood(names: list[str]) -> None:
    turned = names[::-1]

    assert sorted(names, key=natural_order) == sorted(turned, key=natural_order)


def test_a_folder_without_pictures_fails(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a picture")

    with pytest.raises(SourceFailed, match="holds no pictures"):
        parse_source(str(tmp_path)).open()


def test_a_folder_that_cannot_be_read_in_full_fails(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_of(RED))
    (tmp_path / "b.jpg").symlink_to("b" * 300)

    with pytest.raises(SourceFailed, match="cannot be read: File name too long"):
        parse_source(str(tmp_path)).open()


def test_a_jpeg_travels_as_its_own_bytes(tmp_path: Path) -> None:
    jpeg = jpeg_of(RED, (5, 3))
    (tmp_path / "one.jpg").write_bytes(jpeg)

    (found,) = parse_source(str(tmp_path / "one.jpg")).open()

    assert (found.jpeg, found.image, found.error) == (jpeg, None, None)
    assert (found.width, found.height) == (5, 3)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_jpeg_that_exif_says_is_turned_becomes_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new("RGB", (64, 32), "blue")
    image.paste("red", (0, 0, 32, 32))
    image.save(tmp_path / "turned.jpg", exif=exif, quality=95)

    found = read_picture(tmp_path / "turned.jpg", 0)

    # where the red half, which is stored on the left, is seen
    seen = {2: (16, 48), 3: (16, 48), 4: (16, 16), 5: (16, 16), 6: (16, 16), 7: (48, 16), 8: (48, 16)}[orientation]
    assert (found.width, found.height) == ((64, 32) if orientation < 5 else (32, 64))
    assert found.image[seen].tolist() == pytest.approx(RED, abs=12)


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "bgr"),
    [
        ("RGB", (200, 100, 50), "png", (50, 100, 200)),
        ("RGB", (200, 100, 50), "bmp", (50, 100, 200)),
        ("RGB", (200, 100, 50), "tif", (50, 100, 200)),
        ("RGB", (200, 100, 50), "webp", (50, 100, 200)),
        ("RGBA", (200, 100, 50, 255), "png", (50, 100, 200)),
        ("RGBA", (200, 100, 50, 0), "png", (255, 255, 255)),
        ("CMYK", (0, 0, 0, 255), "tif", (0, 0, 0)),
        ("L", 77, "png", (77, 77, 77)),
        ("LA", (77, 255), "png", (77, 77, 77)),
        ("1", 1, "png", (255, 255, 255)),
        ("P", 0, "gif", (0, 0, 0)),
        ("I;16", 77 * 256 + 200, "png", (77, 77, 77)),
        ("I;16", 77 * 256 + 200, "tif", (77, 77, 77)),
        ("F", 77.4, "tif", (77, 77, 77)),
    ],
)
def test_a_picture_of_any_mode_becomes_bgr(
    tmp_path: Path, mode: str, colour: object, suffix: str, bgr: tuple[int, int, int]
) -> None:
    image = Image.new(mode, (33, 21), colour)
    if mode == "P":
        image.putpalette([0, 0, 0])
    image.save(tmp_path / f"a.{suffix}")

    found = read_picture(tmp_path / f"a.{suffix}", 0)

    assert found.error is None
    assert (found.image.dtype, found.image.shape, found.jpeg) == (np.uint8, (21, 33, 3), None)
    assert middle(found.image) == pytest.approx(bgr, abs=6)


def test_a_grey_jpeg_and_one_of_one_pixel_are_pictures(tmp_path: Path) -> None:
    Image.new("L", (40, 30), 90).save(tmp_path / "grey.jpg")
    Image.new("RGB", (1, 1)).save(tmp_path / "tiny.jpg")

    found = list(parse_source(str(tmp_path)).open())

    decoded = [decode_jpeg(source_frame.jpeg).shape for source_frame in found]
    assert decoded == [(30, 40, 3), (1, 1, 3)]


def test_bad_pictures_in_a_folder_are_told_one_by_one_and_the_good_ones_still_come(tmp_path: Path) -> None:
    (tmp_path / "1-empty.jpg").write_bytes(b"")
    (tmp_path / "2-text.jpg").write_text("not a picture")
    Image.new("L", (12_000, 9_000)).save(tmp_path / "3-huge.png")
    Image.new("L", (12_000, 9_000)).save(tmp_path / "4-huge.jpg")
    content = io.BytesIO()
    Image.effect_noise((200, 200), 50).save(content, "PNG")
    (tmp_path / "5-cut.png").write_bytes(content.getvalue()[:4000])
    (tmp_path / "6-header.jpg").write_bytes(jpeg_of(RED)[:20])
    (tmp_path / "7-good.jpg").write_bytes(jpeg_of(RED))

    found = list(parse_source(str(tmp_path)).open())

    assert [bool(source_frame.error) for source_frame in found] == [True] * 6 + [False]
    assert all("\n" not in source_frame.error for source_frame in found[:-1])
    assert "108 megapixels" in found[2].error
    assert "108 megapixels" in found[3].error


def test_a_picture_that_may_not_be_read_or_has_gone_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_of(RED))
    (tmp_path / "b.jpg").write_bytes(jpeg_of(RED))
    source = parse_source(str(tmp_path)).open()

    (tmp_path / "a.jpg").unlink()
    errors = [source_frame.error for source_frame in source]

    assert errors == ["cannot be read: No such file or directory", None]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow warns of damage that it reads past
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(["png", "gif", "bmp", "tiff", "webp", "jpeg"]),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=12),
    kept=st.floats(0.05, 1),
)
def test_no_damage_to_a_picture_stops_a_folder(
    tmp_path: Path, suffix: str, changes: list[tuple[int, int]], kept: float
) -> None:
    packed = io.BytesIO()
    Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(packed, suffix)
    content = bytearray(packed.getvalue())
    for at, value in changes:
        content[at % min(len(content), 400)] = value
    (tmp_path / "a.png").write_bytes(content[: max(1, int(len(content) * kept))])

    found = read_picture(tmp_path / "a.png", 0)

    assert (found.image is None) + (found.jpeg is None) + (found.error is None) == 2


def test_an_http_camera_plays(mjpeg_camera: MjpegCamera) -> None:
    source = parse_source(mjpeg_camera.url).open()

    colours = [middle(source_frame.image) for source_frame, _ in zip(source, range(6), strict=False)]
    source.close()

    assert (source.kind, source.is_live, source.total) == ("http", True, None)
    first, second = sorted(colours[:2])  # with which of the two it begins does not matter
    assert first == pytest.approx(RED, abs=12)
    assert second == pytest.approx(BLUE, abs=12)
    assert colours[2:] == colours[:2] * 2


def test_an_http_camera_that_falls_silent_is_noticed(
    mjpeg_camera: MjpegCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert timeouts.READ_TIMEOUT_S < 5
    monkeypatch.setattr(timeouts, "READ_TIMEOUT_S", 1.0)
    mjpeg_camera.most = 100
    source = parse_source(mjpeg_camera.url).open()

    with pytest.raises(SourceFailed, match="no data came for 1 s"):
        list(source)

    source.close()


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_server_that_accepts_and_hangs_is_noticed(
    silent_server: int, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert timeouts.OPEN_TIMEOUT_S < 5
    monkeypatch.setattr(timeouts, "OPEN_TIMEOUT_S", 0.5)

    with pytest.raises(SourceFailed, match=r"no answer within 0\.5 s") as failed:
        parse_source(f"{scheme}://user:secret@127.0.0.1:{silent_server}/video").open()

    assert "user:***@" in str(failed.value)
    assert "secret" not in str(failed.value)


def test_a_camera_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceFailed, match="there is no camera /dev/video63"):
        parse_source("63").open()
