"""Measure what pictures that programs send cost live cameras, with 1, 20 and 200 requests at once:

    python -m bench.api_load

Cameras play the bench's clip at 20 frames/s. The rate of labelled live frames is measured in turns, while no program
sends pictures and while they do, so that other work of the machine counts on both sides. Each program sends its next
picture when it has its answer, or when it may come again. An answer other than the right faces, or 429 with
Retry-After, is counted as wrong. The programs run at low priority, because they would be other machines. The exit
status is 1 when an answer was wrong, or more than 5 % of the live frames were lost.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from urllib.parse import urlsplit

import msgspec

from bench.clip import bench_clip
from bench.live import CLIP_SECONDS, camera_names, running_cameras, wait_for_labels
from bench.pretend import cpu_s
from pipeline.bus.connection import Redis
from pipeline.bus.shards import Bus
from pipeline.bus.status import read_ledgers
from pipeline.vision.jpeg import encode_jpeg
from producer.sources.demo.people import load_photograph

AT_ONCE = (1, 20, 200)
MAX_LOSS = 0.05
WARM_UP_S = 5.0
SETTLE_S = 2.0  # in which pictures that were sent are labelled
REQUEST_TIMEOUT_S = 90.0
NICE = 10


class LoadRun(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured with so many requests at once.

    quiet, during: labelled live frames/s of each turn, without and with programs.
    labelled, later: pictures/s with faces, and told to come again. wrong: all other answers, by what they were.
    viewer_quiet, viewer_during: processor time of the viewer, seconds a second.
    p50_s: until a picture had its faces, in seconds; None without one.
    """

    at_once: int
    quiet: list[float]
    during: list[float]
    viewer_quiet: float
    viewer_during: float
    labelled: float
    later: float
    wrong: dict[str, int]
    p50_s: float | None

    @property
    def loss(self) -> float:
        """The share of the live frames that was lost meanwhile."""
        return 1 - statistics.mean(self.during) / max(1e-9, statistics.mean(self.quiet))


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, default=4, help="default: 4")
    parser.add_argument("--workers", type=int, default=1, help="of each kind; default: 1")
    parser.add_argument("--turns", type=int, default=5, help="with programs, one more without; default: 5")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each turn; default: 10")
    given = parser.parse_args()
    clip = str(bench_clip(CLIP_SECONDS))
    with running_cameras(clip, given.cameras, given.workers) as client, viewer(client) as (url, pid):
        names = camera_names(given.cameras)
        wait_for_labels(client, names)
        time.sleep(WARM_UP_S)
        runs = [measure(Live(client, names, pid, given.seconds), url, count, given.turns) for count in AT_ONCE]
    print(table(runs))
    return int(any(run.wrong or run.loss > MAX_LOSS for run in runs))


class Live(msgspec.Struct, frozen=True):
    """What is measured in a turn: the cameras of a pipeline, and its viewer. pid: of the viewer."""

    client: Redis
    names: list[str]
    pid: int
    seconds: float

    def turn(self) -> tuple[float, float]:
        """Return how many live frames are labelled a second, and the viewer's seconds of processor time a second."""
        labelled, spent_s, begin = self._labelled(), cpu_s(self.pid), time.monotonic()
        time.sleep(self.seconds)
        took_s = time.monotonic() - begin
        return (self._labelled() - labelled) / took_s, (cpu_s(self.pid) - spent_s) / took_s

    def _labelled(self) -> int:
        return sum(ledger.labelled for ledger in read_ledgers(Bus(self.client), self.names).values())


