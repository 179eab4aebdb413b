"""Measure how the queue shares what workers can do: `python -m bench.fairness`. Exit status 1 if a promise is broken.

Workers that only wait do 40 frames/s in all. Eight cameras of 5 to 30 frames/s offer 130; then five times as much as
the workers can do; then, with --away-s, no classifier for that long. Ages are from capture to labelled.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import click

from bench.pretend import Rates, run_cameras, run_classifiers, run_detectors, running
from pipeline.bus.connection import connect
from pipeline.bus.result_consumer import ResultConsumer
from pipeline.bus.shards import Bus
from pipeline.runtime.embedded_server import embedded_server

MIXED: Rates = {f"c{number}": rate for number, rate in enumerate((5, 5, 10, 10, 20, 20, 30, 30))}
OVERLOAD: Rates = {f"o{number}": 25 for number in range(8)}
CALM: Rates = {f"c{number}": 3 for number in range(8)}
DETECTORS, DETECT_S = 2, 0.05
CLASSIFIERS, CLASSIFY_S = 1, 0.002
WARM_UP_S, WINDOW_S, WINDOWS = 5.0, 10.0, 6
TOLERANCE = 0.2  # of a camera's fair share
MAX_P99_S, MAX_AGE_AFTER_S, RECOVERY_S = 1.0, 0.3, 2.0


@dataclass(slots=True)
class Pipeline:
    """A running pipeline. labels: of each labelled frame the monotonic time, its camera, and its age in seconds."""

    url: str
    labels: list[tuple[float, str, float]] = field(default_factory=list)

    def between(self, start: float, end: float) -> list[tuple[float, str, float]]:
        """Return what was labelled in a period."""
        return [row for row in self.labels if start <= row[0] < end]


def held_frames(bus: Bus) -> dict[str, int]:
    """Return how many frames of each camera have pixels in Redis: those that wait, and those that workers hold."""
    keys = (key.decode() for key in bus.client.scan_iter("*:pixels:*", count=1000))
    return Counter(key.split(":")[2] for key in keys)


def fair_shares(offered: Rates, capacity: float) -> dict[str, float]:
    """Return the max-min fair share of each camera: no one gets more than it offers, what is left is shared equally."""
    shares: dict[str, float] = {}
    left = capacity
    for count, name in enumerate(sorted(offered, key=lambda one: offered[one])):
        shares[name] = min(offered[name], left / (len(offered) - count))
        left -= shares[name]
    return shares


def measure_sharing(seconds: float) -> bool:
    """Print each camera's rate against its fair share; return whether all promises held."""
    held = True
    with pretend_pipeline(MIXED) as pipeline:
        time.sleep(WARM_UP_S)
        begun = time.monotonic()
        time.sleep(seconds)
    print(f"cameras of {', '.join(str(rate) for rate in MIXED.values())} frames/s, two workers of 50 ms a frame")
    print(f"{'window':>8} {'in all':>7}  frames/s of each camera, and what differs from its fair share")
    for number in range(int(seconds / WINDOW_S)):
        rows = pipeline.between(begun + number * WINDOW_S, begun + (number + 1) * WINDOW_S)
        rates = {name: count / WINDOW_S for name, count in Counter(name for _, name, _ in rows).items()}
        shares = fair_shares(MIXED, len(rows) / WINDOW_S)
        off = {name: rates.get(name, 0.0) / share - 1 for name, share in shares.items()}
        held &= all(abs(one) <= TOLERANCE for one in off.values())
        parts = " ".join(f"{rates.get(name, 0.0):4.1f} ({100 * off[name]:+3.0f}%)" for name in MIXED)
        print(f"{number * WINDOW_S:6.0f} s {len(rows) / WINDOW_S:7.1f}  {parts}")
    ages = sorted(age for _, _, age in pipeline.between(begun, begun + seconds))
    p99 = ages[int(0.99 * len(ages))]
    print(f"age of labelled frames: median {1000 * ages[len(ages) // 2]:.0f} ms, p99 {1000 * p99:.0f} ms")
    return held and p99 <= MAX_P99_S


