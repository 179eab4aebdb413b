"""All metrics: their names, their meaning, and the processes that export them.

The objects are global, because a process has one of each; `register_metrics(role)` registers those of a role. Totals
of all processes are in Redis and exported by the viewer (REDIS_METRICS). Labels have few values: a camera process
exports its own camera only, the viewer the cameras listed in Redis.
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

# the creation times of counters would be half of all lines, and nothing here resets a counter
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client has no hints here

STAGE_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
OUTCOMES = {  # how entries of a work stream end, as `settled` counts them
    "frames": ("forwarded", "labelled", "stale", "expired", "pixels_gone", "dead"),
    "faces": ("labelled", "stale", "expired", "pixels_gone", "dead"),
}


class BusyTime(Collector):
    """Seconds spent on work, including the work under way: a training takes hours."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done_s: dict[str, float] = {}
        self._since: dict[str, float] = {}

    def begin(self, role: str) -> None:
        """Export the counter of a role, starting at 0."""
        with self._lock:
            self._done_s.setdefault(role, 0.0)

    @contextlib.contextmanager
    def during(self, role: str) -> Iterator[None]:
        """Count the block's time. Only one thread of a process may use it at a time."""
        with self._lock:
            self._since[role] = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._done_s[role] = self._done_s.get(role, 0.0) + time.monotonic() - self._since.pop(role)

    def seconds(self, role: str) -> float:
        """Return for how long this process has worked in a role, including the work under way."""
        with self._lock:
            now = time.monotonic()
            return self._done_s.get(role, 0.0) + now - self._since.get(role, now)

    def collect(self) -> Iterator[Metric]:
        """Yield the seconds of each role."""
        found = CounterMetricFamily(
            "maskwatch_busy_seconds", "Time this process has worked instead of waited", labels=["role"]
        )
        with self._lock:
            now = time.monotonic()
            for role, done_s in self._done_s.items():
                found.add_metric([role], done_s + now - self._since.get(role, now))
        yield found


class SettledEntries(Collector):
    """Entries that this process settled, by outcome, as its readers count them."""

    def __init__(self) -> None:
        self._counts: dict[str, Mapping[str, int]] = {}

    def add_reader(self, stream: str, counts: Mapping[str, int]) -> None:
        """Export a reader's counts. counts: by outcome, a drop as dropped:reason."""
        self._counts[stream] = counts

    def collect(self) -> Iterator[Metric]:
        """Yield the counts, with 0 for outcomes that have not occurred."""
        found = CounterMetricFamily(
            "maskwatch_settled", "Entries of a stream that this process settled", labels=["stream", "outcome"]
        )
        for stream, counts in self._counts.items():
            occurred = {name.removeprefix("dropped:"): count for name, count in dict(counts).items()}
            for outcome, count in (dict.fromkeys(OUTCOMES.get(stream, ()), 0) | occurred).items():
                found.add_metric([stream, outcome], count)
        yield found


def _counter(name: str, help_text: str, *labels: str) -> Counter:
    return Counter(name, help_text, labels, registry=None)  # registered by register_metrics()


def _gauge(name: str, help_text: str, *labels: str) -> Gauge:
    return Gauge(name, help_text, labels, registry=None)


def _histogram(name: str, help_text: str, buckets: tuple[float, ...] = STAGE_S) -> Histogram:
    return Histogram(name, help_text, buckets=buckets, registry=None)


# Every process
busy = BusyTime()
loop_age_s = _gauge("maskwatch_loop_age_seconds", "Since the last iteration of the process' slowest loop")
redis_up = _gauge("maskwatch_redis_up", "1 while Redis answers this process")
reconnects = _counter("maskwatch_redis_reconnects_total", "How often Redis failed and then answered again")
rejected = _counter("maskwatch_metrics_refused_total", "Requests for metrics without the right token")

# Cameras
published = _counter("maskwatch_published_total", "Frames of this camera, by how publishing ended", "camera", "outcome")
source_failures = _counter(
    "maskwatch_source_failures_total", "How often the camera's source stopped delivering", "camera"
)
skipped_pictures = _counter(
    "maskwatch_skipped_pictures_total", "Pictures left out because decoding is slower than the camera", "camera"
)
bad_pictures = _counter("maskwatch_bad_pictures_total", "Images of the source that could not be decoded", "camera")

