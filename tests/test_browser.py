"""The page in a real browser: the canvas, the texts beside it, and that old frames are never shown as live."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Server, missing, wait_until
from feeding import BITS, BLOCK_PX, Feed, Page, Viewer, alive, face, feeding, serving, viewing
from playwright.sync_api import Browser, expect, sync_playwright
from playwright.sync_api import Page as Tab

from pipeline.bus.messages import Reason
from viewer.security.authenticator import password_hash

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OFFLINE = ["--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
PASSWORD = "correct horse battery staple"  # noqa: S105 -- it opens nothing
BOX = (200.0, 100.0, 320.0, 240.0)

ON_CANVAS = """([bits, blockPx, camera]) => {
  const canvas = document.querySelector(`canvas[data-camera="${camera}"]`);
  if (!canvas?.dataset.frameId) return null;
  const context = canvas.getContext("2d");
  const scale = Number(canvas.dataset.scale);
  const at = (x, y) => [...context.getImageData(x * scale, y * scale, 1, 1).data].slice(0, 3);
  let number = 0;
  for (let bit = 0; bit < bits; bit++) {
    if (at(bit * blockPx + blockPx / 2, canvas.height / scale - blockPx / 2)[0] > 127) number += 2 ** bit;
  }
  return {
    number,
    frameId: canvas.dataset.frameId,
    faces: JSON.parse(canvas.dataset.faces),
    drawn: Number(canvas.dataset.drawnCount),
    edges: [at(200, 170), at(260, 100), at(319.5, 170), at(260, 239.5)],
    inside: at(212, 170),
  };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        missing("there is no chromium on this machine")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", *OFFLINE])
        yield running
        running.close()


@pytest.fixture(scope="module")
def standing() -> Iterator[tuple[Server, Viewer]]:
    with serving() as server, viewing(server.url) as viewer:
        yield server, viewer


@pytest.fixture
def server(standing: tuple[Server, Viewer]) -> Server:
    standing[0].client.flushall()
    return standing[0]


@pytest.fixture
def tab(browser: Browser, standing: tuple[Server, Viewer], server: Server) -> Iterator[Tab]:
    with opened(browser, standing[1]) as tab:
        yield tab


class opened:  # noqa: N801 -- reads as what it does
    """A page of the viewer in its own window; errors in it fail the test, except those that match `but`."""

    def __init__(self, browser: Browser, viewer: Viewer, but: str = "ERR_CONNECTION_REFUSED", **window: Any) -> None:
        self._context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}} | window)
        self._errors: list[str] = []
        self._viewer = viewer
        self._but = but

    def __enter__(self) -> Tab:
        tab = self._context.new_page()
        tab.on("pageerror", lambda error: self._errors.append(str(error)))
        tab.on("console", lambda line: self._errors.append(line.text) if line.type == "error" else None)
        tab.goto(self._viewer.url)
        return tab

    def __exit__(self, *_: object) -> None:
        self._context.close()
        assert [error for error in self._errors if not re.search(self._but, error)] == []


def on_canvas(tab: Tab, camera: str = "demo") -> dict[str, Any] | None:
    found: dict[str, Any] | None = tab.evaluate(ON_CANVAS, [BITS, BLOCK_PX, camera])
    return found


def waited(tab: Tab, condition: Callable[[dict[str, Any]], bool], what: str, camera: str = "demo") -> dict[str, Any]:
    """Return the content of the canvas once it meets the condition."""

    def met() -> dict[str, Any] | None:
        found = on_canvas(tab, camera)
        return found if found and condition(found) else None

    return wait_until(met, 10, what)


def tile(tab: Tab, camera: str = "demo") -> Any:
    return tab.locator(f'article[data-camera="{camera}"]')


def test_each_picture_is_drawn_with_its_own_frames_boxes(server: Server, tab: Tab) -> None:
    feed = Feed(server)
    seen = set()

    with feeding([feed], [face("mask", 0.96, BOX)]):
        ends = time.monotonic() + 3
        while time.monotonic() < ends or len(seen) < 10:
            found = waited(tab, lambda found: bool(found["faces"]), "a labelled frame is drawn")
            assert found["frameId"] == f"demo:{feed.start}:{found['number']}"
            seen.add(found["number"])

    assert max(seen) - min(seen) >= 9


@pytest.mark.parametrize(
    ("label", "colour", "text"),
    [("mask", [86, 180, 233], "Mask (Confidence: 96%)"), ("no_mask", [213, 94, 0], "No Mask (Confidence: 96%)")],
)
def test_a_box_has_the_colour_and_the_text_of_its_label(
    server: Server, tab: Tab, label: Any, colour: list[int], text: str
) -> None:
    camera = label.replace("_", "-")

    with feeding([Feed(server, camera)], [face(label, 0.96, BOX)]):
        found = wait_until(lambda: on_canvas(tab, camera), 10, "a frame is drawn")

    assert found["edges"] == [colour] * 4
    assert found["inside"] != colour
    assert [one["text"] for one in found["faces"]] == [text]


