"""Metrics: what processes count, who may read it, and that metrics of ended cameras are removed."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from conftest import Server, wait_until
from feeding import Feed, face
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from pipeline.bus import keys, messages
from pipeline.bus.leases import Lease
from pipeline.bus.status import WORK_STREAMS, Camera, Ledger, Status, read_status
from pipeline.runtime import metrics, metrics_server
from pipeline.runtime.metrics import BusyTime, SettledEntries
from pipeline.runtime.metrics_server import MAX_CONNECTIONS, has_token, serve_metrics
from pipeline.runtime.settings import Settings
from pipeline.runtime.worker_context import WorkerContext, worker_context
from viewer.metrics import CAMERA_RETENTION_S, MAX_CAMERAS, add_metrics, metric_samples

TOKEN = "a-token-of-some-length"  # noqa: S105 -- it opens nothing but these tests
SHOWN = {"Authorization": f"Bearer {TOKEN}"}
ANY_V4, ANY_V6, LOOPBACK = "00000000", "0" * 32, "0100007F"  # as the kernel writes addresses


@pytest.fixture
def port() -> Iterator[int]:
    with serve_metrics(0, TOKEN) as port:
        yield port


def listens_on(port: int) -> set[str]:
    """Return the addresses on which a process listens at a port."""
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {place.split(":")[0] for _, place, _, state, *_ in lines if state == "0A" and place.endswith(f":{port:04X}")}


def rejections() -> float:
    (family,) = metrics.rejected.collect()
    return float(family.samples[0].value)


def test_without_a_token_only_this_machine_is_served() -> None:
    with serve_metrics(0, None) as port:
        answer = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5)

        assert answer.status_code == 200
        assert listens_on(port) == {LOOPBACK}


def test_with_a_token_all_interfaces_are_served_to_requests_that_contain_it(port: int) -> None:
    answer = requests.get(f"http://127.0.0.1:{port}/metrics", headers=SHOWN, timeout=5)

    assert answer.status_code == 200
    assert "process_cpu_seconds_total" in answer.text
    assert listens_on(port) <= {ANY_V4, ANY_V6}


@pytest.mark.parametrize(
    "header", [None, "", TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", "Bearer é"]
)
def test_a_request_without_the_token_is_rejected(port: int, header: str | None) -> None:
    before = rejections()
    headers = {} if header is None else {"Authorization": header.encode()}

    answer = requests.get(f"http://127.0.0.1:{port}/metrics", headers=headers, timeout=5)

    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "maskwatch_" not in answer.text
    assert rejections() == before + 1


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_may_be_written_in_any_case(scheme: str) -> None:
    assert has_token(TOKEN, f"{scheme} {TOKEN}")


def test_many_rejections_are_one_line(port: int, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5)

    assert sum("without the right token" in record.message for record in caplog.records) == 1


def test_another_path_and_another_method_are_no_metrics(port: int) -> None:
    url = f"http://127.0.0.1:{port}"

    assert requests.get(url, headers=SHOWN, timeout=5).status_code == 404
    assert requests.post(f"{url}/metrics", headers=SHOWN, timeout=5).status_code == 405


def test_a_port_in_use_is_one_clear_line(port: int, server: Server) -> None:
    said = rf"^cannot serve metrics on port {port}: Address already in use; choose another --metrics-port$"

    with (
        pytest.raises(OSError, match=said),
        worker_context("camera", Settings(redis_url=server.url, metrics_port=port, metrics_token=TOKEN)),
    ):
        pytest.fail("it runs")


def test_idle_connections_are_closed_and_free_their_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server._Request, "timeout", 0.5)
    with serve_metrics(0, TOKEN) as port, contextlib.ExitStack() as silent:
        for _ in range(2 * MAX_CONNECTIONS):
            silent.enter_context(socket.create_connection(("127.0.0.1", port), 5))

        def answers() -> bool:
            with contextlib.suppress(requests.ConnectionError):
                return requests.get(f"http://127.0.0.1:{port}/metrics", headers=SHOWN, timeout=5).ok
            return False

        wait_until(answers, 30, "requests are answered again")


def test_work_is_counted_while_it_is_under_way() -> None:
    busy = BusyTime()
    busy.begin("trainer")

    def seconds() -> float:
        (family,) = busy.collect()
        return float(family.samples[0].value)

    assert seconds() == 0.0
    with busy.during("trainer"):
        first = wait_until(seconds, 10, "some time passes")
        wait_until(lambda: seconds() > first, 10, "more time passes")
    after = seconds()
    assert after > first
    assert seconds() == after


def test_settled_entries_are_exported_by_outcome_starting_at_zero() -> None:
    settled = SettledEntries()
    settled.add_reader("faces", {"labelled": 7, "dropped:stale": 2})

    (family,) = settled.collect()

    told = {sample.labels["outcome"]: sample.value for sample in family.samples}
    assert told == {"labelled": 7, "stale": 2, "expired": 0, "pixels_gone": 0, "dead": 0}
    assert {sample.name for sample in family.samples} == {"maskwatch_settled_total"}


def test_a_classifier_exports_one_version_at_a_time() -> None:
    metrics.report_model("a")
    metrics.report_model("b")

    (family,) = metrics.model_info.collect()

    assert [(sample.labels, sample.value) for sample in family.samples] == [({"version": "b"}, 1)]


def camera(name: str, newest_at: float | None) -> Camera:
    return Camera(
        name=name,
        state="offline",
        detail="",
        newest_at=newest_at,
        fps=0,
        labelled_fps=0,
        latency_ms=None,
        ledger=Ledger(),
    )


def test_cameras_that_are_gone_are_no_longer_exported() -> None:
    now = 1e9
    seen = {
        "now": now,
        "yesterday": now - CAMERA_RETENTION_S + 1,
        "long-ago": now - CAMERA_RETENTION_S - 1,
        "ghost": now - 1,
        "file-1": now,
    }
    cameras = [camera(name, at if name != "ghost" else None) for name, at in seen.items() if name != "file-1"]

    told = metric_samples(
        Status(cameras=cameras, files=[camera("file-1", now)], processes=[], streams={}, model=None),
        seen,
        lambda _: now,
    )

    assert [labels[0] for labels, _ in told[metrics.produced]] == ["now", "ghost", "yesterday"]


def test_the_age_of_a_picture_is_measured_on_the_clock_of_its_node() -> None:
    newest = {"slow": 1000.0, "fast": 5000.0}  # their nodes' clocks differ by more than an hour
    cameras = [camera(name, at) for name, at in newest.items()]

    told = metric_samples(
        Status(cameras=cameras, files=[], processes=[], streams={}, model=None), newest, lambda name: newest[name] + 0.5
    )

    assert dict(told[metrics.camera_age_s]) == {("slow",): 0.5, ("fast",): 0.5}


def test_with_too_many_cameras_the_newest_are_exported() -> None:
    cameras = [camera(f"c{number}", float(number)) for number in range(MAX_CAMERAS + 10)]

    seen = {camera.name: float(camera.newest_at or 0) for camera in cameras}
    told = metric_samples(
        Status(cameras=cameras, files=[], processes=[], streams={}, model=None), seen, lambda _: 1000.0
    )

    names = {labels[0] for labels, _ in told[metrics.camera_up]}
    assert (len(names), "c9" in names, "c10" in names) == (MAX_CAMERAS, False, True)


@contextlib.contextmanager
def reading(redis_url: str, token: str | None = None) -> Iterator[FlaskClient]:
    """Yield a client for the metrics of a viewer."""
    app = Flask("viewer")
    metrics.register_metrics("viewer")
    context = WorkerContext("viewer", redis_url)
    add_metrics(app, context, token)
    yield app.test_client()
    context.client.close()


def told(text: str) -> dict[tuple[str, ...], float]:
    """Return the values of a text of metrics, by name and the values of the labels in the order of their names."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_viewer_exports_the_metrics_of_redis(server: Server) -> None:
    feed = Feed(server, "door")
    feed.show(face())
    feed.publish()
    feed.drop("stale")
    feed.publish()

    latency = ("maskwatch_camera_latency_seconds", "door")
    with reading(server.url) as reader:
        up = told(reader.get("/metrics").text)["maskwatch_camera_up", "door", "live"]
        found = wait_until(
            lambda: values if latency in (values := told(reader.get("/metrics").text)) else None,
            5,
            "the second in which a frame was labelled is over",
        )

    assert found["maskwatch_frames_produced_total", "door"] == 3
    assert found["maskwatch_frames_labelled_total", "door"] == 1
    assert found["maskwatch_frames_dropped_total", "door", "stale"] == 1
    assert found["maskwatch_frames_dropped_total", "door", "memory"] == 0
    assert found["maskwatch_frames_in_flight", "door"] == 1
    assert found["maskwatch_stream_length", "frames"] == found["maskwatch_stream_lag", "frames"] == 1
    assert found["maskwatch_stream_pending", "frames"] == 0
    assert {("maskwatch_stream_lag", name) for name in WORK_STREAMS} <= found.keys()
    assert up == 1
    assert found[latency] >= 0
    assert found["maskwatch_camera_age_seconds", "door"] >= 0
    assert found["maskwatch_redis_memory_bytes",] > 0