def measure_recovery(overload_s: float) -> bool:
    """Offer five times what the workers can do, then less; return whether ages are short again in time."""
    with pretend_pipeline(CALM) as pipeline:
        time.sleep(WARM_UP_S)
        with running(run_cameras, pipeline.url, OVERLOAD):
            time.sleep(overload_s)
            ended = time.monotonic()
        time.sleep(RECOVERY_S + WINDOW_S)
    during = sorted(age for _, _, age in pipeline.between(ended - overload_s / 2, ended))
    late = [at - ended for at, _, age in pipeline.between(ended, time.monotonic()) if age > MAX_AGE_AFTER_S]
    took = max(late, default=0.0)
    print(
        f"\noverload of {overload_s:.0f} s: p99 age {1000 * during[int(0.99 * len(during))]:.0f} ms; ages are under "
        f"{1000 * MAX_AGE_AFTER_S:.0f} ms again {took:.1f} s after its end"
    )
    return took <= RECOVERY_S


def measure_absence(away_s: float) -> bool:
    """Run without a classifier; return whether little waits, and labels flow at once when one comes."""
    most, total, stop = 0, 0, threading.Event()
    with pretend_pipeline(MIXED, classifiers=0) as pipeline, connect(pipeline.url) as client:
        bus = Bus(client)
        ends = time.monotonic() + away_s
        while time.monotonic() < ends:
            time.sleep(1.0)
            frames = held_frames(bus)
            most, total = max([most, *frames.values()]), max(total, sum(frames.values()))
        entries = sum(client.xlen(bus.shards[0].key(stream)) for stream in ("frames", "faces"))
        used = client.info("memory")["used_memory"]
        returned = time.monotonic()
        classifier = threading.Thread(target=run_classifiers, args=(pipeline.url, CLASSIFIERS, CLASSIFY_S, stop))
        classifier.start()
        while not pipeline.labels:
            time.sleep(0.001)
        first = pipeline.labels[0][0] - returned
        stop.set()
        classifier.join()
    print(
        f"\nno classifier for {away_s:.0f} s: Redis holds at most {most} frames of a camera, and {total} of all "
        f"{len(MIXED)} cameras, with the {DETECTORS} that workers hold; {entries} entries, {used / 1e6:.1f} MB; "
        f"the first label {first:.2f} s after a classifier is there"
    )
    return total <= 2 * len(MIXED) + DETECTORS and first <= 1.0


@contextmanager
def pretend_pipeline(rates: Rates, classifiers: int = CLASSIFIERS) -> Iterator[Pipeline]:
    """Run a server, cameras and workers while the block runs."""
    ended = threading.Event()
    with embedded_server() as server:
        server.wait()
        pipeline = Pipeline(server.url)
        thread = threading.Thread(target=_collect, args=(pipeline, ended))
        thread.start()
        with (
            running(run_detectors, server.url, DETECTORS, DETECT_S),
            running(run_classifiers, server.url, classifiers, CLASSIFY_S),
            running(run_cameras, server.url, rates),
        ):
            yield pipeline
        ended.set()
        thread.join()


@click.command()
@click.option("--seconds", default=60.0, show_default=True, help="Of the shares.")
@click.option("--overload-s", default=120.0, show_default=True, help="Of five times as much as the workers can do.")
@click.option("--away-s", default=600.0, show_default=True, help="Without a classifier.")
def main(seconds: float, overload_s: float, away_s: float) -> None:
    """Measure all."""
    results = [measure_sharing(seconds), measure_recovery(overload_s), measure_absence(away_s)]
    print("\nevery promise held" if all(results) else "\nA PROMISE BROKE")
    sys.exit(0 if all(results) else 1)


def _collect(pipeline: Pipeline, ended: threading.Event) -> None:
    """Note every labelled frame."""
    with connect(pipeline.url) as client:
        bus = Bus(client)
        consumer = ResultConsumer(bus.shards)
        while not ended.is_set():
            for result in consumer.read():
                if result.outcome == "labelled":
                    age_s = bus.clock.now() - result.captured_at
                    pipeline.labels.append((time.monotonic(), result.camera, age_s))


if __name__ == "__main__":
    main()
