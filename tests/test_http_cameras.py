"""HTTP cameras: streams of JPEGs in all manners, still pictures that are polled, passwords, slow and dead cameras."""

from __future__ import annotations

import contextlib
import http.server
import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from urllib.parse import urlsplit

import av
import numpy as np
import pytest
from http_camera import Manners, grey_jpeg, http_camera
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from producer.sources import timeouts
from producer.sources.http_auth import Digest, authorizer
from producer.sources.http_client import may_have_password
from producer.sources.jpeg_splitter import JpegSplitter
from producer.sources.picture_skipper import MAX_UNWAITED, PictureSkipper
from producer.sources.source import SourceFailed, SourceFrame
from producer.sources.source_spec import parse_source
from producer.sources.timeouts import SilenceLimit

LENGTH = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"


def frames_of(url: str, count: int, **options: float) -> list[SourceFrame]:
    with contextlib.closing(parse_source(url).open(**options)) as source:
        return list(islice(source, count))


def greys(frames: list[SourceFrame]) -> list[int]:
    return [round(float(frame.image.mean())) for frame in frames]


def failure_of(url: str) -> str:
    with pytest.raises(SourceFailed) as failed, contextlib.closing(parse_source(url).open()) as source:
        list(source)
    return str(failed.value)


# --- streams


@pytest.mark.parametrize(
    "manners",
    [
        Manners(),
        Manners(wrap=lambda jpeg: b"--picture\r\n" + LENGTH % len(jpeg) + jpeg + b"\r\n"),
        Manners(wrap=lambda jpeg: LENGTH % len(jpeg) + jpeg + b"\r\n--picture\r\n"),
        Manners(lead=b"--picture\r\n", wrap=lambda jpeg: LENGTH % len(jpeg) + jpeg + b"\r\n--picture\r\n"),
        Manners(wrap=lambda jpeg: b"--other\r\n" + LENGTH % len(jpeg) + jpeg),
        Manners(wrap=lambda jpeg: b"--picture\r\n" + LENGTH % 7 + jpeg + b"\r\n"),
        Manners(wrap=lambda jpeg: b"--picture\r\n\r\n" + jpeg[:-2] + b"\r\n"),
        Manners(wrap=lambda jpeg: jpeg),
        Manners(content_type="multipart/mixed", wrap=lambda jpeg: b"--picture\n\n" + jpeg + b"\n"),
    ],
    ids=[
        "plain",
        "length",
        "boundary after the picture",
        "boundary first and after",
        "another boundary",
        "wrong length",
        "no end of the picture",
        "nothing between",
        "line feeds alone",
    ],
)
def test_pictures_are_found_however_they_are_parted(manners: Manners) -> None:
    with http_camera(manners) as camera:
        frames = frames_of(camera.url, 4)

    assert greys(frames) == [50, 200, 50, 200]
    assert [frame.index for frame in frames] == [0, 1, 2, 3]


def test_a_thumbnail_inside_a_picture_is_not_taken_for_one() -> None:
    thumbnail = b"Exif\0\0" + grey_jpeg(9, (16, 16))
    jpegs = [grey_jpeg(50, extra=b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail), grey_jpeg(200)]

    with http_camera(Manners(jpegs=jpegs)) as camera:
        frames = frames_of(camera.url, 4)

    assert greys(frames) == [50, 200, 50, 200]


def test_a_damaged_picture_is_told_and_the_others_still_come() -> None:
    broken = b"\xff\xd8\xff\xfe\0\4no\xff\xd9"

    with http_camera(Manners(jpegs=[broken, grey_jpeg(200)])) as camera:
        frames = frames_of(camera.url, 4)

    assert [frame.error is None for frame in frames] == [False, True, False, True]
    assert all("JPEG" in frame.error for frame in frames[::2])


def test_a_picture_that_exif_says_is_turned_becomes_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6

    with http_camera(Manners(jpegs=[grey_jpeg(50, exif=exif)])) as camera:
        (frame,) = frames_of(camera.url, 1)

    assert (frame.width, frame.height) == (48, 64)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(1, 400), st.binary(max_size=40))
def test_pictures_are_found_in_pieces_of_any_size(chosen: list[int], piece: int, between: bytes) -> None:
    made = [grey_jpeg(grey, progressive=grey > 100) for grey in (10, 90, 150, 250)]
    between = between.replace(b"\xff", b"")
    stream = between.join(made[index] for index in chosen) + between
    splitter = JpegSplitter()

    found = [jpeg for at in range(0, len(stream), piece) for jpeg in splitter.add(stream[at : at + piece])]

    assert found == [made[index] for index in chosen]


@given(st.binary(max_size=3000), st.integers(1, 500))
def test_no_bytes_stop_the_search_for_pictures(noise: bytes, piece: int) -> None:
    splitter = JpegSplitter()

    for at in range(0, len(noise), piece):
        splitter.add(noise[at : at + piece])
    found = splitter.add(bytes(70_000) + grey_jpeg(50) * 2)

    assert found
    assert found[-1].endswith(b"\xff\xd9")