def test_a_camera_that_has_never_delivered_a_frame_is_exported_as_offline(server: Server) -> None:
    with worker_context("camera", Settings(redis_url=server.url)) as context:
        lease = Lease(context.bus.shard_of("ghost"), "ghost", context.wait)
        lease.acquire()
        lease.release()

    with reading(server.url) as reader:
        found = told(reader.get("/metrics").text)

    assert [camera.name for camera in read_status(server.bus).cameras] == ["ghost"]
    assert found["maskwatch_camera_up", "ghost", "offline"] == 0
    assert found["maskwatch_frames_produced_total", "ghost"] == 0


def test_the_viewer_counts_processes_by_role_and_model(server: Server) -> None:
    now = server.clock.now()
    for number, (role, model) in enumerate(
        [("classifier", "a"), ("classifier", "a"), ("classifier", "b"), ("viewer", None)]
    ):
        beat = messages.Heartbeat(role=role, id=f"p{number}", host="h", pid=1, started_at=now, beat_at=now, model=model)
        server.client.set(f"{{all}}:heartbeat:p{number}", messages.encode(beat))
        server.client.zadd(keys.PROCESSES, {f"p{number}": now})

    with reading(server.url) as reader:
        found = told(reader.get("/metrics").text)

    assert found["maskwatch_processes", "a", "classifier"] == 2
    assert found["maskwatch_processes", "b", "classifier"] == 1
    assert found["maskwatch_processes", "", "viewer"] == 1


