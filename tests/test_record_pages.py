"""History and Compliance in a real browser, with some hundred events that the recorder's own store has written."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import requests
from conftest import Server, missing, wait_until
from feeding import REPOSITORY, Viewer, numbered_picture, serving, viewing
from PIL import Image
from playwright.sync_api import Browser, Locator, expect, sync_playwright
from playwright.sync_api import Page as Tab
from recorded_days import Recorded, record_days
from test_event_reading import TWO_POINTS

from events.event_types import Event
from events.thumbnails import Thumbnail
from pipeline.vision.jpeg import encode_jpeg
from viewer.pages.event_texts import event_title
from viewer.security.authenticator import password_hash

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OFFLINE = ["--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
AXE = REPOSITORY / "node_modules" / "axe-core" / "axe.min.js"
FIRST = 1_769_644_800.0  # 2026-01-29 00:00 UTC, a Thursday
LAST_DAY = "from=2026-01-31T00:00&to=2026-02-01T00:00"
PERIOD = "from=2026-01-29&to=2026-01-31"
SIZES = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
PASSWORD = "correct horse battery staple"  # noqa: S105 -- it opens nothing


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    jpeg = encode_jpeg(numbered_picture(1, 320, 180), 80)
    thumbnail = Thumbnail(jpeg=jpeg, captured_at=FIRST, blurred=True)
    return record_days(f"sqlite:///{tmp_path_factory.mktemp('events')}/events.db", FIRST, thumbnail=thumbnail)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def viewer(server: Server, recorded: Recorded) -> Iterator[Viewer]:
    with viewing(server.url, database=recorded.url) as viewer:
        yield viewer


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        missing("there is no chromium on this machine")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", *OFFLINE])
        yield running
        running.close()


@contextmanager
def opened(browser: Browser, url: str, but: str = "ERR_CONNECTION_REFUSED", **window: Any) -> Iterator[Tab]:
    """Open an address in a window of its own; errors of the page fail the test, except those that match `but`."""
    errors: list[str] = []
    window = {"viewport": SIZES["desktop"], "timezone_id": "UTC", "accept_downloads": True} | window
    with browser.new_context(**window) as context, context.new_page() as tab:
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("console", lambda line: errors.append(line.text) if line.type in ("error", "warning") else None)
        tab.goto(url)
        yield tab
    assert [error for error in errors if not re.search(but, error)] == []


@pytest.fixture
def history(browser: Browser, viewer: Viewer) -> Iterator[Tab]:
    with opened(browser, f"{viewer.url}history") as tab:
        yield tab


def follow(tab: Tab, link: Locator) -> None:
    """Click a link or button that leads to another page, and wait for it."""
    with tab.expect_navigation():
        link.click()


def listed(tab: Tab) -> list[str]:
    """Return the IDs of the listed events."""
    links = tab.locator(".event a")
    return [str(links.nth(number).get_attribute("href")).rpartition("/")[2] for number in range(links.count())]


def ids(events: list[Event], most: int = 50) -> list[str]:
    return [event.id for event in events][:most]


def test_events_are_listed_newest_first(history: Tab, recorded: Recorded) -> None:
    newest = recorded.events[0]

    found = listed(history)

    assert found == ids(recorded.events)
    expect(history.locator(".event a").first).to_have_text(event_title(newest))
    expect(history.locator(".event time").first).to_contain_text(f"{datetime.fromtimestamp(newest.started_at, UTC):%T}")


@pytest.mark.parametrize("has_scripts", [True, False])
def test_filters_narrow_the_list_with_and_without_scripts(
    browser: Browser, viewer: Viewer, recorded: Recorded, has_scripts: bool
) -> None:
    wanted = [one for one in recorded.events if (one.camera, one.kind, one.zone) == ("door", "no_mask", "entrance")]
    begin, end = FIRST + 86_400, FIRST + 2 * 86_400

    with opened(browser, f"{viewer.url}history", java_script_enabled=has_scripts) as tab:
        tab.get_by_role("combobox", name="Camera").select_option("door")
        tab.get_by_role("combobox", name="Kind").select_option(label="No mask")
        tab.get_by_role("combobox", name="Zone").select_option("entrance")
        follow(tab, tab.get_by_role("button", name="Show"))
        found = listed(tab)
        tab.locator("[name=from]").fill("2026-01-30T00:00")
        tab.locator("[name=to]").fill("2026-01-31T00:00")
        follow(tab, tab.get_by_role("button", name="Show"))
        of_a_day = listed(tab)
        follow(tab, tab.get_by_role("link", name="Show all"))

        assert found == ids(wanted)
        assert of_a_day == ids([one for one in wanted if begin <= one.started_at < end])
        assert listed(tab) == ids(recorded.events)


def test_older_events_follow_page_by_page(history: Tab, recorded: Recorded) -> None:
    found = listed(history)
    while history.get_by_role("link", name="Older events").count():
        follow(history, history.get_by_role("link", name="Older events"))
        found += listed(history)

    assert found == ids(recorded.events, most=len(recorded.events))
    follow(history, history.get_by_role("link", name="Newest"))
    assert listed(history) == ids(recorded.events)


def test_an_hour_of_the_timeline_leads_to_its_events_by_keyboard(
    browser: Browser, viewer: Viewer, recorded: Recorded
) -> None:
    begin = FIRST + 2 * 86_400 + 12 * 3_600
    of_door = [one for one in recorded.events if one.camera == "door"]
    at_noon = [one for one in of_door if begin <= one.started_at < begin + 3_600]

    with opened(browser, f"{viewer.url}history?{LAST_DAY}") as tab:
        expect(tab.locator("#timeline-title")).to_have_text("Saturday, 31 January 2026")
        row = tab.get_by_role("list", name="Hours of door")
        counts = [int(text) for text in row.locator("a > span[aria-hidden]").all_inner_texts()]
        row.get_by_role("link", name=f"12:00 to 13:00: {len(at_noon)} events").focus()
        with tab.expect_navigation():
            tab.keyboard.press("Enter")

        assert sum(counts) == sum(one.started_at >= FIRST + 2 * 86_400 for one in of_door)
        assert listed(tab) == ids(at_noon)


def test_days_before_and_after_can_be_reached(browser: Browser, viewer: Viewer) -> None:
    with opened(browser, f"{viewer.url}history?{LAST_DAY}&kind=no_mask") as tab:
        follow(tab, tab.get_by_role("link", name="Day before"))
        expect(tab.locator("#timeline-title")).to_have_text("Friday, 30 January 2026")
        follow(tab, tab.get_by_role("link", name="Day after"))

        expect(tab.locator("#timeline-title")).to_have_text("Saturday, 31 January 2026")
        expect(tab.get_by_role("combobox", name="Kind")).to_have_value("no_mask")


def test_times_are_those_of_the_browser(browser: Browser, viewer: Viewer, recorded: Recorded) -> None:
    at = datetime.fromtimestamp(recorded.events[0].started_at + 9 * 3_600, UTC)

    with opened(browser, f"{viewer.url}history", timezone_id="Asia/Tokyo") as tab:
        expect(tab.locator(".footnote")).to_have_text("Times are those of Asia/Tokyo.")
        expect(tab.locator(".event time b").first).to_have_text(f"{at:%T}")


def test_an_event_shows_its_moment_its_rule_and_its_deliveries(
    browser: Browser, viewer: Viewer, recorded: Recorded
) -> None:
    delivered = next(one for one in reversed(recorded.events) if one.kind == "no_mask")

    with opened(browser, f"{viewer.url}history/{delivered.id}") as tab:
        facts = dict(
            zip(tab.locator(".facts dt").all_inner_texts(), tab.locator(".facts dd").all_inner_texts(), strict=True)
        )

        expect(tab.locator("h1")).to_have_text(event_title(delivered))
        assert facts["Camera"] == delivered.camera
        assert facts["Track"] == str(delivered.track)
        assert facts["Began"] == f"{datetime.fromtimestamp(delivered.started_at, UTC):%a %-d %b %Y, %T}"
        assert facts["Model"] == "lite-c215ca45"
        why = "Somebody wears no mask for 5 s; at most one event in 1 min for each camera."
        expect(tab.get_by_text(why)).to_be_visible()
        expect(tab.locator(".plot canvas")).to_be_visible()
        assert tab.locator("tbody tr[data-at]").count() >= 40
        expect(tab.locator("tr[data-state]").first).to_contain_text("delivered")
        wait_until(
            lambda: tab.locator(".picture").evaluate("one => one.naturalWidth") == 320, 5, "the picture is loaded"
        )


def test_a_chart_has_the_times_of_its_page_where_the_browser_keeps_no_cookie_of_its_zone(
    browser: Browser, viewer: Viewer, recorded: Recorded
) -> None:
    chosen = next(one for one in recorded.events if one.kind == "no_mask")
    without_cookies = "Object.defineProperty(document, 'cookie', { get: () => '', set: () => {} })"

    with browser.new_context(viewport=SIZES["desktop"], timezone_id="America/New_York") as context:
        context.add_init_script(without_cookies)
        tab = context.new_page()
        tab.goto(f"{viewer.url}history/{chosen.id}")
        zone = tab.locator("html").get_attribute("data-zone")
        tab.locator(".u-over").hover()
        shown = tab.locator(".u-legend .u-value").first.inner_text()
        times = {float(str(row.get_attribute("data-at"))) for row in tab.locator("tbody tr[data-at]").all()}

    assert zone != "America/New_York"
    assert shown in {f"{datetime.fromtimestamp(at, ZoneInfo(str(zone))):%T}" for at in times}


def test_a_failed_delivery_says_what_the_receiver_answered(
    browser: Browser, viewer: Viewer, recorded: Recorded
) -> None:
    pages = (requests.get(f"{viewer.url}history/{one.id}", timeout=10).text for one in reversed(recorded.events))

    refused = next(page for page in pages if "the receiver answered 503" in page)

    assert "pending" in refused
    assert "&lt;b&gt;busy&lt;/b&gt;" in refused


def test_the_compliance_page_shows_the_sums_of_the_counts(browser: Browser, viewer: Viewer) -> None:
    counts = requests.get(f"{viewer.url}compliance.json?{PERIOD}", timeout=10).json()["counts"]
    people, masks = (sum(one[name] for one in counts) for name in ("people_s", "masks_s"))

    with opened(browser, f"{viewer.url}compliance?{PERIOD}") as tab:
        figures = tab.locator(".figures dd:not(.of)").all_inner_texts()

        expect(tab.locator("#chart-title")).to_have_text("Masks and people from 29 January 2026 to 31 January 2026")
        expect(tab.locator(".plot canvas")).to_be_visible()
        assert figures[0] == f"{masks / people:.0%}".replace("%", " %")
        assert tab.locator("#rows tbody tr").count() == 3 * 14
        assert tab.locator(".shares tbody th").all_inner_texts() == ["door", "lobby", "yard"]
        tab.get_by_role("combobox", name="Camera").select_option("yard")
        tab.get_by_role("combobox", name="By").select_option("day")
        follow(tab, tab.get_by_role("button", name="Show"))
        expect(tab.locator("#rows tbody th")).to_have_text(["Thu 29 Jan 2026", "Fri 30 Jan 2026", "Sat 31 Jan 2026"])


def test_a_single_step_is_in_the_middle_of_the_chart(browser: Browser, viewer: Viewer) -> None:
    pixel = """one => [...one.getContext("2d").getImageData(one.width / 2, one.height / 2, 1, 1).data].slice(0, 3)"""

    with opened(browser, f"{viewer.url}compliance?from=2026-01-30&to=2026-01-30&by=day") as tab:
        expect(tab.locator("#rows tbody tr")).to_have_count(1)
        wait_until(
            lambda: tab.locator(".plot canvas").evaluate(pixel) == [185, 207, 223], 5, "the middle is part of a bar"
        )


def test_counts_are_exported_as_csv_json_and_png(browser: Browser, viewer: Viewer, tmp_path: Path) -> None:
    saved = {}

    with opened(browser, f"{viewer.url}compliance?{PERIOD}&camera=door&by=day") as tab:
        for role, name in (("link", "CSV"), ("link", "JSON"), ("button", "PNG")):
            with tab.expect_download() as download:
                tab.get_by_role(role, name=name, exact=True).click()  # type: ignore[arg-type]
            saved[name] = tmp_path / download.value.suggested_filename
            download.value.save_as(saved[name])
        shares = tab.locator("#rows tbody td:nth-child(2)").all_inner_texts()

    rows = list(csv.DictReader(io.StringIO(saved["CSV"].read_text())))
    exported = json.loads(saved["JSON"].read_text())
    assert [path.name for path in saved.values()] == [
        f"compliance-door-2026-01-29-2026-01-31.{ending}" for ending in ("csv", "json", "png")
    ]
    assert [row["begin"] for row in rows] == [f"2026-01-{day}T00:00:00+00:00" for day in (29, 30, 31)]
    assert [f"{float(row['masks_share']):.0%}".replace("%", " %") for row in rows] == shares
    assert [float(row["people_s"]) for row in rows] == [one["people_s"] for one in exported["counts"]]
    assert (exported["by"], exported["time_zone"]) == ("day", "UTC")
    with Image.open(saved["PNG"]) as picture:
        assert picture.format == "PNG"
        assert picture.width > 800
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 24) or []
    assert {(0, 114, 168), (185, 207, 223)} <= {colour for _, colour in colours}  # the line and the bars


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_pages_are_accessible_and_fit_the_screen(
    browser: Browser, viewer: Viewer, recorded: Recorded, size: str, scheme: Any
) -> None:
    if not AXE.is_file():
        missing("axe-core is not installed; `make setup-dev` fetches it")
    event = next(one for one in recorded.events if one.kind == "no_mask")
    addresses = [f"history?{LAST_DAY}", f"history/{event.id}", f"compliance?{PERIOD}", ""]
    found = {}

    with opened(browser, viewer.url, viewport=SIZES[size], color_scheme=scheme) as tab:
        for address in addresses:
            tab.goto(viewer.url + address)
            tab.evaluate(AXE.read_text())
            problems = tab.evaluate("() => axe.run().then((found) => found.violations)")
            serious = [one for one in problems if one["impact"] in ("serious", "critical")]
            wider_px = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
            found[address] = ([(one["id"], one["nodes"][0]["html"]) for one in serious], wider_px)

    assert found == {address: ([], 0) for address in addresses}


def test_pages_lead_to_each_other(browser: Browser, viewer: Viewer) -> None:
    with opened(browser, viewer.url) as tab:
        for name, heading in (("Compliance", "Compliance"), ("History", "History"), ("Live", "maskwatch")):
            follow(tab, tab.get_by_role("navigation").get_by_role("link", name=name))
            expect(tab.get_by_role("heading", level=1)).to_have_text(heading)
            expect(tab.locator("nav [aria-current=page]")).to_have_text(name)
        tab.keyboard.press("Tab")

        expect(tab.get_by_role("link", name="To the cameras")).to_be_focused()


@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("history?from=%3Cb%3E", 400, "From: &#39;&lt;b&gt;&#39; is no time; write for example 2026-01-31T08:00."),
        ("history?cursor=x", 400, "This cursor is not one that a page of events has given: leave it out"),
        ("compliance?by=week", 400, "By: &#39;week&#39; is neither hour nor day."),
        ("compliance.csv?by=week", 400, "By: 'week' is neither hour nor day."),
        (f"history?cursor={TWO_POINTS}", 400, "This cursor is not one that a page of events has given: leave it out"),
        ("history?zone=%00", 400, "Zone: &#39;\\x00&#39; is no name; choose one from the list."),
        ("compliance.csv?camera=a%0AB:%20c", 400, "Camera: 'a\\nB: c' is no name; choose one from the list."),
        ("history/%00", 404, "There is no such event: it is older than what is kept, or the address is wrong"),
        ("history/0", 404, "There is no such event: it is older than what is kept, or the address is wrong"),
        ("history/0/picture.jpg", 404, "this event has no picture"),
    ],
)
def test_an_address_that_cannot_be_is_explained(viewer: Viewer, address: str, status: int, words: str) -> None:
    answer = requests.get(viewer.url + address, timeout=10)

    assert (answer.status_code, words in answer.text) == (status, True)


def test_a_database_that_is_not_there_is_said_on_the_pages_and_live_video_goes_on(
    browser: Browser, server: Server, tmp_path: Path
) -> None:
    words = re.compile("There are no events yet at .*: start `maskwatch record`, which writes them")

    with (
        viewing(server.url, database=f"sqlite:///{tmp_path}/none.db") as viewer,
        opened(browser, viewer.url, but="503") as tab,
    ):
        for address in ("history", "compliance", f"history/{'0' * 32}"):
            tab.goto(viewer.url + address)
            expect(tab.get_by_role("alert")).to_have_text(words)
        export = requests.get(f"{viewer.url}compliance.csv", timeout=10)
        follow(tab, tab.get_by_role("link", name="Live"))
        expect(tab.locator("#connection")).to_have_text("Connected")
        expect(tab.locator("#banner")).to_contain_text(words)

    assert export.status_code == 503


def test_a_period_without_people_says_so(viewer: Viewer) -> None:
    pages = [
        requests.get(viewer.url + address, timeout=10).text for address in ("compliance", "history?from=2027-01-01")
    ]

    assert "Nobody was seen in this period." in pages[0]
    assert "No event matches these filters." in pages[1]


def test_strangers_are_led_to_the_sign_in_form_below_the_base_path(server: Server, recorded: Recorded) -> None:
    event = recorded.events[0]
    secret = password_hash(PASSWORD)

    with viewing(server.url, database=recorded.url, base_path="/our", password_hash=secret) as viewer:
        answers = [
            requests.get(viewer.url + address, allow_redirects=False, timeout=10)
            for address in ("history", "compliance", f"history/{event.id}", "compliance.csv")
        ]
        session = requests.Session()
        token = re.search(r'name="token" value="([^"]+)"', session.get(f"{viewer.url}login", timeout=10).text)
        assert token
        session.post(f"{viewer.url}login", {"token": token[1], "password": PASSWORD}, timeout=10)
        page = session.get(f"{viewer.url}history", timeout=10).text

    found = [(one.status_code, one.headers.get("Location")) for one in answers]
    wanted = ["/history", "/compliance", f"/history/{event.id}"]
    assert found == [(303, f"/our/login?next={path}") for path in wanted] + [(401, None)]
    assert f'href="/our/history/{event.id}"' in page
    assert set(re.findall(r'(?:href|src|action)="(/[^/"]*)', page)) == {"/our"}
