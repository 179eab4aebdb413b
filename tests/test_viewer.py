"""The viewer as a process: its HTTP answers, the frames that each browser gets, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
from conftest import Server, wait_until
from feeding import Feed, Page, SlowPage, Viewer, alive, face, feeding, number_in, numbered_picture, serving, viewing

from pipeline.bus import keys
from pipeline.runtime.settings import Settings
from pipeline.vision.arrays import Image
from pipeline.vision.drawing import COLOURS_BGR
from pipeline.vision.jpeg import decode_jpeg, encode_jpeg
from viewer.app import main
from viewer.audience import ACK_TIMEOUT_S, FIRST_WINDOW, MAX_WINDOW, Audience, DisplayFrame, Mailbox
from viewer.live_view import SNAPSHOT_TIMEOUT_S
from viewer.mjpeg import AnnotatedJpegEncoder, stream_parts
from viewer.serving.listening import PortInUse, listen


@pytest.fixture(scope="module")
def standing() -> Iterator[tuple[Server, Viewer]]:
    with serving() as server, viewing(server.url) as viewer:
        yield server, viewer


@pytest.fixture
def server(standing: tuple[Server, Viewer]) -> Server:
    standing[0].client.flushall()
    return standing[0]


@pytest.fixture
def viewer(standing: tuple[Server, Viewer]) -> Viewer:
    return standing[1]


def shown(seq: int, at_s: float = 0.0, camera: str = "demo") -> DisplayFrame:
    return DisplayFrame(
        camera=camera,
        frame_id=f"{camera}:1:{seq}",
        seq=seq,
        width=640,
        height=360,
        faces=(),
        labelled=True,
        captured_at=0.0,
        age_s=0.0,
        at_s=at_s,
        jpeg=b"",
    )


def test_a_browser_has_at_most_one_unacknowledged_frame_and_newer_replaces_older() -> None:
    mailbox = Mailbox()
    mailbox.watch(["demo"])

    sent = [mailbox.offer(shown(seq), 0.1) for seq in (1, 2, 3)]
    following = mailbox.acknowledge("demo", "demo:1:1", 0.2)

    assert [seqs(frames) for frames in sent] == [[1], [], []]
    assert seqs(following) == [3]


def test_cameras_of_one_browser_do_not_wait_for_each_other() -> None:
    mailbox = Mailbox()
    mailbox.watch(["demo", "lobby"])
    mailbox.offer(shown(1), 0.0)

    assert mailbox.offer(shown(1, camera="lobby"), 0.0)


def test_an_acknowledgement_that_does_not_come_is_asked_for_once_after_5_seconds_and_frees_nothing() -> None:
    mailbox = Mailbox()
    mailbox.watch(["demo"])
    mailbox.offer(shown(1), 0.0)

    probes = [mailbox.take_probe(at_s) for at_s in (0.0, ACK_TIMEOUT_S - 0.01, ACK_TIMEOUT_S, ACK_TIMEOUT_S + 1)]
    late = [mailbox.offer(shown(2, at_s), at_s) for at_s in (ACK_TIMEOUT_S, 60.0)]

    assert probes == [None, None, 1, None]
    assert late == [[], []]


def test_the_answer_to_a_probe_frees_the_places_of_the_frames_before_it() -> None:
    mailbox = Mailbox()
    mailbox.watch(["demo", "lobby"])
    mailbox.offer(shown(1), 0.0)
    probe = mailbox.take_probe(ACK_TIMEOUT_S)
    assert probe
    mailbox.offer(shown(1, 5.0, "lobby"), 5.0)
    for camera in ("demo", "lobby"):
        mailbox.offer(shown(2, 5.5, camera), 5.5)

    following = mailbox.answer_probe(probe, 6.0)

    assert [(frame.camera, frame.seq) for frame in following] == [("demo", 2)]


def test_an_answer_without_a_probe_frees_nothing() -> None:
    mailbox = Mailbox()
    mailbox.watch(["demo"])
    mailbox.offer(shown(1), 0.0)
    mailbox.offer(shown(2), 0.1)

    assert mailbox.answer_probe(10**9, 0.2) == []


def test_an_acknowledgement_of_another_frame_changes_nothing() -> None:
    mailbox = Mailbox()
    mailbox.watch(["demo"])
    mailbox.offer(shown(1), 0.0)
    mailbox.offer(shown(2), 0.0)

    assert mailbox.acknowledge("demo", "demo:1:7", 0.1) == []
    assert mailbox.acknowledge("lobby", "demo:1:1", 0.1) == []


def test_a_frame_that_waited_too_long_is_not_sent() -> None:
    mailbox = Mailbox()
    mailbox.watch(["demo"])
    mailbox.offer(shown(1), 0.0)
    mailbox.offer(shown(2, at_s=0.0), 0.0)

    assert mailbox.acknowledge("demo", "demo:1:1", 4.0) == []


def test_a_browser_that_looks_away_is_sent_nothing() -> None:
    mailbox = Mailbox()
    mailbox.watch(["demo"])
    mailbox.watch([])

    assert mailbox.offer(shown(1), 0.0) == []


class Link:
    """A browser of 64 cameras with 10 frames a second, behind a link that carries one frame after the other.

    The clock is the test's. carrying: what is on its way. delivered: the frames in their order, each with its delay.
    """

    def __init__(self, frame_s: float) -> None:
        self.frame_s = frame_s
        self.cameras = [f"camera-{number}" for number in range(64)]
        self.carrying: deque[DisplayFrame] = deque()
        self.most_carried = 0
        self.delivered: list[tuple[DisplayFrame, float]] = []
        self._now = 0.0
        self._seq = 0
        self._free_at = 0.0
        self._audience = Audience(self._send, lambda *_: None, lambda: self._now)
        self._audience.watch("page", self.cameras)

    def run(self, for_s: float) -> None:
        """Let time pass in steps of 10 ms; the browser acknowledges each frame as soon as it arrives."""
        for step in range(round(for_s * 100)):
            self._now += 0.01
            if step % 10 == 0:
                self._seq += 1
                for camera in self.cameras:
                    self._audience.show(shown(self._seq, self._now, camera))
            while self.carrying and self._now >= self._free_at:
                frame = self.carrying.popleft()
                self._free_at += self.frame_s
                self.delivered.append((frame, self._now - frame.at_s))
                self._audience.acknowledge("page", frame.camera, frame.frame_id)

    def _send(self, _: str, frame: DisplayFrame) -> None:
        if not self.carrying:
            self._free_at = self._now + self.frame_s
        self.carrying.append(frame)
        self.most_carried = max(self.most_carried, len(self.carrying))


def test_a_slow_link_carries_new_frames_only_and_each_camera_in_its_turn() -> None:
    link = Link(frame_s=0.3)

    link.run(60)

    delays = [delay_s for _, delay_s in link.delivered]
    counts = Counter(frame.camera for frame, _ in link.delivered)
    assert max(delays) < 2
    assert len(delays) > 190  # of 200 that the link can carry
    assert {counts[camera] for camera in link.cameras} <= {2, 3, 4}


def test_a_fast_link_carries_every_frame_soon_after_the_beginning() -> None:
    link = Link(frame_s=0.001)

    link.run(1)
    link.delivered.clear()
    link.run(1)

    assert len(link.delivered) == 64 * 10


def test_a_link_that_becomes_slow_carries_no_more_than_the_window() -> None:
    link = Link(frame_s=0.001)
    link.run(2)

    link.frame_s = 0.3
    link.run(20)
    link.delivered.clear()
    link.run(20)

    assert link.most_carried <= MAX_WINDOW
    assert max(delay_s for _, delay_s in link.delivered) < 2


def seqs(frames: list[DisplayFrame]) -> list[int]:
    return [frame.seq for frame in frames]


def test_a_page_is_sent_each_frame_with_its_own_pixels_and_labels(server: Server, viewer: Viewer) -> None:
    feed, page = Feed(server), Page(viewer.url)
    page.emit("watch", ["demo"])

    with feeding([feed], [face("no_mask", 0.92)]):
        for _ in range(10):
            metadata, jpeg = page.wait_for_frame()

            assert number_in(decode_jpeg(jpeg)) == metadata["seq"]
            assert metadata["frame_id"] == f"demo:{feed.start}:{metadata['seq']}"
            assert metadata["faces"][0]["text"] == "No Mask (Confidence: 92%)"
            assert metadata["age_ms"] < 1000
    page.close()


def test_while_nobody_watches_results_are_read_rarely_and_the_first_browser_still_sees_frames(
    server: Server, viewer: Viewer
) -> None:
    feed = Feed(server)

    def questions() -> int:
        return int(server.client.info("commandstats")["cmdstat_xread"]["calls"])

    with feeding([feed], [face()], fps=40):
        wait_until(lambda: feed.seq > 20, 10, "frames are published")
        before, first = questions(), feed.seq
        wait_until(lambda: feed.seq > first + 80, 30, "more frames are published")
        asked, results = questions() - before, feed.seq - first
        page = Page(viewer.url)
        page.emit("watch", ["demo"])
        shown_frame, _ = page.wait_for_frame()
    page.close()

    assert asked < results / 2
    assert shown_frame["labelled"]


def test_results_out_of_order_are_shown_in_order(server: Server, viewer: Viewer) -> None:
    feed, page = Feed(server), Page(viewer.url)
    page.emit("watch", ["demo"])
    with feeding([feed], []):
        page.wait_for_frame()
    entries = []
    for _ in range(3):
        feed.publish()
        entries.append(feed.take())

    for entry in reversed(entries):
        feed.finish(entry, face())

    seqs = []
    while not seqs or seqs[-1] < entries[-1].record.seq:
        metadata, _ = page.wait_for_frame()
        seqs.append(metadata["seq"])
    assert seqs == sorted(seqs)
    page.close()


def test_a_browser_that_acknowledges_nothing_does_not_delay_another(server: Server, viewer: Viewer) -> None:
    slow, quick = Page(viewer.url), Page(viewer.url)
    for page in (slow, quick):
        page.emit("watch", ["demo"])

    with feeding([Feed(server)], [face()]):
        got = []
        while len(got) < 20:
            metadata, _ = quick.wait_for_frame()
            got.append(metadata["seq"])
        for_slow = slow.frames(0.5)

    assert got == sorted(set(got))
    assert got[-1] - got[0] < 2 * len(got)
    assert len(for_slow) == 1
    for page in (slow, quick):
        page.close()


def test_a_browser_that_reads_slowly_gets_new_frames_of_all_cameras_and_stays_connected(
    server: Server, viewer: Viewer
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (180, 320, 3), np.uint8)
    jpeg = encode_jpeg(noise, 90)
    feeds = [Feed(server, f"camera-{number}") for number in range(32)]
    page = SlowPage(viewer.url, [feed.camera for feed in feeds], bytes_per_s=8 * len(jpeg))

    with feeding(feeds, [face()], fps=2, jpeg=jpeg):
        counts: Counter[str] = Counter()
        while len(counts) < len(feeds) or min(counts.values()) < 3:
            counts[page.wait_for_frame()] += 1

    on_their_way = [sum(sent_at < at <= came_at for _, at in page.frames) for sent_at, came_at in page.frames]
    assert max(on_their_way) <= MAX_WINDOW + 1  # the clocks are compared by milliseconds
    assert max(counts.values()) - min(counts.values()) <= 2
    page.close()


def test_a_browser_that_acknowledges_nothing_is_sent_no_more_until_it_answers_a_probe(
    server: Server, viewer: Viewer
) -> None:
    feeds = [Feed(server, f"camera-{number}") for number in range(8)]
    page = Page(viewer.url)
    page.emit("watch", [feed.camera for feed in feeds])

    told: list[tuple[str, list[object]]] = []

    def probed() -> bool:
        told.extend([event] if (event := page.next_event()) else [])
        return bool(told) and told[-1][0] == "probe"

    with feeding(feeds, [face()], fps=4):
        wait_until(probed, 15, "a probe is sent")
        page.emit("probe", *told[-1][1])
        page.wait_for("frame")

    assert [name for name, _ in told].count("frame") == FIRST_WINDOW
    page.close()


def test_a_browser_is_sent_only_what_it_watches(server: Server, viewer: Viewer) -> None:
    page = Page(viewer.url)
    page.emit("watch", ["lobby"])

    with feeding([Feed(server, "demo"), Feed(server, "lobby")], [face()]):
        cameras = set()
        for _ in range(5):
            metadata, _ = page.wait_for_frame()
            cameras.add(metadata["camera"])

    assert cameras == {"lobby"}
    page.close()


def test_a_camera_without_labels_is_shown_by_its_newest_frame_and_says_so(server: Server, viewer: Viewer) -> None:
    feed, page = Feed(server), Page(viewer.url)
    page.emit("watch", ["demo"])
    with feeding([feed], [face()]):
        page.wait_for_frame()

    newest = feed.publish()
    unlabelled, jpeg = page.wait_for_frame(labelled=False)
    feed.label(face())
    back, _ = page.wait_for_frame()

    assert unlabelled["seq"] == newest.seq == number_in(decode_jpeg(jpeg))
    assert unlabelled["faces"] == []
    assert back["frame_id"] == unlabelled["frame_id"]
    page.close()


@pytest.mark.parametrize("wrong", [None, "demo", [["demo"]], ["../demo", 7, None], ["x"] * 1000])
def test_a_page_that_sends_nonsense_is_ignored(server: Server, viewer: Viewer, wrong: object) -> None:
    page = Page(viewer.url)

    page.emit("watch", wrong)
    page.emit("ack", wrong, wrong)
    page.emit("probe", wrong)
    page.emit("watch")
    page.emit("nothing-we-know", wrong)

    assert page.wait_for("status")
    page.close()


def test_another_sites_page_gets_no_socket(server: Server, viewer: Viewer) -> None:
    assert socket_status(viewer, origin="http://elsewhere.example") == 403


def socket_status(viewer: Viewer, **headers: str) -> int:
    """Return the status with which a request for a WebSocket is rejected."""
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    address = viewer.url + "socket.io/?EIO=4&transport=websocket"
    return requests.get(address, headers=upgrade | headers, timeout=5).status_code


def test_health_says_what_is_missing(server: Server, viewer: Viewer) -> None:
    missing = requests.get(viewer.url + "healthz", timeout=5)
    with alive(server, "detector", "classifier"):
        well = wait_until(lambda: requests.get(viewer.url + "healthz", timeout=5).json()["ok"], 5, "health is ok")

    assert missing.status_code == 503
    assert missing.json() == {
        "ok": False,
        "reasons": [
            "no live detector: start one with maskwatch detect",
            "no live classifier: start one with maskwatch classify",
        ],
    }
    assert well


def test_the_page_stays_up_without_redis_and_pictures_come_back_by_themselves() -> None:
    with serving() as server, viewing(server.url) as viewer:
        folder = Path(server.url.removeprefix("unix://")).parent
        away = folder / "away"
        page = Page(viewer.url)
        page.emit("watch", ["demo"])
        server.client.ping()
        (folder / "s").rename(away)
        server.client.client_kill_filter(_type="normal", skipme=True)

        health = wait_until(lambda: reasons_of(viewer, "cannot be reached"), 5, "health tells")
        front = requests.get(viewer.url, timeout=5)
        status = requests.get(viewer.url + "api/status", timeout=5)
        reported = wait_until(lambda: "cannot be reached" in str(page.next("health")), 5, "the page is told")
        away.rename(folder / "s")
        with feeding([Feed(server)], [face()]):
            metadata, _ = page.wait_for("frame", 10)

        page.close()

    assert health and reported
    assert (front.status_code, status.status_code) == (200, 503)
    assert metadata["labelled"]


def reasons_of(viewer: Viewer, part: str) -> bool:
    answer = requests.get(viewer.url + "healthz", timeout=5)
    return answer.status_code == 503 and part in str(answer.json()["reasons"])


def test_each_page_is_sent_a_status_when_it_connects(server: Server) -> None:
    with viewing(server.url, before="app.STATUS_INTERVAL_S = float('inf')") as viewer:
        pages = []
        for _ in range(3):
            pages.append(Page(viewer.url))
            (status,) = pages[-1].wait_for("status")
            assert status["cameras"] == []


def test_status_lists_cameras_with_their_ledgers(server: Server, viewer: Viewer) -> None:
    feed = Feed(server)
    feed.show(face())
    feed.publish()
    feed.drop("stale")

    (camera,) = requests.get(viewer.url + "api/status", timeout=5).json()["cameras"]

    assert camera["name"] == "demo"
    assert camera["ledger"] == {"produced": 2, "labelled": 1, "dropped": {"stale": 1}, "in_flight": 0}


def test_a_snapshot_is_the_newest_labelled_frame_with_its_box(server: Server, viewer: Viewer) -> None:
    feed = Feed(server, "porch")

    def snapshot_of_a_new_frame() -> Image | None:
        result = feed.show(face("no_mask", 0.9, (200, 80, 320, 220)))
        answer = requests.get(viewer.url + "cameras/porch/snapshot.jpg", timeout=5)
        picture = decode_jpeg(answer.content) if answer.headers["Content-Type"] == "image/jpeg" else None
        return picture if picture is not None and number_in(picture) >= result.seq - 1 else None

    picture = wait_until(lambda: wrapped(snapshot_of_a_new_frame()), 5, "a snapshot of the newest frame")[0]

    line = picture[100:200, 200].astype(int).mean(axis=0)  # JPEG blurs a line of one pixel, but not along it
    assert np.abs(line - COLOURS_BGR["no_mask"]).max() < 90


def test_a_snapshot_of_a_slow_camera_whose_pixels_are_not_in_redis_waits_for_its_next_frame(
    server: Server, viewer: Viewer
) -> None:
    feed, url = Feed(server, "yard"), viewer.url + "cameras/yard/snapshot.jpg"

    def number() -> int | None:
        answer = requests.get(url, timeout=5)
        return number_in(decode_jpeg(answer.content)) if answer.ok else None

    def is_followed() -> bool:
        feed.publish(age_s=8)
        feed.label(face())
        return number() is not None

    wait_until(is_followed, 10, "the viewer knows frames of 8 s ago")
    newest = feed.show(face())
    wait_until(lambda: number() == newest.seq, 5, "it knows the newest one")
    server.client.delete(newest.pixels_key)
    begun = time.monotonic()

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(requests.get, url, timeout=20)
        wait_until(lambda: asked.done() or time.monotonic() > begun + 2 * SNAPSHOT_TIMEOUT_S, 5, "it still waits")
        feed.show(face())
        answer = asked.result()

    assert answer.status_code == 200
    assert number_in(decode_jpeg(answer.content)) == newest.seq + 1


def wrapped(picture: Image | None) -> list[Image]:
    """Return the array in a list, because an array has no truth value."""
    return [] if picture is None else [picture]


def test_a_camera_that_does_not_exist_is_not_found(server: Server, viewer: Viewer) -> None:
    for path in ("snapshot.jpg", "stream.mjpg"):
        answer = requests.get(f"{viewer.url}cameras/nobody/{path}", timeout=5)

        assert answer.status_code == 404
        assert answer.text == "there is no camera 'nobody'; /api/status lists them\n"


def test_a_camera_without_a_frame_has_no_snapshot(server: Server, viewer: Viewer) -> None:
    Feed(server)

    answer = requests.get(viewer.url + "cameras/demo/snapshot.jpg", timeout=5)

    assert (answer.status_code, answer.text) == (503, "camera demo has no labelled frame right now\n")


def test_a_stream_is_frames_in_order_each_with_its_own_number(server: Server, viewer: Viewer) -> None:
    with feeding([Feed(server)], [face()]):
        numbers = [number_in(picture) for picture in pictures_of(viewer, 10)]

    assert numbers == sorted(set(numbers))


def test_a_stream_of_a_silent_camera_does_not_pass_as_live(server: Server, viewer: Viewer) -> None:
    Feed(server)

    (picture,) = pictures_of(viewer, 1)

    assert picture[:100].max() < 100


def pictures_of(viewer: Viewer, count: int) -> list[np.ndarray]:
    found, buffer = [], b""
    with requests.get(viewer.url + "cameras/demo/stream.mjpg", stream=True, timeout=5) as answer:
        assert answer.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
        for chunk in answer.iter_content(4096):
            buffer += chunk
            *whole, buffer = buffer.split(b"--frame\r\n")
            found += [decode_jpeg(part.split(b"\r\n\r\n", 1)[1]) for part in whole if part]
            if len(found) >= count:
                return found[:count]
    raise AssertionError("the stream ended")


class SlowStream:
    """A stream whose camera sends a frame every five seconds, three times, and is then silent for 20 seconds."""

    camera = "gate"

    def __init__(self) -> None:
        frame = DisplayFrame(
            camera="gate", frame_id="gate-1-1", seq=1, width=640, height=360, faces=(), labelled=True, captured_at=0,
            age_s=0, at_s=0, jpeg=encode_jpeg(numbered_picture(1), 90),
        )  # fmt: skip
        self.left = [frame, *[None] * 4, frame, *[None] * 4, frame, *[None] * 20]

    def take(self, _seconds: float) -> DisplayFrame | None:
        return self.left.pop(0)


def test_a_slow_camera_is_not_shown_as_offline_between_its_frames() -> None:
    stream = SlowStream()
    parts = stream_parts(lambda: bool(stream.left), stream, AnnotatedJpegEncoder(), lambda: 5.0)  # type: ignore[arg-type]

    shown = [len(stream.left) for _ in parts]

    assert shown[1:] == [30, 25, 20, 5, 4, 3, 2, 1, 0]  # offline in the end


def test_one_viewer_too_many_is_rejected_and_a_closed_connection_makes_room(server: Server) -> None:
    with viewing(server.url, max_viewers=2) as viewer, feeding([Feed(server)], [face()]):
        page = Page(viewer.url)
        stream = requests.get(viewer.url + "cameras/demo/stream.mjpg", stream=True, timeout=5)

        no_stream = stream_status(viewer)
        no_socket = socket_status(viewer)
        page.close()
        wait_until(lambda: stream_status(viewer) == 200, 5, "there is room again")
        stream.close()

    assert stream.status_code == 200
    assert (no_stream, no_socket) == (503, 503)


def stream_status(viewer: Viewer) -> int:
    """Return the status with which a request for a camera's stream is answered."""
    with requests.get(viewer.url + "cameras/demo/stream.mjpg", stream=True, timeout=5) as answer:
        return answer.status_code