def test_the_viewer_exports_its_own_metrics_while_redis_is_away() -> None:
    with reading("redis://127.0.0.1:1") as reader:
        answer = reader.get("/metrics")

    found = told(answer.text)
    assert (answer.status_code, found["maskwatch_redis_up",]) == (200, 0)
    assert not any(name.startswith("maskwatch_frames") for name, *_ in found)


def test_the_viewers_metrics_require_the_token_if_one_is_set(server: Server) -> None:
    with reading(server.url, TOKEN) as reader:
        without, wrong = reader.get("/metrics"), reader.get("/metrics", headers={"Authorization": "Bearer no"})
        right = reader.get("/metrics", headers=SHOWN, environ_base={"REMOTE_ADDR": "203.0.113.7"})

    assert (without.status_code, wrong.status_code, right.status_code) == (401, 401, 200)
    assert (without.headers["WWW-Authenticate"], without.text) == ("Bearer", "metrics need the token\n")


@pytest.mark.parametrize(
    ("address", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("203.0.113.7", {}, 403),
        ("", {}, 403),
        ("127.0.0.1", {"X-Forwarded-For": "203.0.113.7"}, 403),
        ("127.0.0.1", {"Forwarded": "for=203.0.113.7"}, 403),
    ],
)
def test_the_viewers_metrics_are_for_this_machine_only_without_a_token(
    server: Server, address: str, headers: dict[str, str], status: int
) -> None:
    with reading(server.url) as reader:
        answer = reader.get("/metrics", headers=headers, environ_base={"REMOTE_ADDR": address})

    assert answer.status_code == status
    assert ("maskwatch_redis_up" in answer.text) == (status == 200)