# Detectors and classifiers
settled = SettledEntries()
detect_s = _histogram("maskwatch_detect_seconds", "Work on one frame: decode, detect, crop")
detect_wait_s = _histogram("maskwatch_detect_wait_seconds", "From a frame's capture to the start of its detection")
classify_s = _histogram("maskwatch_classify_seconds", "From the start of a batch to a frame's labels")
classify_wait_s = _histogram("maskwatch_classify_wait_seconds", "From the end of detection to the start of a batch")
kept_labels = _counter("maskwatch_kept_labels_total", "Faces that kept the label of an earlier frame")
batch_crops = _histogram("maskwatch_batch_crops", "Crops in one batch", BATCH_SIZES)
model_info = _gauge("maskwatch_model_info", "1 for the version this worker uses", "version")
model_rejected = _gauge("maskwatch_model_refused", "1 while this worker cannot use the registry's current version")

# Recorders
recorder_active = _gauge("maskwatch_recorder_active", "1 while this recorder is the one that records")
events = _counter("maskwatch_events_total", "Events that this recorder wrote", "kind", "phase")
deliveries = _counter("maskwatch_deliveries_total", "Attempts to deliver an event, by how they ended", "outcome")
for _outcome in ("delivered", "failed"):
    deliveries.labels(_outcome)  # from 0 on, so that Prometheus sees the first failure as an increase

# Trainers
job_running = _gauge("maskwatch_job_running", "1 while this trainer trains")
job_epoch = _gauge("maskwatch_job_epoch", "The job's epoch under way or last finished, 0 without a job")
job_epochs = _gauge("maskwatch_job_epochs", "How many epochs the job is to have, 0 without a job")

EVERY_ROLE: tuple[Collector, ...] = (busy, loop_age_s, redis_up, reconnects, rejected)
ROLES: dict[str, tuple[Collector, ...]] = {
    "camera": (published, source_failures, skipped_pictures, bad_pictures),
    "detector": (settled, detect_s, detect_wait_s, kept_labels, model_info, model_rejected),
    "classifier": (settled, classify_s, classify_wait_s, batch_crops, model_info, model_rejected),
    "recorder": (recorder_active, events, deliveries),
    "trainer": (job_running, job_epoch, job_epochs),
}


@dataclass(frozen=True, slots=True)
class RedisMetric:
    """A metric that the viewer reads from Redis. A name that ends in _total is a counter's."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    def family(self) -> CounterMetricFamily | GaugeMetricFamily:
        """Return the metric without values."""
        if self.name.endswith("_total"):
            return CounterMetricFamily(self.name.removesuffix("_total"), self.help, labels=self.labels)
        return GaugeMetricFamily(self.name, self.help, labels=self.labels)


CAMERA = ("camera",)
STREAM = ("stream",)
produced = RedisMetric("maskwatch_frames_produced_total", "Frames a camera has produced", CAMERA)
labelled = RedisMetric("maskwatch_frames_labelled_total", "... of them labelled", CAMERA)
dropped = RedisMetric("maskwatch_frames_dropped_total", "... of them dropped, by reason", ("camera", "reason"))
in_flight = RedisMetric("maskwatch_frames_in_flight", "... of them in flight", CAMERA)
camera_up = RedisMetric("maskwatch_camera_up", "1 for a live camera; state holds its state", ("camera", "state"))
camera_age_s = RedisMetric("maskwatch_camera_age_seconds", "Since a camera's newest frame was captured", CAMERA)
camera_latency_s = RedisMetric(
    "maskwatch_camera_latency_seconds", "Capture to labelled, mean of the last seconds", CAMERA
)
processes = RedisMetric(
    "maskwatch_processes", "Live processes by role, and by model if they use one", ("role", "model")
)
stream_length = RedisMetric("maskwatch_stream_length", "Entries in a stream", STREAM)
stream_lag = RedisMetric("maskwatch_stream_lag", "... of them not read yet", STREAM)
stream_pending = RedisMetric("maskwatch_stream_pending", "... of them being worked on", STREAM)
redis_bytes = RedisMetric("maskwatch_redis_memory_bytes", "Memory that Redis uses")
redis_limit_bytes = RedisMetric("maskwatch_redis_memory_limit_bytes", "Memory that Redis may use; 0 without a limit")

REDIS_METRICS = (
    *(produced, labelled, dropped, in_flight, camera_up, camera_age_s, camera_latency_s, processes),
    *(stream_length, stream_lag, stream_pending, redis_bytes, redis_limit_bytes),
)

_exposed: set[Collector] = set()


def register_metrics(role: str) -> None:
    """Register the metrics of a role for export."""
    busy.begin(role)
    for metric in EVERY_ROLE + ROLES.get(role, ()):
        if metric not in _exposed:
            REGISTRY.register(metric)
            _exposed.add(metric)


def report_model(version: str) -> None:
    """Export the version this worker uses, and no other."""
    model_info.clear()
    model_info.labels(version).set(1)