def test_a_tile_says_what_is_seen_and_how_it_fares(server: Server, tab: Tab) -> None:
    feed = Feed(server)

    faces = [face("mask", 0.9, BOX), face("mask", 0.9, (400, 50, 460, 120)), face("no_mask", 0.9, (10, 10, 90, 90))]
    with alive(server, "detector", "classifier"), feeding([feed], faces):
        expect(tile(tab).locator(".state")).to_have_text("Live", timeout=10_000)
        expect(tile(tab).locator(".faces")).to_have_text("2 masks, 1 without")
        expect(tile(tab).locator(".dropped")).to_have_text(re.compile(r"none of \d+"))
        expect(tile(tab).locator(".latency")).to_have_text(re.compile(r"\d+ ms"))
        expect(tab.locator("#count-cameras")).to_have_text("1 of 1")
        expect(tab.locator("#banner")).to_be_hidden()
        expect(tab.locator("#spoken")).to_have_text("demo: 2 masks, 1 without", timeout=6_000)
        expect(tile(tab).locator("canvas")).to_have_attribute("aria-label", "demo: 2 masks, 1 without")


def test_the_words_below_a_picture_are_those_of_its_own_faces(server: Server, tab: Tab) -> None:
    feed = Feed(server)
    drawn = """() => [document.querySelector(".faces").textContent, document.querySelector("canvas").dataset.faces]"""
    with alive(server, "detector", "classifier"):
        with feeding([feed], []):
            expect(tile(tab).locator(".state")).to_have_text("Live", timeout=10_000)
        for count in (1, 2, 3, 1):
            frame = feed.publish()
            feed.label(*[face("mask", 0.9, BOX)] * count)
            waited(tab, lambda found, frame_id=frame.frame_id: found["frameId"] == frame_id, "the frame is drawn")
            words, faces = tab.evaluate(drawn)
            assert len(json.loads(faces)) == count
            assert words == ("1 mask" if count == 1 else f"{count} masks")


@pytest.fixture(scope="module")
def locked(standing: tuple[Server, Viewer]) -> Iterator[Viewer]:
    with viewing(standing[0].url, password_hash=password_hash(PASSWORD)) as viewer:
        yield viewer


def sign_in(tab: Tab, password: str = PASSWORD) -> None:
    tab.get_by_label("Password").fill(password)
    tab.get_by_role("button", name="Sign in").click()


def expect_login(tab: Tab, viewer: Viewer) -> None:
    """Wait for the sign-in page: a page that is loading another may never close (Playwright's issue 42068)."""
    expect(tab).to_have_url(viewer.url + "login")
    expect(tab.get_by_role("button", name="Sign in")).to_be_visible()


def test_one_signs_in_sees_labelled_frames_and_signs_out(browser: Browser, server: Server, locked: Viewer) -> None:
    with opened(browser, locked) as tab, feeding([Feed(server)], [face("mask", 0.96, BOX)]):
        expect_login(tab, locked)
        sign_in(tab)

        found = waited(tab, lambda found: bool(found["faces"]) and found["drawn"] > 3, "labelled frames are drawn")
        tab.get_by_role("button", name="Sign out").click()
        expect_login(tab, locked)
        tab.goto(locked.url)

        expect_login(tab, locked)
        assert [one["text"] for one in found["faces"]] == ["Mask (Confidence: 96%)"]


def test_a_page_whose_session_ends_elsewhere_says_so(browser: Browser, server: Server, locked: Viewer) -> None:
    with opened(browser, locked, but="status of 401|Authentication failed") as tab, feeding([Feed(server)], [face()]):
        sign_in(tab, "open sesame please")
        expect(tab.get_by_role("alert")).to_have_text("Wrong password.")
        sign_in(tab)
        expect(tile(tab).locator(".state")).to_have_text("Live", timeout=10_000)

        with tab.context.new_page() as other:
            other.goto(locked.url)
            other.get_by_role("button", name="Sign out").click()
            expect_login(other, locked)

        expect(tab.locator("#signed-out")).to_have_text("You are signed out. Sign in again", timeout=10_000)
        expect(tab.locator("#connection")).to_have_text("Signed out")
        expect(tile(tab).locator(".state")).to_have_text("No connection")
        tab.get_by_role("link", name="Sign in again").click()
        expect_login(tab, locked)


def test_signing_in_needs_no_script(browser: Browser, locked: Viewer) -> None:
    with opened(browser, locked, java_script_enabled=False) as tab:
        sign_in(tab)

        expect(tab).to_have_url(locked.url)
        expect(tab.get_by_role("button", name="Sign out")).to_be_visible()


