"""RTSP cameras with the manners of real ones: far key frames, wrong rates, one transport, slow, silent, undecodable."""

from __future__ import annotations

import contextlib
import io
import socket
from collections.abc import Iterator

import av
import numpy as np
import pytest
from av.codec.hwaccel import hwdevices_available
from hypothesis import given
from hypothesis import strategies as st
from rtsp_camera import GREY, Manners, grey_clip, rtsp_camera

from producer.sources import network, timeouts
from producer.sources.packet_skipper import MAX_UNWAITED_S, PacketSkipper
from producer.sources.source import RtspTransport, Source, SourceFailed, SourceFrame
from producer.sources.source_spec import parse_source

ONE_KEY_FRAME = grey_clip(250, key_every=250)
SOUND_ONLY = "m=audio 0 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\na=control:track1\r\n"
TRANSPORT_STREAM = "m=video 0 RTP/AVP 33\r\na=control:track1\r\n"
UNKNOWN_VIDEO = "m=video 0 RTP/AVP 96\r\na=rtpmap:96 X-NEVER-HEARD-OF/90000\r\na=control:track1\r\n"


@pytest.fixture
def closing() -> Iterator[list[Source]]:
    """Sources that are closed with the test."""
    sources: list[Source] = []
    yield sources
    for source in sources:
        source.close()


def first_picture(source: Source) -> SourceFrame:
    return next(iter(source))


# --- the first picture


@pytest.mark.parametrize(
    "manners",
    [
        Manners(clip=ONE_KEY_FRAME, fps=15),
        Manners(clip=ONE_KEY_FRAME, fps=15, in_band=True),
        Manners(clip=ONE_KEY_FRAME, fps=4),
        Manners(clip=ONE_KEY_FRAME, fps=30, transports=("udp",)),
    ],
    ids=["15 a second", "parameter sets in the stream", "4 a second", "UDP"],
)
def test_the_first_picture_is_the_first_key_frame_however_far_the_next_one_is(
    manners: Manners, closing: list[Source]
) -> None:
    with rtsp_camera(manners) as camera:
        closing.append(parse_source(camera.url).open())

        first = first_picture(closing[0])
        sent = camera.sent

        assert first.image.mean() == pytest.approx(GREY, abs=2)
        assert sent < len(ONE_KEY_FRAME)  # so it came before a second key frame would have


def test_video_inside_a_transport_stream_is_found(closing: list[Source]) -> None:
    packed = io.BytesIO()
    with av.open(packed, "w", format="mpegts") as file:
        stream = file.add_stream("libx264", rate=25, options={"tune": "zerolatency", "g": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(100):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="bgr24")))
        file.mux(stream.encode())
    content = packed.getvalue()
    chunks = [[content[at : at + 7 * 188]] for at in range(0, len(content), 7 * 188)]

    with rtsp_camera(Manners(clip=chunks, fps=50, media=TRANSPORT_STREAM, payload_type=33)) as camera:
        closing.append(parse_source(camera.url).open())
        first = first_picture(closing[0])

    assert (first.width, first.height) == (64, 48)


def test_a_session_that_begins_between_key_frames_shows_the_next_one(closing: list[Source]) -> None:
    clip = grey_clip(60, key_every=30)

    with rtsp_camera(Manners(clip=[clip[0][:-1], *clip[10:]], fps=25)) as camera:
        closing.append(parse_source(camera.url).open())
        first = first_picture(closing[0])

    assert first.image.mean() == pytest.approx(GREY + 30, abs=2)


# --- timestamps at the wrong rate


def decoded_of(real_fps: float, declared_fps: float, decode_s: float, packets: int = 1000) -> list[bool]:
    """Return which packets are decoded of a camera whose timestamps run at a rate of their own."""
    skipper, now, decoded = PacketSkipper(), 0.0, []
    for number in range(packets):
        asked = now
        now = max(now, number / real_fps) + 0.0005
        at_s = 500 + number / declared_fps
        is_key = number % 250 == 0
        decoded.append(skipper.should_decode(at_s=at_s, is_key=is_key, came=now, waited_s=now - asked))
        now += decode_s * decoded[-1]
    return decoded


@pytest.mark.parametrize(
    ("real_fps", "declared_fps"), [(21, 25), (12, 30), (24.9, 25), (5, 6), (1, 2), (30, 25)], ids=str
)
def test_a_camera_whose_times_run_at_the_wrong_rate_plays_every_picture(real_fps: float, declared_fps: float) -> None:
    decoded = decoded_of(real_fps, declared_fps, decode_s=0.4 / real_fps)

    assert all(decoded)


