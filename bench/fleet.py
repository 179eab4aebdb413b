"""Measure what the queue costs with few and with many cameras: `python -m bench.fleet`. Writes bench/out/fleet.json.

The Redis is that of a deployment, on which fleets run. Pretend cameras and workers (bench/pretend.py) move the same
number of frames per second, by 3, 10, 100 and 300 cameras, in turn and several rounds of it, up and down again, since a
machine's speed changes within a minute. Printed for each, as medians: CPU of Redis, of the pretend processes, of a real
viewer without browsers, and of a process that follows and tracks all results as a recorder does, each per frame; and
how long a status takes. Exit status 1 if a promise is broken.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click
import msgspec

from bench.clip import OUT
from bench.deployed_redis import deployed_redis
from bench.pretend import cpu_s, run_cameras, run_classifiers, run_detectors, running
from events.recorder import FOLLOW_INTERVAL_S
from pipeline.bus.connection import Redis, connect
from pipeline.bus.result_consumer import ResultConsumer
from pipeline.bus.shards import Bus
from pipeline.bus.status import read_ledgers, read_status
from pipeline.runtime.embedded_server import embedded_server
from pipeline.vision.tracks import FaceTracker

FLEETS = (3, 10, 100, 300)
WORKERS = 4
ROUNDS = 6  # half of them from the largest fleet to the smallest
WARM_UP_S = 6.0  # rates of the status need five seconds
SLICES = 3  # of the time of a fleet in a round; the median is reported, since other programs come and go
STATUS_CALLS = 20
MAX_GROWTH = 1.2  # of Redis' CPU a frame, from the smallest fleet to the largest
MAX_STATUS_MS = 30.0
MAX_OVERHEAD_MS = 1.5  # of CPU a frame: Redis, and all calls of camera, detector and classifier


def measure_fleet(
    cameras: int, frames_per_s: float, seconds: float, jpeg_bytes: int, *, embedded: bool
) -> dict[str, float]:
    """Run a fleet; return costs in milliseconds of CPU per frame, and how long a status takes.

    embedded: on the embedded server instead of the Redis of a deployment.
    """
    rates = {f"camera-{number}": frames_per_s / cameras for number in range(cameras)}
    with _embedded_url() if embedded else deployed_redis() as url:
        viewer = subprocess.Popen(
            [sys.executable, "-m", "maskwatch", "view", "--redis", url, "--port", "0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        recorder = _Recorder(url)
        with (
            connect(url) as client,
            running(run_detectors, url, WORKERS, 0.0) as detectors,
            running(run_classifiers, url, WORKERS, 0.0) as classifiers,
            running(run_cameras, url, rates, jpeg_bytes=jpeg_bytes) as producers,
        ):
            bus = Bus(client)
            _wait_for_labels(bus, list(rates))
            time.sleep(WARM_UP_S)
            pids = {"cameras": producers, "detectors": detectors, "classifiers": classifiers, "viewer": viewer.pid}

            def spent() -> dict[str, float]:
                cpu = {name: cpu_s(pid) for name, pid in pids.items()} | _others(client, recorder)
                return cpu | {"frames": float(_produced(bus, list(rates)))}

            spent_at = [spent()]
            for _ in range(SLICES):
                time.sleep(seconds / SLICES)
                spent_at.append(spent())
            status_ms = [_timed_ms(bus) for _ in range(STATUS_CALLS)]
            balanced = all(ledger.balances for ledger in read_ledgers(bus, list(rates)).values())
        recorder.stop()
        viewer.terminate()
        viewer.wait()
    slices = [{name: after[name] - before[name] for name in after} for before, after in itertools.pairwise(spent_at)]
    costs = {
        f"{name}_ms": statistics.median(1000 * one[name] / one["frames"] for one in slices)
        for name in spent_at[0]
        if name != "frames"
    }
    return costs | {
        "cameras": cameras,
        "frames_per_s": sum(one["frames"] for one in slices) / seconds,
        "status_ms": statistics.median(status_ms),
        "balanced": float(balanced),
    }


@click.command()
@click.option("--seconds", default=9.0, show_default=True, help="Of each fleet in each round.")
@click.option("--frames-per-s", default=300.0, show_default=True, help="Of all cameras together.")
@click.option("--jpeg-kb", default=1.0, show_default=True, help="Size of a frame's pixels.")
@click.option("--embedded", is_flag=True, help="Measure on the server that demo and label bring.")
def main(seconds: float, frames_per_s: float, jpeg_kb: float, embedded: bool) -> None:
    """Measure all fleets, and print a table."""
    names = ("redis_ms", "cameras_ms", "detectors_ms", "classifiers_ms", "viewer_ms", "recorder_ms", "status_ms")
    print("CPU a frame in ms" + "".join(f"{name.removesuffix('_ms'):>13}" for name in names[:-1]) + "  one status, ms")
    rounds = []
    for number in range(ROUNDS):
        order = FLEETS if number % 2 == 0 else FLEETS[::-1]
        found = [measure_fleet(one, frames_per_s, seconds, int(1000 * jpeg_kb), embedded=embedded) for one in order]
        rounds.append(sorted(found, key=lambda row: row["cameras"]))
    rows = [_medians(measured) for measured in zip(*rounds, strict=True)]
    for row in rows:
        figures = "".join(f"{row[name]:13.3f}" for name in names)
        print(f"{row['cameras']:4.0f} cameras, {row['frames_per_s']:3.0f}/s{figures}")
    growth = statistics.median(fleets[-1]["redis_ms"] / fleets[0]["redis_ms"] for fleets in rounds)
    overhead = max(sum(row[name] for name in names[:4]) for row in rows)
    print(f"Redis' CPU a frame with {FLEETS[-1]} cameras: {growth:.2f} times that with {FLEETS[0]}")
    print(f"queue overhead: at most {overhead:.2f} ms of CPU a frame, in Redis, camera, detector and classifier")
    OUT.mkdir(exist_ok=True)
    (OUT / "fleet.json").write_bytes(msgspec.json.encode(rows))
    held = growth <= MAX_GROWTH and rows[-1]["status_ms"] <= MAX_STATUS_MS and overhead <= MAX_OVERHEAD_MS
    held &= all(row["balanced"] for fleets in rounds for row in fleets)
    print("every promise held" if held else "A PROMISE BROKE")
    sys.exit(0 if held else 1)


def _medians(measured: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(row[name] for row in measured) for name in measured[0]}


@contextmanager
def _embedded_url() -> Iterator[str]:
    with embedded_server() as server:
        server.wait()
        yield server.url


class _Recorder:
    """Follow all results and track their faces, as a recorder of events does. Its CPU time is that of its thread."""

    def __init__(self, url: str) -> None:
        self.cpu_s = 0.0
        self._url = url
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        trackers: dict[str, FaceTracker] = {}
        with connect(self._url) as client:
            consumer = ResultConsumer(Bus(client).shards, interval_s=FOLLOW_INTERVAL_S)
            while not self._ended.is_set():
                for result in consumer.read():
                    trackers.setdefault(result.camera, FaceTracker()).update(result.faces, result.captured_at)
                self.cpu_s = time.thread_time()


def _others(client: Redis, recorder: _Recorder) -> dict[str, float]:
    info = client.info("cpu")
    return {"redis": info["used_cpu_user"] + info["used_cpu_sys"], "recorder": recorder.cpu_s}


def _produced(bus: Bus, cameras: list[str]) -> int:
    return sum(ledger.produced for ledger in read_ledgers(bus, cameras).values())


def _timed_ms(bus: Bus) -> float:
    begun = time.monotonic()
    read_status(bus)
    return 1000 * (time.monotonic() - begun)


def _wait_for_labels(bus: Bus, cameras: list[str]) -> None:
    for _ in range(600):
        if sum(ledger.labelled for ledger in read_ledgers(bus, cameras).values()):
            return
        time.sleep(0.1)
    sys.exit("bench: no frame was labelled within 60 s")


if __name__ == "__main__":
    main()
