"""Pretend cameras and workers: real records, queue and Redis, tiny pixels, and workers that only wait.

They show what the queue itself costs, and how it shares what workers can do, without networks and pictures.
"""

from __future__ import annotations

import heapq
import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pipeline.bus.connection import connect
from pipeline.bus.dedicated_connection import DedicatedConnection
from pipeline.bus.frame_ring import FrameRing
from pipeline.bus.keys import LIVE_PIXELS_MS
from pipeline.bus.leases import Lease
from pipeline.bus.messages import FaceCrops, Frame, FrameResult, Relabel, SharedPixels, frame_id
from pipeline.bus.reader import Reader
from pipeline.bus.shards import Bus, Stage
from pipeline.bus.writer import Writer
from pipeline.runtime.worker_context import WorkerContext
from pipeline.vision.arrays import Image
from pipeline.vision.faces import Face
from producer.camera import DEFAULT_RELABEL_S, SHARED_FRAMES
from producer.sources.source_spec import parse_source

DEADLINE_S = 1.0
CROP_PX = 8
FACE = Face(box=(10.0, 10.0, 60.0, 60.0), score=0.9, label="mask", confidence=0.9)

Rates = Mapping[str, float]  # frames per second, by camera


def run_cameras(
    url: str,
    rates: Rates,
    stop: Event,
    *,
    jpeg_bytes: int = 1_000,
    shards: int | None = None,
    images: tuple[str, int] | None = None,
    factor: Synchronized[float] | None = None,
) -> None:
    """Publish frames of cameras at fixed rates, from one process, until `stop` is set.

    images: a video, and how many of its frames are decoded and shared before, instead of JPEGs. A camera repeats some
        of them, without copying any, as if it were on a machine of its own.
    factor: of all rates; it may change meanwhile, but none below one frame in 1.8 s, or its camera loses its name.
    """
    jpeg = bytes(jpeg_bytes)
    shared = _shared(_decoded(*images), list(rates)) if images else {}
    with connect(url) as client:
        bus = Bus(client, shards)
        start = int(bus.clock.now() * 1000)
        leases = {name: Lease(bus.shard_of(name), name, lambda seconds: stop.wait(seconds)) for name in rates}
        for lease in leases.values():
            lease.acquire()
        connection, pixels_ms = DedicatedConnection(client), LIVE_PIXELS_MS
        writers = {
            name: Writer(
                bus.shard_of(name), camera=name, token=leases[name].token, pixels_ms=pixels_ms, connection=connection
            )
            for name in rates
        }
        # Times are those of the rates as they are given. Phases spread the cameras over a period.
        due = [(number / len(rates) / rates[name], name, 0) for number, name in enumerate(rates)]
        heapq.heapify(due)
        at, due_at = 0.0, time.monotonic()
        while not stop.is_set():
            next_at, name, seq = heapq.heappop(due)
            due_at += (next_at - at) / (factor.value if factor else 1.0)
            at = next_at
            time.sleep(max(0.0, due_at - time.monotonic()))
            if leases[name].needs_renewal:
                leases[name].renew()
            published_at = time.monotonic()
            frame = _frame(bus, name, start, seq)
            if shared:
                frame = _with_pixels(frame, shared[name][seq % SHARED_FRAMES])
            if writers[name].publish(frame, b"" if shared else jpeg) == "published":
                leases[name].note_published(published_at)
            heapq.heappush(due, (at + 1 / rates[name], name, seq + 1))


def run_detectors(url: str, count: int, wait_s: float, stop: Event, shards: int | None = None) -> None:
    """Take frames, wait, and forward one face of each, in `count` threads."""

    def work(reader: Reader[Frame]) -> None:
        entries = reader.read(1)
        for number, entry in enumerate(entries, start=1):
            _work_for(wait_s)
            faces = FaceCrops.for_frame(
                entry.record, boxes=[FACE.box], scores=[FACE.score], crop_px=CROP_PX, seconds={"detect": wait_s}
            )
            reader.forward(entry, faces, bytes(3 * CROP_PX**2))
            reader.renew(entries[number:])

    _run_threads(count, lambda: _loop(url, "detector", work, stop, shards))


def run_classifiers(url: str, count: int, wait_s: float, stop: Event, shards: int | None = None) -> None:
    """Take faces, wait, and label them, in `count` threads."""

    def work(reader: Reader[FaceCrops]) -> None:
        for entry in reader.read(1):
            _work_for(wait_s)
            result = FrameResult.for_frame(entry.record, faces=[FACE], model="pretend", seconds=entry.record.seconds)
            reader.finish(entry, result)

    _run_threads(count, lambda: _loop(url, "classifier", work, stop, shards))


@contextmanager
def running(target: Callable[..., None], *args: Any, **kwargs: Any) -> Iterator[int]:
    """Run one of the above in a process of its own while the block runs; yield its process ID."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    process = context.Process(target=target, args=args, kwargs=kwargs | {"stop": stop})
    process.start()
    try:
        yield process.pid or 0
    finally:
        stop.set()
        process.join(5)
        process.kill()


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process and its children have used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own_s + sum(cpu_s(int(child)) for child in children)


def _work_for(seconds: float) -> None:
    if seconds:  # a sleep of 0 s gives the processor away, too
        time.sleep(seconds)


def _frame(bus: Bus, camera: str, start: int, seq: int) -> Frame:
    identity, shard = frame_id(camera, start, seq), bus.shard_of(camera)
    captured_at = shard.clock.now()
    return Frame(
        frame_id=identity,
        camera=camera,
        start=start,
        seq=seq,
        width=1280,
        height=720,
        pixels_key=shard.key("pixels", identity),
        captured_at=captured_at,
        deadline_at=captured_at + DEADLINE_S,
    )


def _decoded(video: str, count: int) -> list[Image]:
    """Return the first frames of a video, uint8 720 x 1280 x 3, BGR."""
    source = parse_source(video).open()
    images = [np.asarray(frame.image) for frame in itertools.islice(source, count)]
    source.close()
    return images


def _shared(images: list[Image], cameras: list[str]) -> dict[str, list[SharedPixels]]:
    """Share images that follow one another for each camera, beginning at different ones; return where they are."""
    found = {}
    for number, name in enumerate(cameras):
        ring = FrameRing(SHARED_FRAMES, images[0].nbytes)  # stays, since its memory is not closed
        first = number * len(images) // len(cameras)
        chosen = [images[(first + slot) % len(images)] for slot in range(SHARED_FRAMES)]
        found[name] = [pixels for image in chosen if (pixels := ring.put(image, hold=True))]
    return found


def _with_pixels(frame: Frame, pixels: SharedPixels) -> Frame:
    relabel = Relabel(every_s=DEFAULT_RELABEL_S, at_s=frame.captured_at)
    return msgspec.structs.replace(frame, shared=pixels, relabel=relabel)


def _loop(url: str, role: str, work: Callable[[Any], None], stop: Event, shards: int | None) -> None:
    context = WorkerContext(role, url, shards=shards)
    heartbeats = threading.Thread(target=context.send_heartbeats, daemon=True)
    heartbeats.start()
    record: Any = Frame if role == "detector" else FaceCrops
    stage: Stage = "frames" if role == "detector" else "faces"
    reader: Reader[Any] = Reader(context.bus, stage=stage, record_type=record, consumer=context.id, pipelined=True)
    while not stop.is_set():
        context.watchdog.kick()
        work(reader)
    context.request_stop()
    heartbeats.join()
    reader.leave_group()


def _run_threads(count: int, loop: Callable[[], None]) -> None:
    threads = [threading.Thread(target=loop) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
