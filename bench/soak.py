"""Run a pipeline for long and see whether it stays as it is: `python -m bench.soak --minutes 30`.

A server, two simulated cameras, two workers of each kind, a viewer whose live streams are watched, and `label` every 30
seconds. Printed: memory of each process, in its first minutes after warming up and in its last ones, without the frames
that cameras and `label` share, whose size is fixed; what Redis holds of it (used_memory), which varies with the
frames that wait; what the ledgers count. Exit status 1 if a process grew by more than 5 %, one was restarted, or a
ledger does not balance.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import click

from bench.clip import OUT, bench_clip
from pipeline.bus.connection import Redis, connect
from pipeline.bus.shards import Bus
from pipeline.bus.status import read_heartbeats, read_ledgers
from pipeline.runtime.children import Children
from pipeline.runtime.embedded_server import embedded_server

CAMERAS = ("door", "hall")
FPS = 5
CLIP_SECONDS = 45
SAMPLE_S = 5.0
LABEL_INTERVAL_S = 30.0  # between two starts of `label`, which takes less
WARM_UP_SHARE, COMPARED_SHARE = 0.15, 0.2  # of the whole time: left out at first, then compared with as much at the end
MAX_GROWTH = 0.05
HELD = "held by redis"

Samples = dict[str, list[tuple[float, float]]]  # by process: seconds since the start, megabytes


def measure_soak(seconds: float) -> bool:
    """Run the pipeline, print its memory, and return whether it stayed as it was."""
    clip = bench_clip(CLIP_SECONDS)
    with embedded_server() as server, Children() as children:
        environment = {"MASKWATCH_REDIS_URL": server.url, "MASKWATCH_LOG_LEVEL": "warning"}
        for role in ("detect", "classify"):
            for _ in range(2):
                children.start(role, environment=environment)
        for name in CAMERAS:
            children.start("camera", "demo", "--name", name, "--fps", str(FPS), environment=environment)
        server.wait()
        with connect(server.url) as client, _viewer(server.url) as url:
            watchers = [
                threading.Thread(target=_watch, args=(f"{url}cameras/{name}/stream.mjpg",), daemon=True)
                for name in CAMERAS
            ]
            for watcher in watchers:
                watcher.start()
            samples = _sample(client, children, server.url, clip, seconds)
            ledgers = read_ledgers(Bus(client), CAMERAS)
    print(f"{'process':<20} {'at first':>9} {'at the end':>11} {'change':>8}   (MB, medians)")
    held = all(ledger.balances and ledger.labelled for ledger in ledgers.values())
    for name, rows in sorted(samples.items()):
        first = _median(rows, WARM_UP_SHARE * seconds, (WARM_UP_SHARE + COMPARED_SHARE) * seconds)
        last = _median(rows, (1 - COMPARED_SHARE) * seconds, seconds)
        if first is None or last is None:
            print(f"{name:<20} was not there all the time")
            held = False
            continue
        held &= name == HELD or last / first - 1 <= MAX_GROWTH
        print(f"{name:<20} {first:9.1f} {last:11.1f} {100 * (last / first - 1):+7.1f}%")
    for name, ledger in ledgers.items():
        dropped = ", ".join(f"{count} {reason}" for reason, count in ledger.dropped.items()) or "none"
        print(f"{name}: {ledger.produced} frames, {ledger.labelled} labelled, dropped: {dropped}")
    return held


@click.command()
@click.option("--minutes", default=30.0, show_default=True)
def main(minutes: float) -> None:
    """Measure."""
    held = measure_soak(60 * minutes)
    print("it stayed as it was" if held else "IT CHANGED")
    sys.exit(0 if held else 1)


def _sample(client: Redis, children: Children, url: str, clip: Path, seconds: float) -> Samples:
    """Note the memory of all processes, while `label` runs again and again.

    It begins at fixed times: Redis keeps results for a minute, so a faster `label` would make it hold more of them.
    """
    samples: Samples = {}
    label: subprocess.Popen[bytes] | None = None
    begun, label_at = time.monotonic(), 0.0
    while (passed := time.monotonic() - begun) < seconds:
        if passed >= label_at and (label is None or label.poll() is not None):
            if label is not None and label.returncode:
                sys.exit(f"bench: label ended with status {label.returncode}")
            label_at += LABEL_INTERVAL_S
            command = ["label", str(clip), "--json", str(OUT / "soak.jsonl"), "--redis", url]
            label = subprocess.Popen([sys.executable, "-m", "maskwatch", *command], stderr=subprocess.DEVNULL)
        children.supervise()
        for beat in read_heartbeats(client):
            if not (beat.camera or "").startswith("file-"):
                samples.setdefault(f"{beat.role} {beat.pid}", []).append((passed, _own_mb(beat.pid)))
        memory = client.info("memory")
        samples.setdefault("redis", []).append((passed, memory["used_memory_rss"] / 1e6))
        samples.setdefault(HELD, []).append((passed, memory["used_memory"] / 1e6))
        time.sleep(SAMPLE_S)
    if label is not None:
        label.terminate()
        label.wait()
    return samples


@contextlib.contextmanager
def _viewer(redis_url: str) -> Iterator[str]:
    """Run a viewer; yield the address of its page."""
    command = [sys.executable, "-m", "maskwatch", "view", "--port", "0", "--redis", redis_url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    if process.stdout is None or not (found := re.search(r"http\S+", process.stdout.readline())):
        sys.exit("bench: the viewer does not start")
    try:
        yield found[0]
    finally:
        process.terminate()
        process.wait()


def _watch(url: str) -> None:
    """Read a live stream until the viewer ends."""
    with contextlib.suppress(OSError, http.client.HTTPException), urllib.request.urlopen(url) as stream:  # noqa: S310 -- our own viewer
        while stream.read(1 << 16):
            pass


def _own_mb(pid: int) -> float:
    """Return the resident memory of a process without what it shares with others."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(status[kind].split()[0]) for kind in ("RssAnon", "RssFile")) / 1000


def _median(rows: list[tuple[float, float]], start: float, end: float) -> float | None:
    found = [megabytes for at, megabytes in rows if start <= at < end]
    return statistics.median(found) if found else None


if __name__ == "__main__":
    main()