def test_a_hundred_browsers_leave_the_viewer_answering(server: Server) -> None:
    with viewing(server.url) as viewer, ThreadPoolExecutor(20) as pool:
        pages = list(pool.map(lambda _: Page(viewer.url), range(100)))

        answer = requests.get(viewer.url + "healthz", timeout=5)
        one_more = socket_status(viewer)
        for page in pages:
            page.close()

    assert answer.json()["reasons"]
    assert one_more == 503


def test_answers_carry_headers_that_keep_other_sites_out(server: Server, viewer: Viewer) -> None:
    headers = requests.get(viewer.url, timeout=5).headers

    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(PortInUse) as refused:
            main(Settings(redis_url="unix:///nowhere", port=port))

    assert str(refused.value) == (
        f"cannot listen on 127.0.0.1 port {port}: Address already in use; choose another --port or --host"
    )


def test_a_port_that_is_about_to_become_free_is_waited_for() -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    threading.Timer(0.3, taken.close).start()

    with listen("127.0.0.1", port) as listening:
        assert listening.getsockname()[1] == port


def test_a_killed_viewer_ends_and_leaves_its_port(server: Server) -> None:
    with viewing(server.url) as viewer:
        port = int(viewer.url.rstrip("/").rpartition(":")[2])
        assert requests.get(viewer.url, timeout=5).ok
        worker = worker_of(viewer)

        viewer.process.kill()
        wait_until(lambda: not lives(worker), 10, "the worker is gone")

        listen("127.0.0.1", port).close()