def test_a_camera_faster_than_decoding_is_never_far_behind_and_what_is_left_out_is_known() -> None:
    skipper, now, delays, left_out = PictureSkipper(), 0.0, [], 0

    for number in range(2000):
        sent_at, asked = number / 25, now
        now = max(now, sent_at) + 0.0002
        if skipper.is_late(now - asked):
            left_out += 1
            continue
        now += 0.09
        delays.append(now - sent_at)

    assert max(delays) < (MAX_UNWAITED + 2) * 0.09
    assert len(delays) + left_out == 2000
    assert len(delays) > 500


def test_a_camera_that_is_decoded_in_time_loses_nothing() -> None:
    skipper = PictureSkipper()

    late = [skipper.is_late(waited_s) for waited_s in [0.02, 0.0, 0.0, 0.06] * 100]

    assert not any(late)


# --- still pictures


@pytest.mark.parametrize(
    "manners",
    [
        Manners(is_still=True, content_type="image/jpeg"),
        Manners(is_still=True, content_type="image/jpeg", keeps_connection=False),
        Manners(is_still=True, content_type="application/octet-stream"),
        Manners(is_still=True, content_type="text/html", keeps_connection=False),
        Manners(is_still=True, content_type="image/pjpeg", jpegs=[grey_jpeg(50) + b"\r\n\0", grey_jpeg(200)[:-2]]),
    ],
    ids=["one connection", "a connection for each", "no type", "the type of a page", "stray bytes"],
)
def test_a_still_picture_is_asked_for_again_and_again(manners: Manners) -> None:
    with http_camera(manners) as camera:
        frames = frames_of(camera.url, 4, fps=50)

    assert sorted(greys(frames)) == [50, 50, 200, 200]
    assert camera.requests == 4


def test_a_still_picture_needs_one_connection_if_the_camera_keeps_it() -> None:
    with http_camera(Manners(is_still=True, content_type="image/jpeg")) as camera:
        frames_of(camera.url, 10, fps=100)

    assert camera.connections == 1


def test_a_still_picture_is_polled_at_the_camera_s_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("producer.sources.http_pictures.time.sleep", pauses.append)

    with http_camera(Manners(is_still=True, content_type="image/jpeg")) as camera:
        frames_of(camera.url, 3, fps=0.25)

    assert len(pauses) == 2
    assert all(2 < pause <= 4 for pause in pauses)


# --- passwords


@pytest.mark.parametrize("scheme", [("Basic", "MD5"), ("Digest", "MD5"), ("Digest", "SHA-256")])
@pytest.mark.parametrize("is_still", [True, False])
def test_a_camera_that_asks_for_a_password_plays(scheme: tuple[str, str], is_still: bool) -> None:
    content_type = "image/jpeg" if is_still else Manners.content_type
    manners = Manners(
        is_still=is_still, content_type=content_type, password="p@ss/w#1:", scheme=scheme[0], algorithm=scheme[1]
    )

    with http_camera(manners) as camera:
        frames = frames_of(f"http://admin:p%40ss%2Fw%231%3A@{camera.address}?channel=1&x=a b", 4, fps=50)

    assert sorted(greys(frames)) == [50, 50, 200, 200]


@pytest.mark.parametrize("scheme", ["Basic", "Digest"])
def test_a_wrong_password_is_said_but_not_shown(scheme: str) -> None:
    with http_camera(Manners(password="right", scheme=scheme)) as camera:
        reason = failure_of(f"http://admin:s3cret@{camera.address}")

    assert reason == (
        f"http://admin:***@{camera.address} cannot be opened: it rejects the user or the password (401); check both"
    )


def test_a_missing_password_is_said() -> None:
    with http_camera(Manners(password="right")) as camera:
        reason = failure_of(camera.url)

    assert "it needs a user and a password (401); write them as ://USER:PASSWORD@ in front of the host" in reason


@pytest.mark.parametrize(
    ("qop", "response"),
    [({"qop": "auth,auth-int"}, "6629fae49393a05397450978507c4ef1"), ({}, "670fd8c2df070c60b045671b8b24ff02")],
)
def test_a_digest_is_the_one_of_the_standard_s_example(
    qop: dict[str, str], response: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _bytes: "0a4f113b")
    parameters = {"realm": "testrealm@host.com", "nonce": "dcd98b7102dd2f0e8b11d0f600bfb0c093"} | qop
    digest = Digest(user="Mufasa", password="Circle Of Life", parameters=parameters)

    header = digest.authorize("GET", "/dir/index.html")

    assert f'response="{response}"' in header  # of RFC 2617, section 3.5
    assert "Circle" not in header + repr(digest)


def test_a_challenge_that_nobody_knows_has_no_answer() -> None:
    assert authorizer(["Negotiate", 'Digest realm="r", nonce="n", algorithm=whirlpool'], "admin", "x") is None