@given(st.floats(0.001, 0.2), st.floats(0.7, 1.3))
def test_a_camera_that_is_faster_than_decoding_is_never_late_whatever_its_times_say(
    decode_s: float, wrong: float
) -> None:
    skipper, now, delays = PacketSkipper(), 0.0, []

    for number in range(1500):
        sent_at, asked = number / 25, now
        now = max(now, sent_at) + 0.0005
        at_s = 9000 + sent_at * wrong
        if skipper.should_decode(at_s=at_s, is_key=number % 25 == 0, came=now, waited_s=now - asked):
            now += decode_s
            delays.append(now - sent_at)

    assert max(delays) < MAX_UNWAITED_S + 3 * decode_s + 0.1
    assert len(delays) > 10


def test_what_is_left_out_is_counted_with_the_next_picture(
    closing: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    skipped = iter([False, True, True, True, False])
    monkeypatch.setattr(PacketSkipper, "should_decode", lambda _self, **_times: not next(skipped, False))
    clip = grey_clip(40, key_every=1)

    with rtsp_camera(Manners(clip=clip, fps=50)) as camera:
        closing.append(parse_source(camera.url).open())
        frames = [frame for frame, _ in zip(closing[0], range(4), strict=False)]

    assert sorted(frame.skipped for frame in frames) == [0, 0, 0, 3]


# --- transports


@pytest.mark.parametrize(
    ("accepted", "setting", "used"),
    [
        (("tcp", "udp"), "auto", ["tcp"]),
        (("udp",), "auto", ["tcp", "udp"]),
        (("tcp",), "auto", ["tcp"]),
        (("tcp", "udp"), "udp", ["udp"]),
        (("tcp", "udp"), "tcp", ["tcp"]),
    ],
)
def test_tcp_is_tried_first_then_udp_unless_a_setting_says_otherwise(
    accepted: tuple[str, ...], setting: RtspTransport, used: list[str], closing: list[Source]
) -> None:
    with rtsp_camera(Manners(clip=ONE_KEY_FRAME, transports=accepted)) as camera:
        closing.append(parse_source(camera.url).open(rtsp_transport=setting))
        first = first_picture(closing[0])

        assert (first.width, first.height) == (64, 48)
        assert camera.setups == used


def test_a_camera_that_answers_with_udp_whatever_it_is_asked_for_is_asked_for_udp(closing: list[Source]) -> None:
    with rtsp_camera(Manners(clip=ONE_KEY_FRAME, answers_udp=True)) as camera:
        closing.append(parse_source(camera.url).open())
        first = first_picture(closing[0])

        assert (first.width, first.height) == (64, 48)
        assert camera.setups == ["tcp", "udp"]


@pytest.mark.parametrize(("accepted", "setting"), [("udp", "tcp"), ("tcp", "udp")])
def test_a_transport_that_the_camera_rejects_is_named(accepted: str, setting: RtspTransport) -> None:
    with (
        rtsp_camera(Manners(clip=ONE_KEY_FRAME, transports=(accepted,))) as camera,
        pytest.raises(SourceFailed, match=r"offers no transport .* \(461\); use --rtsp-transport auto"),
    ):
        parse_source(camera.url).open(rtsp_transport=setting)


# --- decoding on a device


@pytest.mark.parametrize("setting", ["none", "auto", hwdevices_available()[0]])
def test_a_camera_plays_whether_or_not_a_device_can_decode_it(
    setting: str, closing: list[Source], caplog: pytest.LogCaptureFixture
) -> None:
    with rtsp_camera(Manners(clip=ONE_KEY_FRAME)) as camera:
        closing.extend(parse_source(camera.url).open(hwaccel=setting) for _ in range(2))
        first = first_picture(closing[1])

    assert first.image.mean() == pytest.approx(GREY, abs=2)
    assert len([record for record in caplog.records if "the CPU does" in record.message]) <= 1


def test_a_device_that_ffmpeg_does_not_know_is_named_with_those_it_knows() -> None:
    with (
        rtsp_camera(Manners(clip=ONE_KEY_FRAME)) as camera,
        pytest.raises(SourceFailed, match="--hwaccel abacus: FFmpeg knows none, auto, "),
    ):
        parse_source(camera.url).open(hwaccel="abacus")


# --- slow and dead cameras


def test_a_camera_slower_than_the_read_timeout_plays(closing: list[Source], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "READ_TIMEOUT_S", 0.2)

    with rtsp_camera(Manners(clip=ONE_KEY_FRAME[:20], fps=2)) as camera:
        closing.append(parse_source(camera.url).open())
        frames = [frame for frame, _ in zip(closing[0], range(4), strict=False)]

    assert [frame.index for frame in frames] == [0, 1, 2, 3]


def test_a_camera_that_falls_silent_is_noticed(closing: list[Source], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "READ_TIMEOUT_S", 0.5)

    with rtsp_camera(Manners(clip=ONE_KEY_FRAME[:30], fps=25)) as camera:
        closing.append(parse_source(camera.url).open())

        with pytest.raises(SourceFailed, match=r"broke off: no data came for [\d.]+ s"):
            list(closing[0])


# --- why no picture comes


def reason_of(manners: Manners, address: str = "") -> str:
    """Return why a camera shows no picture. address: in place of the host, with user and password."""
    with rtsp_camera(manners) as camera, pytest.raises(SourceFailed) as failed:
        url = camera.url.replace("127.0.0.1", address or "127.0.0.1")
        with contextlib.closing(parse_source(url).open()) as source:
            list(source)
    return str(failed.value).replace(camera.url, "URL")


@pytest.mark.parametrize(
    ("manners", "reason"),
    [
        (Manners(media=SOUND_ONLY), "URL offers no video; choose another stream of the camera"),
        (
            Manners(media=UNKNOWN_VIDEO),
            "URL sends a kind of video that FFmpeg cannot decode; set the camera to H.264",
        ),
        (
            Manners(status="401 Unauthorized"),
            "URL cannot be opened: it needs a user and a password (401); write them as ://USER:PASSWORD@ in front of "
            "the host",
        ),
        (
            Manners(status="404 Not Found"),
            "URL cannot be opened: it has nothing at this path (404); check the path, which the camera's manual names",
        ),
        (
            Manners(status="453 Not Enough Bandwidth"),
            "URL cannot be opened: it rejects the request; is another program watching it, or is the path wrong?",
        ),
        (
            Manners(status="503 Service Unavailable"),
            "URL cannot be opened: it has a fault of its own (5xx); close other programs that watch it, or start the "
            "camera again",
        ),
    ],
)
def test_a_camera_that_shows_nothing_says_why(manners: Manners, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "OPEN_TIMEOUT_S", 1.0)

    assert reason_of(manners) == reason


def test_a_password_that_is_rejected_is_not_shown() -> None:
    reason = reason_of(Manners(status="401 Unauthorized"), "admin:s3cret@127.0.0.1")

    assert "it rejects the user or the password (401); check both" in reason
    assert "admin:***@127.0.0.1" in reason
    assert "s3cret" not in reason


def test_a_port_that_nobody_listens_on_is_explained() -> None:
    with socket.socket() as bound:  # the port is taken, but nobody listens on it
        bound.bind(("127.0.0.1", 0))
        url = f"rtsp://127.0.0.1:{bound.getsockname()[1]}/stream"

        with pytest.raises(SourceFailed, match=r"nothing listens there \(connection refused\)"):
            parse_source(url).open()


def test_a_camera_that_accepts_all_and_sends_nothing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "OPEN_TIMEOUT_S", 1.0)
    monkeypatch.setattr(timeouts, "READ_TIMEOUT_S", 0.2)
    monkeypatch.setattr(timeouts, "FIRST_PICTURE_TIMEOUT_S", 0.5)
    clip = ONE_KEY_FRAME[:1]

    reason = reason_of(Manners(clip=clip, sends=False))

    assert reason == "URL broke off: no picture came within 0.5 s, although the connection stands"


def test_a_camera_that_sends_no_key_frame_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "KEY_FRAME_TIMEOUT_S", 0.5)
    clip = [ONE_KEY_FRAME[0][:-1], *ONE_KEY_FRAME[1:]]

    reason = reason_of(Manners(clip=clip))

    assert reason == (
        "URL has sent h264 without a key frame for 0.5 s; set a shorter interval of key frames (I-frames) in the camera"
    )


def test_a_camera_that_sends_what_cannot_be_decoded_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "KEY_FRAME_TIMEOUT_S", 0.5)
    noise = np.random.default_rng(1).bytes(200)

    reason = reason_of(Manners(clip=[ONE_KEY_FRAME[0][:-1], *[[b"\x65" + noise]] * 200]))

    assert reason.startswith("URL sends h264 that cannot be decoded: ")