def test_a_camera_whose_data_is_broken_ends_nothing(server: Server, viewer: Viewer) -> None:
    page = Page(viewer.url)
    page.emit("watch", ["broken", "demo"])
    server.client.zadd("{s0}:cameras", {"broken": 1, b"\xff": 1})
    server.client.set("{s0}:newest:frames:broken", "text")
    server.client.hset("{s0}:ledger:broken", "produced", "many")
    worker = worker_of(viewer)

    with feeding([Feed(server)], [face()]):
        metadata = [page.wait_for_frame()[0] for _ in range(20)]
        Feed(server, "later")
        wait_until(lambda: "later" in str(page.next("status")), 5, "the status goes on")

    assert {one["camera"] for one in metadata} == {"demo"}
    assert worker_of(viewer) == worker
    page.close()


def test_a_camera_comes_back_after_a_start_from_the_future(server: Server, viewer: Viewer) -> None:
    page, forged = Page(viewer.url), Feed(server)
    forged.start = 10**15
    page.emit("watch", ["demo"])
    with feeding([forged], [face()]):
        page.wait_for_frame()
    real = Feed(server)

    with feeding([real], [face()]):
        shown = wait_until(
            lambda: page.wait_for_frame()[0]["frame_id"].startswith(f"demo:{real.start}:"), 5, "it is shown"
        )

    assert shown
    page.close()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_viewer_ends_soon_and_whole_however_many_watch(server: Server, how: signal.Signals) -> None:
    before = set(Path("/tmp").glob("wgunicorn-*"))  # noqa: S108 -- where gunicorn would leave files
    with viewing(server.url) as viewer, feeding([Feed(server)], [face()]):
        page = Page(viewer.url)
        page.emit("watch", ["demo"])
        page.wait_for("frame")
        stream = requests.get(viewer.url + "cameras/demo/stream.mjpg", stream=True, timeout=5)
        worker = worker_of(viewer)

        viewer.process.send_signal(how)
        status = viewer.process.wait(3)
        wait_until(lambda: not lives(worker), 3, "the worker is gone")

        stream.close()
    assert status == (-signal.SIGKILL if how == signal.SIGKILL else 0)
    assert set(Path("/tmp").glob("wgunicorn-*")) == before  # noqa: S108
    if how != signal.SIGKILL:
        assert f"-{worker}-" not in str(server.client.zrange(keys.PROCESSES, 0, -1))


def worker_of(viewer: Viewer) -> int:
    """Return the process that serves: the only child of the one that was started."""
    pid = viewer.process.pid
    (worker,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(worker)


def lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except OSError:
        return False


def test_the_viewer_ends_when_its_parent_does(server: Server) -> None:
    ours, theirs = os.pipe()
    os.set_inheritable(ours, True)
    with viewing(server.url, parent_fd=ours) as viewer:
        page = Page(viewer.url)

        os.close(theirs)

        assert viewer.process.wait(3) == 0
        page.close()
    os.close(ours)


def test_a_worker_that_dies_is_replaced(server: Server) -> None:
    with viewing(server.url) as viewer:
        assert requests.get(viewer.url, timeout=5).ok
        worker = worker_of(viewer)

        os.kill(worker, signal.SIGKILL)

        assert requests.get(viewer.url, timeout=5).ok
        assert worker_of(viewer) != worker