@contextmanager
def other_host(status: int) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Serve a picture, or an error; yield its URL, and the path and authorization of each request."""
    seen: list[tuple[str, str | None]] = []

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # which keeps the connection

        def do_GET(self) -> None:
            seen.append((self.path, self.headers.get("Authorization")))
            content = grey_jpeg(90)
            self.send_response(status)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/there", seen
        server.shutdown()


def test_a_redirect_is_followed_without_the_password_to_another_host() -> None:
    with (
        other_host(404) as (url, seen),
        http_camera(Manners(status=302, headers={"Location": url}, password="right")) as camera,
    ):
        reason = failure_of(f"http://admin:right@{camera.address}")

    assert seen == [("/there", None)]
    assert "it has nothing at this path (404)" in reason


def test_a_still_picture_that_another_host_has_is_asked_for_by_a_redirect_each_time() -> None:
    with (
        other_host(200) as (url, seen),
        http_camera(Manners(status=302, headers={"Location": url}, password="right")) as camera,
    ):
        frames = frames_of(f"http://admin:right@{camera.address}", 3, fps=50)

    assert greys(frames) == [90, 90, 90]
    assert set(seen) == {("/there", None)}


@pytest.mark.parametrize(
    ("url", "may"),
    [
        ("http://camera/other", True),
        ("https://camera/video", True),
        ("https://camera:8443/video", False),
        ("http://camera:8080/video", False),
        ("https://elsewhere/video", False),
    ],
)
def test_the_encrypted_port_of_the_same_camera_gets_the_password_too(url: str, may: bool) -> None:
    assert may_have_password(urlsplit(url), urlsplit("http://camera/video")) is may
    assert not may_have_password(urlsplit("http://camera/video"), urlsplit("https://camera/video"))


# --- slow and dead cameras


def test_a_stream_slower_than_the_read_timeout_plays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "READ_TIMEOUT_S", 0.1)

    with http_camera(Manners(period_s=0.3)) as camera:
        frames = frames_of(camera.url, 4)

    assert greys(frames) == [50, 200, 50, 200]


def test_a_stream_that_stays_silent_is_dead_after_three_of_its_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "READ_TIMEOUT_S", 0.1)

    with http_camera(Manners(period_s=0.2, count=4)) as camera:
        reason = failure_of(camera.url)

    assert float(re.search(r"broke off: no data came for ([\d.]+) s", reason)[1]) >= 0.59


def test_a_stream_that_never_sends_a_picture_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "FIRST_PICTURE_TIMEOUT_S", 0.3)

    with http_camera(Manners(count=0, lead=b"--picture\r\n")) as camera:
        reason = failure_of(camera.url)

    assert reason == f"{camera.url} broke off: no picture came within 0.3 s, although the connection stands"


def test_a_camera_is_dead_later_the_slower_it_is() -> None:
    fast, slow, unknown = SilenceLimit(0.0), SilenceLimit(0.0), SilenceLimit(0.0)

    for number in range(100):
        fast.note_picture(number / 20)
        slow.note_picture(number * 5.0)
    unknown.note_picture(0.0)

    assert (fast.limit_s, slow.limit_s, unknown.limit_s) == (4.0, 15.0, 30.0)
    assert slow.remaining_s(99 * 5.0 + 14) == pytest.approx(1)
    assert slow.remaining_s(99 * 5.0 + 20) == 0


# --- why no picture comes


@pytest.mark.parametrize(
    ("manners", "reason"),
    [
        (
            Manners(is_still=True, content_type="text/html", jpegs=[b"<html>"]),
            "serves text/html, no video; check the path of the address",
        ),
        (
            Manners(is_still=True, content_type="image/png", jpegs=[b"\x89PNG"]),
            "sends no JPEG (image/png); check the path of the address",
        ),
        (
            Manners(status=503),
            "cannot be opened: it is too busy (503); close other programs that watch it",
        ),
        (Manners(status=418), "cannot be opened: it answers with status 418"),
        (
            Manners(status=302, headers={"Location": "rtsp://elsewhere/"}),
            "cannot be opened: it redirects to an address that is no web page",
        ),
        (Manners(status=302, headers={"Location": "/again"}), "cannot be opened: it redirects without end"),
    ],
)
def test_a_camera_that_shows_nothing_says_why(manners: Manners, reason: str) -> None:
    with http_camera(manners) as camera:
        told = failure_of(camera.url)

    assert told == f"{camera.url} {reason}"


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example"])
def test_a_host_that_no_name_can_be_is_said_to_have_none(host: str) -> None:
    assert failure_of(f"http://{host}/video").endswith("cannot be opened: no host has this name; check the address")


def test_a_stream_of_another_kind_is_read_by_ffmpeg() -> None:
    encoded = io.BytesIO()
    with av.open(encoded, "w", format="mpegts") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(50):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="bgr24")))
        file.mux(stream.encode())

    manners = Manners(content_type="video/mp2t", jpegs=[encoded.getvalue()], wrap=lambda clip: clip, count=1)
    with http_camera(manners) as camera:
        (first,) = frames_of(camera.url, 1)

    assert (first.width, first.height) == (64, 48)
