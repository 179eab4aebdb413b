"""Measure how soon there is a label, and what memory a pipeline takes, for a minute:

    python -m bench.start

`label` labels one photograph, whole commands. `demo` is started while a browser runs: until its page has drawn a frame
with labelled faces. Then each of its processes is asked for its memory while the browser watches. Medians of ROUNDS.
MASKWATCH_DATA names the folder of the data sets. Exit status 1 if a promise is broken.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from bench.clip import OUT

ROUNDS = 5
WATCHED_S = 5.0  # before memory is read
MAX_LABEL_S = 1.2
MAX_DEMO_S = 3.0
COMMANDS = ("camera", "detect", "classify", "view", "record")
MAX_MB = {"camera": 90.0, "detect": 160.0, "classify": 160.0, "view": 110.0}  # by subcommand
BROWSER_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
HAS_LABELS = """() => {
  const canvas = document.querySelector('canvas[data-camera="demo"]');
  return Boolean(canvas?.dataset.frameId) && JSON.parse(canvas.dataset.faces).length > 0;
}"""


def main() -> None:
    """Measure, print, and end with what held."""
    OUT.mkdir(exist_ok=True)
    label_s = [_label_once(_photograph()) for _ in range(ROUNDS)]
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("bench: there is no chromium on this machine; install it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(BROWSER_FLAGS))
        demos = [_demo_once(browser) for _ in range(ROUNDS)]
        browser.close()
    held = _report("label, one photograph", label_s, "s", MAX_LABEL_S)
    held &= _report(
        "demo, to the first labelled frame in a browser", [seconds for seconds, _ in demos], "s", MAX_DEMO_S
    )
    for command in demos[0][1]:
        megabytes = [found[command] for _, found in demos]
        held &= _report(f"memory of `maskwatch {command}`", megabytes, "MB", MAX_MB.get(command))
    print("every promise held" if held else "A PROMISE BROKE")
    sys.exit(0 if held else 1)


def _photograph() -> Path:
    data = Path(os.environ.get("MASKWATCH_DATA", "../shared/data"))
    pictures = sorted((data / "face-mask-detection" / "images").glob("*.jpg"))
    if not pictures:
        sys.exit(f"bench: no pictures in {data}/face-mask-detection/images; name the data sets with MASKWATCH_DATA")
    return pictures[0]


def _label_once(picture: Path) -> float:
    command = [sys.executable, "-m", "maskwatch", "label", str(picture), "--json", str(OUT / "start.jsonl")]
    begun = time.monotonic()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return time.monotonic() - begun


def _demo_once(browser: Browser) -> tuple[float, dict[str, float]]:
    """Return how long a demo took to the first labelled frame, seconds, and then megabytes by subcommand."""
    tab = browser.new_page()
    begun = time.monotonic()
    with _demo() as (pid, url):
        tab.goto(url)
        tab.wait_for_function(HAS_LABELS, polling=10)
        seconds = time.monotonic() - begun
        time.sleep(WATCHED_S)
        memory = _memory_of(pid)
    tab.close()
    return seconds, memory


@contextlib.contextmanager
def _demo() -> Iterator[tuple[int, str]]:
    """Run `maskwatch demo` while the block runs; yield its process ID, and its page's address once it is printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "maskwatch", "demo", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        for line in process.stdout or ():
            if found := re.search(r"http://\S+", line):
                yield process.pid, found[0]
                return
        sys.exit("bench: the demo does not start")
    finally:
        process.terminate()
        process.wait()


def _memory_of(pid: int) -> dict[str, float]:
    """Return the memory of a process' children and of theirs, megabytes, the largest of each subcommand.

    Proportional set sizes: pages that several processes map, such as frames and libraries, count once in all of them.
    """
    largest: dict[str, float] = {}
    for child in _children(pid):
        command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        if found := re.search(rf"maskwatch(?:\.py)? ({'|'.join(COMMANDS)})\b", command):
            megabytes = sum(map(_proportional_mb, (child, *_children(child))))
            largest[found[1]] = max(megabytes, largest.get(found[1], 0.0))
    return largest


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _proportional_mb(pid: int) -> float:
    (kilobytes,) = re.findall(r"^Pss: *(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(kilobytes) * 1024 / 1e6


def _report(what: str, values: list[float], unit: str, limit: float | None) -> bool:
    """Print what was measured; return whether the median is within the limit."""
    median = statistics.median(values)
    asked = "" if limit is None else f"; at most {limit:g} {unit}"
    print(f"{what}: {median:.2f} {unit} ({min(values):.2f} to {max(values):.2f}{asked})")
    return limit is None or median <= limit


if __name__ == "__main__":
    main()