def measure(live: Live, url: str, at_once: int, turns: int) -> LoadRun:
    """Measure live frames in turns, while so many programs send pictures, and while they pause."""
    context = multiprocessing.get_context("spawn")
    going, (ours, theirs) = context.Event(), context.Pipe()
    sender = context.Process(target=send_pictures, args=(url, at_once, going, theirs))
    sender.start()
    ours.recv()  # it is ready
    quiet, during = [live.turn()], []
    for _ in range(turns):
        going.set()
        during.append(live.turn())
        going.clear()
        time.sleep(SETTLE_S)
        quiet.append(live.turn())
    ours.send(None)
    going.set()
    answers, times_s = ours.recv()
    sender.join()
    labelled, later = answers.pop("labelled", 0), answers.pop("later", 0)
    sent_s = turns * live.seconds
    return LoadRun(
        at_once=at_once,
        quiet=[rate for rate, _ in quiet],
        during=[rate for rate, _ in during],
        viewer_quiet=statistics.mean(cpu for _, cpu in quiet),
        viewer_during=statistics.mean(cpu for _, cpu in during),
        labelled=labelled / sent_s,
        later=later / sent_s,
        wrong=dict(answers),
        p50_s=statistics.median(times_s) if times_s else None,
    )


def send_pictures(url: str, at_once: int, going: Event, told: Connection) -> None:
    """Send pictures with so many requests at once while `going` is set, until told to stop; a process of its own."""
    os.nice(NICE)
    picture, stop, lock = encode_jpeg(load_photograph(), 90), threading.Event(), threading.Lock()
    answers: Counter[str] = Counter()
    times_s: list[float] = []

    def program() -> None:
        while going.wait() and not stop.is_set():
            begin = time.monotonic()
            answer, pause_s = _send(url, picture)
            with lock:
                answers[answer] += 1
                if answer == "labelled":
                    times_s.append(time.monotonic() - begin)
            stop.wait(pause_s)

    threads = [threading.Thread(target=program) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    told.send(None)
    told.recv()
    stop.set()
    for thread in threads:
        thread.join()
    told.send((dict(answers), times_s))


def table(runs: list[LoadRun]) -> str:
    """Return the measurements as a Markdown table."""
    rows = [
        "| requests at once | live frames/s without and with them | lost | viewer's processor time "
        "| pictures/s | median | 429/s | wrong |"
    ]
    rows.append("|---|---|---|---|---|---|---|---|")
    for run in runs:
        means = [statistics.mean(rates) for rates in (run.quiet, run.during)]
        rates = f"{means[0]:.1f}, {means[1]:.1f} | {run.loss:.1%} | {run.viewer_quiet:.0%}, {run.viewer_during:.0%}"
        median = "-" if run.p50_s is None else f"{run.p50_s:.2f} s"
        answers = f"{run.labelled:.1f} | {median} | {run.later:.1f} | {run.wrong or 'none'}"
        rows.append(f"| {run.at_once} | {rates} | {answers} |")
    return "\n".join(rows)


@contextmanager
def viewer(client: Redis) -> Iterator[tuple[str, int]]:
    """Run a viewer beside a client's Redis; yield its address and process ID."""
    path = client.connection_pool.connection_kwargs["path"]
    with tempfile.TemporaryDirectory(prefix="mw-") as folder:
        own = {"MASKWATCH_REDIS_URL": f"unix://{path}", "MASKWATCH_DATABASE": f"sqlite:///{folder}/events.db"}
        command = [sys.executable, "-m", "maskwatch", "view", "--port", "0", "--log-level", "warning"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | own)
        try:
            lines = iter(process.stdout.readline, "") if process.stdout else iter(())
            yield (
                next(line.removeprefix("Viewer: ").strip() for line in lines if line.startswith("Viewer: ")),
                process.pid,
            )
        finally:
            process.terminate()
            process.wait()


def _send(url: str, picture: bytes) -> tuple[str, float]:
    """Send a picture; return what the answer was, and how long to wait before the next one, in seconds."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=REQUEST_TIMEOUT_S)
    try:
        connection.request("POST", "/api/v1/label?timeout_s=20", picture, {"Content-Type": "image/jpeg"})
        answer = connection.getresponse()
        content, again = answer.read(), answer.getheader("Retry-After")
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__, 1.0
    finally:
        connection.close()
    if answer.status == 200 and len(json.loads(content)["faces"]) == 1:
        return "labelled", 0.0
    if answer.status == 429 and again:
        return "later", float(again)
    return f"status {answer.status}", 1.0


if __name__ == "__main__":
    sys.exit(main())
