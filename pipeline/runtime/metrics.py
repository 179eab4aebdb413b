"""Every metric there is: its name, what it tells, and which process tells it.

The objects are global, because a process has one of each; `expose(role)` registers those of a role, and whoever counts
imports this module. What all processes together have done stands in Redis and is told by the viewer (IN_REDIS). Labels
stay few: a camera's process tells of its own camera alone, the viewer of cameras that Redis lists.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# when each counter began: half of all lines, and nothing here resets a counter
disable_created_metrics()  # type: ignore[no-untyped-call]

STAGE_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
OUTCOMES = {  # of the entries on a work stream, as `settled` counts them
    "frames": ("forwarded", "labelled", "stale", "expired", "pixels_gone", "dead"),
    "faces": ("labelled", "stale", "expired", "pixels_gone", "dead"),
}


class BusyTime(Collector):
    """Seconds spent on work, counted also while the work goes on: a training takes hours."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done_s: dict[str, float] = {}
        self._since: dict[str, float] = {}

    def begin(self, role: str) -> None:
        """Count for a role from now on, beginning with 0."""
        with self._lock:
            self._done_s.setdefault(role, 0.0)

    @contextlib.contextmanager
    def during(self, role: str) -> Iterator[None]:
        """Count the time that the block takes. One thread of a process works at a time."""
        with self._lock:
            self._since[role] = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._done_s[role] = self._done_s.get(role, 0.0) + time.monotonic() - self._since.pop(role)

    def collect(self) -> Iterator[Metric]:
        """Give the sum for each role."""
        found = CounterMetricFamily(
            "maskwatch_busy_seconds", "Time this process has worked instead of waited", labels=["role"]
        )
        with self._lock:
            now = time.monotonic()
            for role, done_s in self._done_s.items():
                found.add_metric([role], done_s + now - self._since.get(role, now))
        yield found


class SettledEntries(Collector):
    """How the entries that this process settled ended, as its readers count them."""

    def __init__(self) -> None:
        self._counts: dict[str, Mapping[str, int]] = {}

    def follow(self, stream: str, counts: Mapping[str, int]) -> None:
        """Tell a reader's counts from now on. counts: by outcome, a drop as dropped:reason."""
        self._counts[stream] = counts

    def collect(self) -> Iterator[Metric]:
        """Give the counts, with 0 for what has not happened yet."""
        found = CounterMetricFamily(
            "maskwatch_settled", "Entries of a stream that this process settled", labels=["stream", "outcome"]
        )
        for stream, counts in self._counts.items():
            told = {name.removeprefix("dropped:"): count for name, count in dict(counts).items()}
            for outcome, count in (dict.fromkeys(OUTCOMES.get(stream, ()), 0) | told).items():
                found.add_metric([stream, outcome], count)
        yield found


# Every process
busy = BusyTime()
loop_age_s = Gauge("maskwatch_loop_age_seconds", "Since the process' slowest loop last turned", registry=None)
redis_up = Gauge("maskwatch_redis_up", "1 while Redis answers this process", registry=None)
reconnects = Counter(
    "maskwatch_redis_reconnects_total", "How often Redis failed and then answered again", registry=None
)
refused = Counter("maskwatch_metrics_refused_total", "Requests for metrics without the right token", registry=None)

# Cameras
published = Counter(
    "maskwatch_published_total", "Frames of this camera, by how publishing ended", ["camera", "outcome"], registry=None
)
source_failures = Counter(
    "maskwatch_source_failures_total", "How often the camera's source stopped delivering", ["camera"], registry=None
)
bad_pictures = Counter(
    "maskwatch_bad_pictures_total", "Pictures of the source that could not be read", ["camera"], registry=None
)