def test_dropped_frames_are_counted_with_their_reasons(server: Server, tab: Tab) -> None:
    feed = Feed(server)
    reasons: list[Reason] = ["stale", "stale", "expired"]
    for reason in reasons:
        feed.publish()
        feed.drop(reason)

    expect(tile(tab).locator(".dropped")).to_have_text("3 of 3 (overtaken 2, too late 1)", timeout=10_000)


def test_a_camera_that_goes_away_does_not_pass_as_live(server: Server, tab: Tab) -> None:
    feed = Feed(server)
    with feeding([feed], [face()]):
        expect(tile(tab).locator(".state")).to_have_text("Live", timeout=10_000)

    feed.leave()

    expect(tile(tab).locator(".state")).to_have_text(re.compile(r"Offline since \d\d:\d\d:\d\d"), timeout=5_000)
    expect(tile(tab).locator(".curtain")).to_be_visible()
    expect(tile(tab).locator(".faces")).to_have_text("–")
    assert "grayscale" in tile(tab).locator("canvas").evaluate("canvas => getComputedStyle(canvas).filter")


def test_a_camera_without_labels_says_so(server: Server, tab: Tab) -> None:
    feed = Feed(server)
    with feeding([feed], [face()]):
        waited(tab, lambda found: bool(found["faces"]), "a labelled frame")

    def publish_until_unlabelled() -> bool:
        feed.publish()
        found = on_canvas(tab)
        return bool(found and found["faces"] == [] and found["number"])

    wait_until(publish_until_unlabelled, 5, "a frame without boxes")
    found = on_canvas(tab)
    expect(tile(tab).locator(".state")).to_have_text("Not labelled right now", timeout=3_000)
    assert found and found["frameId"] == f"demo:{feed.start}:{found['number']}"


def test_a_lost_viewer_is_reported_and_no_tile_is_called_live(browser: Browser, server: Server) -> None:
    with viewing(server.url) as viewer, opened(browser, viewer) as tab, feeding([Feed(server)], [face()]):
        expect(tile(tab).locator(".state")).to_have_text("Live", timeout=10_000)

        viewer.process.terminate()

        expect(tile(tab).locator(".state")).to_have_text("No connection", timeout=10_000)
        expect(tab.locator("#banner")).to_contain_text("Connection to the viewer lost")


def test_without_cameras_the_page_says_how_to_add_one(server: Server, tab: Tab) -> None:
    expect(tab.locator("#empty")).to_contain_text("maskwatch camera SOURCE --name NAME", timeout=5_000)


def test_tiles_come_and_go_with_their_cameras(server: Server, tab: Tab) -> None:
    for camera in ("lobby", "canteen"):
        Feed(server, camera)
    expect(tab.locator("article .name")).to_have_text(["canteen", "lobby"], timeout=5_000)

    server.client.zrem("{s0}:cameras", "canteen")

    expect(tab.locator("article .name")).to_have_text(["lobby"], timeout=5_000)


def test_runs_over_files_are_no_tiles(server: Server, tab: Tab) -> None:
    Feed(server, "file-0a1b2c3d")
    Feed(server, "lobby")

    expect(tab.locator("article .name")).to_have_text(["lobby"], timeout=5_000)


def test_a_phone_never_scrolls_sideways(browser: Browser, standing: tuple[Server, Viewer], server: Server) -> None:
    feeds = [Feed(server, "demo"), Feed(server, "a-camera-with-the-longest-name-x")]

    with opened(browser, standing[1], viewport={"width": 360, "height": 740}) as tab, feeding(feeds, [face()], fps=5):
        waited(tab, lambda found: found["drawn"] > 0, "a frame is drawn")
        tab.locator("#processes summary").click()
        widths = tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")

    assert widths[0] <= widths[1] == 360


def test_enter_shows_one_camera_and_escape_all_of_them(server: Server, tab: Tab) -> None:
    feeds = [Feed(server, "demo"), Feed(server, "lobby")]
    with feeding(feeds, [face()]):
        waited(tab, lambda found: found["drawn"] > 0, "a frame is drawn")
        wait_until(lambda: on_canvas(tab, "lobby"), 10, "a frame of the other camera is drawn")

        tile(tab, "lobby").focus()
        tab.keyboard.press("Enter")
        expect(tile(tab, "demo")).to_be_hidden()
        drawn = drawn_on(tab, "lobby")
        wait_until(lambda: drawn_on(tab, "lobby") > drawn, 5, "lobby goes on")
        tab.keyboard.press("Escape")

        expect(tile(tab, "demo")).to_be_visible()
        expect(tile(tab, "lobby")).to_be_focused()


