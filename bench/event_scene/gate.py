"""A third camera, `gate`, that publishes frames in real time through the real queue, goes offline and comes back."""

from __future__ import annotations

import contextlib
import threading

import redis

from pipeline.bus.keys import LIVE_PIXELS_MS
from pipeline.bus.leases import Lease
from pipeline.bus.messages import Frame, FrameResult, frame_id
from pipeline.bus.reader import Reader
from pipeline.bus.shards import Bus
from pipeline.bus.writer import Writer

FRAME_S = 0.1
CAMERA = "gate"


class Gate(contextlib.AbstractContextManager["Gate"]):
    """The camera, with a worker for its frames.

    Attributes:
        away: when its last frame before an absence and its first one after it were captured, Unix seconds.
    """

    def __init__(self, bus: Bus) -> None:
        self.away: list[tuple[float, float]] = []
        self._bus = bus
        self._ended, self._hidden = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=CAMERA)
        self._thread.start()

    def go(self) -> None:
        """Go offline until `come_back()`."""
        self._hidden.set()

    def come_back(self) -> None:
        """Publish again."""
        self._hidden.clear()

    def __exit__(self, *_: object) -> None:
        """End the camera."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        shard, start, seq, last_at = self._bus.shard_of(CAMERA), int(self._bus.clock.now() * 1000), 0, 0.0
        lease: Lease | None = None
        reader = Reader(self._bus, stage="frames", record_type=Frame, consumer="scene")
        left = False
        while not self._ended.wait(FRAME_S):
            with contextlib.suppress(redis.RedisError):
                if self._hidden.is_set():
                    left = left or lease is not None
                    if lease is not None:
                        lease.release()
                        lease = None
                    continue
                if lease is None:
                    lease = Lease(shard, CAMERA, lambda seconds: self._ended.wait(seconds))
                    lease.acquire()
                    lease.keep_renewing()
                    writer = Writer(shard, camera=CAMERA, token=lease.token, pixels_ms=LIVE_PIXELS_MS)
                frame = _frame(self._bus, start, seq)
                if writer.publish(frame, b"pixels") != "published":
                    continue
                if left:
                    self.away.append((last_at, frame.captured_at))
                left, seq, last_at = False, seq + 1, frame.captured_at
                for entry in reader.read(1):
                    reader.finish(entry, FrameResult.for_frame(entry.record, faces=[], model="test", seconds={}))
        if lease is not None:
            with contextlib.suppress(redis.RedisError):
                lease.release()


def _frame(bus: Bus, start: int, seq: int) -> Frame:
    now = bus.clock.now()
    return Frame(
        frame_id=frame_id(CAMERA, start, seq),
        camera=CAMERA,
        start=start,
        seq=seq,
        width=640,
        height=360,
        pixels_key=f"{{s0}}:pixels:{CAMERA}:{start}:{seq}",
        captured_at=now,
        deadline_at=now + 5,
    )