# Detectors and classifiers
settled = SettledEntries()
detect_s = Histogram(
    "maskwatch_detect_seconds", "Work on one frame: decode, find, crop", buckets=STAGE_S, registry=None
)
detect_wait_s = Histogram(
    "maskwatch_detect_wait_seconds",
    "From a frame's capture to the start of its detection",
    buckets=STAGE_S,
    registry=None,
)
classify_s = Histogram(
    "maskwatch_classify_seconds", "From the start of a batch to a frame's labels", buckets=STAGE_S, registry=None
)
classify_wait_s = Histogram(
    "maskwatch_classify_wait_seconds",
    "From the end of detection to the start of a batch",
    buckets=STAGE_S,
    registry=None,
)
batch_crops = Histogram("maskwatch_batch_crops", "Crops in one model call", buckets=BATCH_SIZES, registry=None)
model_info = Gauge("maskwatch_model_info", "1 for the version this classifier labels with", ["version"], registry=None)
model_refused = Gauge(
    "maskwatch_model_refused", "1 while this classifier cannot use the registry's current version", registry=None
)

# Trainers
job_running = Gauge("maskwatch_job_running", "1 while this trainer trains", registry=None)
job_epoch = Gauge("maskwatch_job_epoch", "The job's epoch under way or last finished, 0 without a job", registry=None)
job_epochs = Gauge("maskwatch_job_epochs", "How many epochs the job is to have, 0 without a job", registry=None)

EVERY_ROLE: tuple[Collector, ...] = (busy, loop_age_s, redis_up, reconnects, refused)
ROLES: dict[str, tuple[Collector, ...]] = {
    "camera": (published, source_failures, bad_pictures),
    "detector": (settled, detect_s, detect_wait_s),
    "classifier": (settled, classify_s, classify_wait_s, batch_crops, model_info, model_refused),
    "trainer": (job_running, job_epoch, job_epochs),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class InRedis:
    """A metric that the viewer reads from Redis. Its name ends in _total when it only ever grows."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    def family(self) -> CounterMetricFamily | GaugeMetricFamily:
        """Return it without values."""
        if self.name.endswith("_total"):
            return CounterMetricFamily(self.name.removesuffix("_total"), self.help, labels=self.labels)
        return GaugeMetricFamily(self.name, self.help, labels=self.labels)


CAMERA = ("camera",)
STREAM = ("stream",)
produced = InRedis(name="maskwatch_frames_produced_total", help="Frames a camera has produced", labels=CAMERA)
labelled = InRedis(name="maskwatch_frames_labelled_total", help="... of them labelled", labels=CAMERA)
dropped = InRedis(
    name="maskwatch_frames_dropped_total", help="... of them dropped, by reason", labels=("camera", "reason")
)
in_flight = InRedis(name="maskwatch_frames_in_flight", help="... of them not ended yet", labels=CAMERA)
camera_up = InRedis(
    name="maskwatch_camera_up", help="1 for a live camera; state says what else it is", labels=("camera", "state")
)
camera_age_s = InRedis(
    name="maskwatch_camera_age_seconds", help="Since a camera's newest frame was captured", labels=CAMERA
)
camera_latency_s = InRedis(
    name="maskwatch_camera_latency_seconds", help="Capture to labelled, median of the last seconds", labels=CAMERA
)
processes = InRedis(
    name="maskwatch_processes", help="Live processes by role, and by model where they use one", labels=("role", "model")
)
stream_length = InRedis(name="maskwatch_stream_length", help="Entries that stand in a stream", labels=STREAM)
stream_lag = InRedis(name="maskwatch_stream_lag", help="... of them read by nobody yet", labels=STREAM)
stream_pending = InRedis(name="maskwatch_stream_pending", help="... of them being worked on", labels=STREAM)
redis_bytes = InRedis(name="maskwatch_redis_memory_bytes", help="Memory that Redis uses")
redis_limit_bytes = InRedis(name="maskwatch_redis_memory_limit_bytes", help="Memory that Redis may use; 0 for any")

IN_REDIS = (
    produced,
    labelled,
    dropped,
    in_flight,
    camera_up,
    camera_age_s,
    camera_latency_s,
    processes,
    stream_length,
    stream_lag,
    stream_pending,
    redis_bytes,
    redis_limit_bytes,
)

_exposed: set[Collector] = set()


def expose(role: str) -> None:
    """Let this process tell the metrics of a role."""
    busy.begin(role)
    for metric in EVERY_ROLE + ROLES.get(role, ()):
        if metric not in _exposed:
            REGISTRY.register(metric)
            _exposed.add(metric)


def report_model(version: str) -> None:
    """Say which version this classifier labels with, and forget the one before."""
    model_info.clear()
    model_info.labels(version).set(1)
