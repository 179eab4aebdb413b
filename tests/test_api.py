"""The REST API of a viewer that runs as a process: what it answers, and pictures that real workers label."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
import requests
from conftest import Server, missing, wait_until
from documented import block_commands
from feeding import Feed, Viewer, alive, face, feeding, numbered_picture, serving, viewing
from processes import Processes, processes, wait_for_workers
from werkzeug.test import create_environ

from pipeline.bus.dead_letters import list_dead_letters
from pipeline.bus.status import read_status
from pipeline.vision.jpeg import decode_jpeg, encode_jpeg
from producer.sources.demo.people import load_photograph
from viewer.api.admission import MAX_RETRY_AFTER_S
from viewer.api.label import InMemoryRequest
from viewer.api.labeller import MAX_AT_ONCE
from viewer.security.middleware import MAX_PICTURE

__all__ = ["processes"]

PICTURE = encode_jpeg(numbered_picture(7), 90)
ERRORS = [
    ("GET", "", 404),
    ("GET", "/", 404),
    ("GET", "/nothing", 404),
    ("GET", "/cameras/", 404),
    ("GET", "/cameras/door", 404),
    ("GET", "/cameras/DOOR", 404),
    ("GET", "/cameras/door/snapshot.jpg", 404),
    ("GET", "/cameras/..%2f..%2fetc/snapshot.jpg", 404),
    ("GET", "/status?all=1", 422),
    ("GET", "/cameras?name=a&name=b", 422),
    ("POST", "/status", 405),
    ("DELETE", "/cameras/door", 405),
    ("OPTIONS", "/label", 405),
    ("GET", "/label", 405),
    ("POST", "/label", 415),
    ("POST", "/label?timeout_s=0", 422),
    ("POST", "/label?timeout_s=nan", 422),
    ("POST", "/label?timeout_s=soon", 422),
]


@pytest.fixture(scope="module")
def standing() -> Iterator[tuple[Server, Viewer]]:
    with serving() as server, viewing(server.url) as viewer:
        yield server, viewer


@pytest.fixture
def server(standing: tuple[Server, Viewer]) -> Server:
    standing[0].client.flushall()
    return standing[0]


@pytest.fixture
def api(server: Server, standing: tuple[Server, Viewer]) -> str:
    """The address of the API, on a Redis that holds nothing yet."""
    return standing[1].url + "api/v1"


@pytest.fixture(scope="module")
def labelling() -> Iterator[tuple[Server, str]]:
    """A Redis with real workers, and the address of the API."""
    folder = Path(tempfile.mkdtemp(prefix="mw-"))  # pytest's own folders are too long for a socket's name
    started = Processes(folder)
    with serving() as server:
        started.start("detect", redis=server)
        started.start("classify", redis=server)
        viewer = started.start("view", "--port", 0, redis=server)
        assert viewer.stdout
        line = viewer.stdout.readline()
        wait_for_workers(server)
        yield server, line.removeprefix("Viewer: ").strip() + "api/v1"
        started.end()
    shutil.rmtree(folder)


def photograph(suffix: str = ".jpg", *, turned: bool = False) -> bytes:
    """Return a picture with one face as a file of some kind."""
    image = load_photograph()
    _, encoded = cv2.imencode(suffix, np.rot90(image).copy() if turned else image)
    return bytes(encoded)


def label(api: str, content: bytes, media_type: str = "image/jpeg", query: str = "") -> requests.Response:
    return requests.post(f"{api}/label{query}", data=content, headers={"Content-Type": media_type}, timeout=90)


def described(api: str, path: str, answer: requests.Response, headers: dict[str, str] | None = None) -> Any:
    """Return the JSON of an answer after a check that the document describes it. headers: to read the document."""
    document = requests.get(f"{api}/openapi.json", headers=headers, timeout=10).json()
    operation = document["paths"][path][str(answer.request.method).lower()]
    content = operation["responses"][str(answer.status_code)]["content"]
    schema = content[answer.headers["Content-Type"]]["schema"]
    jsonschema.validate(answer.json(), schema | {"components": document["components"]})
    return answer.json()


def test_cameras_and_status_are_answered_as_the_document_describes_them(server: Server, api: str) -> None:
    Feed(server, "door").show(face())

    listed = described(api, "/cameras", requests.get(f"{api}/cameras", timeout=5))
    one = described(api, "/cameras/{name}", requests.get(f"{api}/cameras/door", timeout=5))
    status = described(api, "/status", requests.get(f"{api}/status", timeout=5))
    described(api, "/models", requests.get(f"{api}/models", timeout=5))
    old_status = requests.get(api.removesuffix("/v1") + "/status", timeout=5).json()

    assert [camera["name"] for camera in listed["cameras"]] == ["door"]
    assert one["ledger"] == {"produced": 1, "labelled": 1, "dropped": {}, "in_flight": 0}
    assert [camera["name"] for camera in status["cameras"]] == ["door"]
    assert old_status.keys() == status.keys()


def test_a_snapshot_is_the_newest_labelled_frame_of_a_camera(server: Server, api: str) -> None:
    feed = Feed(server, "door")
    snapshot = f"{api}/cameras/door/snapshot.jpg"
    feed.publish()
    before = requests.get(snapshot, timeout=5)

    with feeding([feed], [face()]):
        answer = wait_until(lambda: found if (found := requests.get(snapshot, timeout=5)).ok else None, 5, "a snapshot")

    assert (before.status_code, described(api, "/cameras/{name}/snapshot.jpg", before)["status"]) == (503, 503)
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert decode_jpeg(answer.content).shape == (360, 640, 3)


@pytest.mark.parametrize(("method", "path", "status"), ERRORS)
def test_each_error_is_a_problem_object(api: str, method: str, path: str, status: int) -> None:
    answer = requests.request(method, api + path, timeout=5)

    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert len(problem["detail"].splitlines()) == 1
    assert (status == 405) == ("Allow" in answer.headers)


def test_what_is_below_no_version_of_the_api_is_answered_as_before(api: str) -> None:
    page = api.removesuffix("/api/v1")

    answer = requests.get(f"{page}/api/v2", timeout=5)

    assert (answer.status_code, answer.text) == (404, "not found\n")


def test_the_document_describes_each_route_and_its_errors(api: str) -> None:
    document = requests.get(f"{api}/openapi.json", timeout=5).json()

    reads = ("/cameras", "/cameras/{name}", "/cameras/{name}/snapshot.jpg", "/status", "/models", "/openapi.json")
    reads = (*reads, "/events", "/events/{id}", "/counts", "/deliveries")
    assert document["openapi"] == "3.1.0"
    assert document["servers"] == [{"url": "/api/v1"}]
    assert {path: list(methods) for path, methods in document["paths"].items()} == {
        **{path: ["get"] for path in reads},
        "/label": ["post"],
        "/deliveries/{id}/replay": ["post"],
        "/rules": ["get", "put"],
    }
    described_errors = document["paths"]["/label"]["post"]["responses"].keys()
    assert described_errors >= {"200", "401", "403", "413", "415", "422", "429", "503", "504"}
    assert r"\A" not in str(document)
    (name,) = document["paths"]["/cameras/{name}"]["get"]["parameters"]
    assert name["schema"]["pattern"] == "^[a-z0-9-]{1,32}$"


def test_a_picture_without_workers_is_refused_and_says_what_to_start(api: str) -> None:
    answer = label(api, PICTURE)

    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert "start `maskwatch detect` and `maskwatch classify`" in described(api, "/label", answer)["detail"]


def test_a_picture_without_a_result_in_time_leaves_no_pixels(server: Server, api: str) -> None:
    with alive(server, "detector", "classifier"):
        wait_until(lambda: len(read_status(server.bus).processes) >= 2, 5, "the workers are alive")
        answer = label(api, PICTURE, query="?timeout_s=1")

    assert answer.status_code == 504
    assert " 1 s" in described(api, "/label", answer)["detail"]
    assert list(server.client.scan_iter("*pixels:file-*")) == []
    (run,) = read_status(server.bus).files
    assert re.fullmatch("file-api-[0-9a-f]{8}", run.name)
    assert run.ledger.in_flight == 1


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b"", "image/png", 422),
        (b"not a picture", "image/png", 422),
        (PICTURE[:200], "image/jpeg", 422),
        (PICTURE[: len(PICTURE) // 2], "application/octet-stream", 422),
        (PICTURE, "text/plain", 415),
        (PICTURE, "application/x-www-form-urlencoded", 415),
        (PICTURE, "multipart/form-data", 422),
    ],
)
def test_what_is_no_picture_is_refused_and_reaches_no_worker(
    server: Server, api: str, content: bytes, media_type: str, status: int
) -> None:
    answer = label(api, content, media_type)

    assert answer.status_code == status
    described(api, "/label", answer)
    assert read_status(server.bus).files == []


def test_a_picture_that_is_too_large_is_refused(api: str) -> None:
    answer = label(api, bytes(MAX_PICTURE + 1))

    assert answer.status_code == 413
    assert str(MAX_PICTURE) in described(api, "/label", answer)["detail"]


def test_a_body_without_a_length_is_refused(api: str) -> None:
    answer = requests.post(f"{api}/label", data=iter([PICTURE]), headers={"Content-Type": "image/jpeg"}, timeout=5)

    assert answer.status_code == 411
    described(api, "/label", answer)


def test_without_redis_each_operation_answers_503() -> None:
    with viewing("redis://127.0.0.1:1") as viewer:
        api = viewer.url + "api/v1"
        answers = [requests.get(f"{api}{path}", timeout=10) for path in ("/cameras", "/status", "/models")]
        answers.append(label(api, PICTURE))

        document = requests.get(f"{api}/openapi.json", timeout=5)

    assert [answer.status_code for answer in answers] == [503] * 4
    assert all("Redis" in answer.json()["detail"] for answer in answers)
    assert document.ok


def test_a_file_in_a_form_stays_in_memory() -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a.jpg"\r\n\r\n'
    content = head + bytes(1_000_000) + b"\r\n--x--\r\n"
    environ = create_environ(
        method="POST",
        input_stream=io.BytesIO(content),
        content_type="multipart/form-data; boundary=x",
        headers={"Content-Length": str(len(content))},
    )

    file = InMemoryRequest(environ).files["picture"]

    assert isinstance(file.stream, io.BytesIO)
    assert len(file.read()) == 1_000_000


@pytest.mark.parametrize(
    ("suffix", "media_type"), [(".jpg", "image/jpeg"), (".png", "image/png"), (".webp", "application/octet-stream")]
)
def test_a_picture_is_labelled_by_the_workers(labelling: tuple[Server, str], suffix: str, media_type: str) -> None:
    server, api = labelling

    answer = label(api, photograph(suffix), media_type)

    found = described(api, "/label", answer)
    height, width = load_photograph().shape[:2]
    assert (found["width"], found["height"]) == (width, height)
    (labelled,) = found["faces"]
    assert labelled["label"] in ("mask", "no_mask")
    assert 0.5 <= labelled["confidence"] <= 1
    assert found["model"]
    assert list(server.client.scan_iter("*pixels:file-*")) == []


def test_a_picture_in_a_form_is_labelled(labelling: tuple[Server, str]) -> None:
    _, api = labelling

    answer = requests.post(f"{api}/label", files={"picture": ("a.jpg", photograph())}, timeout=60)

    assert len(described(api, "/label", answer)["faces"]) == 1


def test_a_picture_without_faces_has_none_and_no_model(labelling: tuple[Server, str]) -> None:
    _, api = labelling

    answer = label(api, PICTURE)

    found = described(api, "/label", answer)
    assert (found["faces"], found["left_out"], found["model"]) == ([], 0, None)


@pytest.mark.parametrize("count", [1, 20, 200])
def test_of_many_pictures_at_once_each_is_labelled_or_is_told_to_come_again(
    labelling: tuple[Server, str], count: int
) -> None:
    server, api = labelling
    content = photograph()

    with ThreadPoolExecutor(count) as threads:
        answers = list(threads.map(lambda _: label(api, content), range(count)))

    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() <= {200, 429}, statuses
    assert statuses[200] >= min(count, MAX_AT_ONCE)
    assert {len(answer.json()["faces"]) for answer in answers if answer.ok} == {1}
    assert all(1 <= int(answer.headers["Retry-After"]) <= MAX_RETRY_AFTER_S for answer in answers if not answer.ok)
    assert list_dead_letters(server.bus) == []
    assert all(run.ledger.balances and run.ledger.in_flight == 0 for run in read_status(server.bus).files)


def test_jobs_and_models_are_listed_by_a_viewer_that_the_command_starts(labelling: tuple[Server, str]) -> None:
    _, api = labelling

    jobs = described(api, "/jobs", requests.get(f"{api}/jobs", timeout=5))
    models = described(api, "/models", requests.get(f"{api}/models", timeout=5))

    assert jobs == {"jobs": []}
    assert [(model["role"], model["processes"]) for model in models["models"]] == [("classifier", 1), ("detector", 1)]
    assert all(model["version"] for model in models["models"])


def test_the_examples_of_the_page_are_answered(
    labelling: tuple[Server, str], processes: Processes, tmp_path: Path
) -> None:
    server, api = labelling
    if (curl := shutil.which("curl")) is None:
        missing("there is no curl on this machine")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(photograph())
    commands = [one.words for one in block_commands("docs/api.md") if one.words[0] == "curl"]
    examples = [words[1:] for words in commands if not any("$TOKEN" in word for word in words)]
    processes.start("camera", "demo", "--name", "demo", "--fps", 5, redis=server)
    processes.start("record", redis=server)
    wait_until(lambda: requests.get(f"{api}/cameras/demo/snapshot.jpg", timeout=5).ok, 30, "demo is labelled")
    wait_until(lambda: requests.get(f"{api}/events", timeout=5).ok, 30, "events are recorded")

    done = [
        subprocess.run(
            [curl, *(word.replace("http://127.0.0.1:8000/api/v1", api) for word in words)],
            cwd=tmp_path,
            capture_output=True,
            check=False,
            timeout=60,
        )
        for words in examples
    ]

    assert [(one.returncode, one.stderr) for one in done] == [(0, b"")] * len(examples)
    assert len(examples) == 8
    assert decode_jpeg((tmp_path / "demo.jpg").read_bytes()).size


def test_the_document_names_the_base_path(server: Server, tmp_path: Path) -> None:
    with viewing(server.url, base_path="/watch") as viewer:
        document = requests.get(viewer.url + "api/v1/openapi.json", timeout=5).json()

    assert document["servers"] == [{"url": "/watch/api/v1"}]