def test_a_page_that_is_not_looked_at_is_sent_nothing(server: Server, tab: Tab) -> None:
    with feeding([Feed(server)], [face()]):
        waited(tab, lambda found: found["drawn"] > 0, "a frame is drawn")

        tab.evaluate("Object.defineProperty(document, 'hidden', {value: true})")
        tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        quiet = wait_until(lambda: is_still(tab), 5, "no more frames are drawn")

    assert quiet


def drawn_on(tab: Tab, camera: str = "demo") -> int:
    """Return how many frames of a camera the page has drawn."""
    return int((on_canvas(tab, camera) or {"drawn": 0})["drawn"])


def is_still(tab: Tab, camera: str = "demo") -> bool:
    before = drawn_on(tab, camera)
    tab.wait_for_timeout(400)
    return drawn_on(tab, camera) == before


def test_a_camera_that_is_scrolled_away_is_counted_and_not_sent(
    browser: Browser, standing: tuple[Server, Viewer], server: Server
) -> None:
    feeds = [Feed(server, f"camera-{number}") for number in range(5)]

    with opened(browser, standing[1], viewport={"width": 360, "height": 400}) as tab, feeding(feeds, [face()], fps=5):
        expect(tile(tab, "camera-0").locator(".state")).to_have_text("Live", timeout=10_000)
        expect(tab.locator("#count-cameras")).to_have_text("5 of 5", timeout=5_000)
        wait_until(lambda: is_still(tab, "camera-4"), 5, "camera-4 is below the window and is not drawn")
        first = waited(tab, lambda found: found["drawn"] > 0, "camera-0 is drawn", "camera-0")
        below = drawn_on(tab, "camera-4")
        waited(tab, lambda found: found["drawn"] > first["drawn"] + 5, "camera-0 goes on", "camera-0")
        still_below = drawn_on(tab, "camera-4")
        tile(tab, "camera-4").scroll_into_view_if_needed()
        waited(tab, lambda found: found["drawn"] > below, "camera-4 is drawn once it is looked at", "camera-4")

    assert still_below == below


def test_a_socket_that_acknowledges_nothing_does_not_delay_the_page(
    standing: tuple[Server, Viewer], server: Server, tab: Tab
) -> None:
    slow = Page(standing[1].url)
    slow.emit("watch", ["demo"])

    with feeding([Feed(server)], [face()]):
        first = waited(tab, lambda found: found["drawn"] > 0, "a frame is drawn")
        later = waited(tab, lambda found: found["drawn"] >= first["drawn"] + 20, "20 more frames are drawn")
        for_slow = slow.frames(0.2)

    assert later["number"] - first["number"] < 60
    assert len(for_slow) == 1
    slow.close()


def test_a_frame_that_is_never_drawn_does_not_freeze_its_tile(server: Server, tab: Tab) -> None:
    with feeding([Feed(server)], [face()]):
        waited(tab, lambda found: found["drawn"] > 0, "a frame is drawn")
        tab.evaluate(
            """() => {
              const original = window.createImageBitmap;
              window.createImageBitmap = () => {
                window.createImageBitmap = original;
                window.undrawn = true;
                return new Promise(() => {}); // never resolves
              };
            }"""
        )
        wait_until(lambda: tab.evaluate("window.undrawn"), 10, "a frame is not drawn")
        before = drawn_on(tab, "demo")

        wait_until(lambda: drawn_on(tab, "demo") > before + 5, 20, "the frames after it are drawn")


def test_a_page_cannot_be_made_to_run_what_a_camera_is_called(server: Server, tab: Tab) -> None:
    server.client.zadd("{s0}:cameras", {"<img src=x onerror=alert(1)>": 1, "lobby": 1})

    expect(tab.locator("article .name")).to_have_text(["lobby"], timeout=5_000)
    assert tab.locator("article img").count() == 0


@pytest.mark.parametrize(
    ("width_px", "box", "words"),
    [
        (360, (200.0, 100.0, 260.0, 170.0), "Mask 96%"),
        (360, (200.0, 100.0, 480.0, 340.0), "Mask (Confidence: 96%)"),
        (1280, (200.0, 100.0, 260.0, 170.0), "Mask (Confidence: 96%)"),
    ],
)
def test_a_small_picture_s_texts_are_short_where_they_would_cover_other_faces(
    browser: Browser, standing: tuple[Server, Viewer], server: Server, width_px: int, box: Any, words: str
) -> None:
    window = {"width": width_px, "height": 740}

    with opened(browser, standing[1], viewport=window) as tab, feeding([Feed(server)], [face("mask", 0.96, box)]):
        tab.evaluate("CanvasRenderingContext2D.prototype.fillText = (words) => (window.written = words)")
        found = waited(tab, lambda found: bool(found["faces"]), "a labelled frame is drawn")
        written = wait_until(lambda: tab.evaluate("window.written"), 5, "a text is written")

    assert written == words
    assert found["faces"][0]["text"] == "Mask (Confidence: 96%)"
