"""The whole program, started as a user starts it and watched in a real browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Server, missing, wait_until
from playwright.sync_api import Browser, Page, sync_playwright
from processes import Process, Processes, processes

from pipeline.bus.status import read_ledgers
from producer.sources.demo.frame_number import BITS, BLOCK_PX

__all__ = ["processes"]

CHROMIUM = shutil.which("chromium")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LABELLED_FRAMES = 500  # seen with labels before the test ends
COLOURS = {"mask": (86, 180, 233), "no_mask": (213, 94, 0)}  # Okabe and Ito's sky blue and vermillion

# After each drawing, in the same task: the frame's id, the number in its pixels, and the labels drawn on it.
WATCH = """([bits, blockPx]) => {
  window.seen = [];
  const canvas = document.querySelector("canvas");
  const context = canvas.getContext("2d");
  const look = () => {
    const strip = context.getImageData(0, 0, bits * blockPx, 2 * blockPx);
    const level = (x, y) => strip.data[4 * (y * strip.width + x)];
    let number = 0;
    for (let bit = 0; bit < bits; bit++) {
      const x = bit * blockPx + blockPx / 2;
      const difference = level(x, blockPx / 2) - level(x, 1.5 * blockPx);
      if (Math.abs(difference) < 96) number = NaN;
      if (difference > 0) number += 2 ** bit;
    }
    window.seen.push([canvas.dataset.frameId, number, JSON.parse(canvas.dataset.faces).length]);
  };
  new MutationObserver(look).observe(canvas, { attributes: true, attributeFilter: ["data-drawn-count"] });
}"""

# What is drawn now: the faces, and for each the colour in the middle of its box's left edge.
EDGES = """() => {
  const canvas = document.querySelector("canvas");
  const context = canvas.getContext("2d");
  const faces = JSON.parse(canvas.dataset.faces || "[]");
  return faces.map((face) => {
    const [x1, y1, , y2] = face.box;
    const near = context.getImageData(Math.round(x1) - 3, Math.round((y1 + y2) / 2), 8, 1).data;
    const colours = [];
    for (let i = 0; i < near.length; i += 4) colours.push([near[i], near[i + 1], near[i + 2]]);
    return { label: face.label, text: face.text, colours };
  });
}"""


@pytest.fixture
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        missing("there is no chromium on this machine")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield running
        running.close()


def opened(browser: Browser, started: Process) -> Page:
    """Open the page that a process has just named on its standard output."""
    assert started.stdout is not None
    address = re.search(r"http://\S+", started.stdout.readline())
    assert address is not None
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address.group(0))
    return page


def faces_on(page: Page) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.evaluate("JSON.parse(document.querySelector('canvas')?.dataset.faces || '[]')")
    return found


def test_demo_shows_labelled_faces_in_a_browser(processes: Processes, browser: Browser) -> None:
    page = opened(browser, processes.start("demo", "--port", "0"))

    wait_until(lambda: faces_on(page), 60, "labelled faces are drawn")

    wait_until(
        lambda: {face["label"] for face in faces_on(page)} == {"mask", "no_mask"}, 60, "both labels are on the page"
    )
    faces = page.evaluate(EDGES)
    for face in faces:
        words = "Mask" if face["label"] == "mask" else "No Mask"
        assert re.fullmatch(rf"{words} \(Confidence: (\d+)%\)", face["text"])
        distances = [max(abs(a - b) for a, b in zip(c, COLOURS[face["label"]], strict=True)) for c in face["colours"]]
        assert min(distances) <= 8, face


def test_no_frame_is_ever_shown_with_the_label_of_another(
    server: Server, processes: Processes, browser: Browser
) -> None:
    counts = ["--detectors", 2, "--classifiers", 3]
    page = opened(browser, processes.start("up", "--camera", "demo=demo:numbered", "--port", 0, *counts, redis=server))
    wait_until(lambda: faces_on(page), 60, "labelled faces are drawn")

    page.evaluate(WATCH, [BITS, BLOCK_PX])
    labelled = "window.seen.filter(([, , faces]) => faces > 0).length"
    wait_until(lambda: page.evaluate(labelled) >= LABELLED_FRAMES, 300, f"{LABELLED_FRAMES} labelled frames were shown")
    seen: list[tuple[str, float, int]] = page.evaluate("window.seen")

    foreign = [(frame_id, number) for frame_id, number, _ in seen if frame_id.split(":")[2] != f"{number:.0f}"]
    print(f"{len(seen)} frames, {sum(faces for *_, faces in seen)} faces, {len(foreign)} foreign labels")
    assert foreign == []
    ids = [int(frame_id.split(":")[2]) for frame_id, *_ in seen]
    assert ids == sorted(ids)
    ledger = read_ledgers(server.bus, ["demo"])["demo"]
    assert ledger.balances
    assert ledger.labelled >= len(seen)
