"""For operators: metrics of real processes, alerts and a dashboard that a real Prometheus understands, JSON logs."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import Server, missing, wait_until
from feeding import REPOSITORY, serving
from processes import Process, Processes
from prometheus_client.parser import text_string_to_metric_families

from trainer.jobs.job_spec import training_queue

MONITORING = REPOSITORY / "deploy" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana" / "dashboards" / "maskwatch.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
CELLS = 'namespace=~"$cell"'  # in each selector of the dashboard: the cells that its reader has chosen
GROUPED = r"\b(sum|max|min|avg|count) by \(namespace\b"  # an aggregation that tells cells apart
UNITS = {"short", "s", "hertz", "percentunit", "bytes"}
TOKEN = "only-prometheus-knows-this"  # noqa: S105 -- it opens nothing but these tests
ROLES = ("camera", "detector", "classifier", "recorder", "trainer")
RULES = """
[[rules]]
kind = "no_mask"
name = "bare"
seconds = 0

[[webhooks]]
name = "nobody"
url = "http://127.0.0.1:1/"
secret = "at least sixteen letters"
allow_private_address = true
"""
QUIET_WHEN_HEALTHY = "> 0"  # ends an expression that shows a limit only where there is one


@dataclass(frozen=True)
class Pipeline:
    """Real processes of all roles that label the demo's frames, and where each serves its metrics."""

    server: Server
    processes: Processes
    running: list[Process]
    places: dict[str, str]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with pytest.MonkeyPatch.context() as environment, serving() as server:
        environment.setenv("MASKWATCH_METRICS_TOKEN", TOKEN)
        environment.setenv("MASKWATCH_LOG_JSON", "1")
        folder = tmp_path_factory.mktemp("pipeline")
        rules = folder / "rules.toml"
        rules.write_text(RULES)
        processes = Processes(folder)
        commands = [
            ("view", "--port", 0),
            ("camera", "demo", "--name", "demo", "--fps", 5, "--metrics-port", 0),
            ("detect", "--metrics-port", 0),
            ("classify", "--metrics-port", 0),
            ("record", "--database", f"sqlite:///{folder}/events.db", "--rules", rules, "--metrics-port", 0),
            ("trainer", "--metrics-port", 0),
            ("camera", "http://127.0.0.1:1/none", "--name", "broken"),
        ]
        training_queue(server.client).enqueue_call("os.getcwd", job_id="foreign")
        running = [processes.start(*command, redis=server) for command in commands]
        try:
            viewer = wait_until(lambda: lines_saying(processes, "viewer", r"http://([^/ ]+)/"), 60, "the viewer serves")
            places = {"viewer": viewer[0]}
            for role in ROLES:
                found = wait_until(lambda role=role: lines_saying(processes, role, r"metrics on port (\d+)"), 60, role)
                places[role] = f"127.0.0.1:{found[0]}"
            pipeline = Pipeline(server, processes, running, places)
            wait_until(lambda: labels_faces(pipeline), 60, "faces are labelled")
            yield pipeline
        finally:
            processes.end()


@pytest.fixture(scope="module")
def prometheus(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prometheus that asks the real processes each second, by the real configuration; its URL."""
    folder = tmp_path_factory.mktemp("prometheus")
    configuration = configured(folder)
    configuration = configuration.replace("viewer:8000", pipeline.places["viewer"]).replace(
        "interval: 5s", "interval: 1s"
    )
    for role in ROLES:
        found_by_name = rf"dns_sd_configs:\n      - names: \[{role}\]\n(        .*\n)*"
        here = f'static_configs:\n      - targets: ["{pipeline.places[role]}"]\n'
        configuration = re.sub(found_by_name, here, configuration).replace("timeout: 5s", "timeout: 1s")
    (folder / "here.yml").write_text(configuration)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with running(program("prometheus"), f"--config.file={folder}/here.yml", f"--storage.tsdb.path={folder}/data",
                 f"--web.listen-address=127.0.0.1:{port}", folder=folder):  # fmt: skip
        wait_until(lambda: len(healthy_targets(url)) == len(pipeline.places), 60, "Prometheus reaches all processes")
        wait_until(lambda: value(url, "sum(rate(maskwatch_frames_labelled_total[1m]))"), 60, "Prometheus knows rates")
        yield url


def test_prometheus_accepts_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "prometheus.yml").write_text(configured(tmp_path))

    checked = run(program("promtool"), "check", "config", tmp_path / "prometheus.yml")

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "19 rules found" in checked.stdout


def test_each_alert_fires_when_it_should_and_none_when_all_is_well() -> None:
    tested = run(program("promtool"), "test", "rules", REPOSITORY / "tests" / "alert_rules.yml")

    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_is_tested() -> None:
    alerts = re.findall(r"alert: (\w+)", (MONITORING / "alerts.yml").read_text())

    tested = set(re.findall(r'alertname="(\w+)"', (REPOSITORY / "tests" / "alert_rules.yml").read_text()))

    assert sorted(alerts) == sorted(tested)


def test_every_metric_of_alerts_and_dashboard_is_exported_by_a_real_process(pipeline: Pipeline) -> None:
    texts = [(MONITORING / "alerts.yml").read_text(), *(expression for _, expression in EXPRESSIONS)]
    named = set(re.findall(r"\b(?:maskwatch|process)_\w+", "\n".join(texts)))

    told = set().union(*(names(metrics_of(pipeline, role)) for role in pipeline.places))

    assert named - told == set()


@pytest.mark.parametrize("role", ["viewer", *ROLES])
def test_each_process_serves_its_metrics_to_requests_with_the_token(pipeline: Pipeline, role: str) -> None:
    refused = requests.get(f"http://{pipeline.places[role]}/metrics", timeout=5)

    assert refused.status_code == 401
    text = metrics_of(pipeline, role)
    assert "maskwatch_loop_age_seconds" in text
    assert ("maskwatch_detect_seconds_count" in text) == (role == "detector")
    assert ("maskwatch_frames_produced_total" in text) == (role == "viewer")


def test_what_the_processes_counted_adds_up(pipeline: Pipeline) -> None:
    detector, classifier = metrics_of(pipeline, "detector"), metrics_of(pipeline, "classifier")

    forwarded = sample(detector, "maskwatch_settled_total", stream="frames", outcome="forwarded")
    labelled = sample(classifier, "maskwatch_settled_total", stream="faces", outcome="labelled")
    published = sample(metrics_of(pipeline, "camera"), "maskwatch_published_total", camera="demo", outcome="published")

    assert 0 < labelled <= forwarded + 20
    assert published >= labelled
    assert sample(detector, "maskwatch_busy_seconds_total", role="detector") > 0
    assert sample(classifier, "maskwatch_classify_seconds_count") >= labelled
    assert sample(classifier, "maskwatch_model_refused") == sample(detector, "maskwatch_model_refused") == 0
    assert 'maskwatch_model_info{version="yunet-' in detector


def test_every_panel_shows_something_on_a_running_pipeline(prometheus: str) -> None:
    expected = [one for one in EXPRESSIONS if not one[1].endswith(QUIET_WHEN_HEALTHY)]

    def empty() -> list[tuple[str, str]]:
        return [(title, expression) for title, expression in expected if value(prometheus, expression) is None]

    with contextlib.suppress(pytest.fail.Exception):
        wait_until(lambda: not empty(), 60, "no panel is empty")
    assert empty() == []


def test_every_alert_is_valid_and_has_its_meaning_and_what_to_do(prometheus: str) -> None:
    def evaluated() -> list[dict[str, Any]]:
        groups = requests.get(f"{prometheus}/api/v1/rules", timeout=5).json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return rules if all(rule["health"] != "unknown" for rule in rules) else []

    rules = wait_until(evaluated, 60, "all alerts were evaluated")

    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
    assert all({"summary", "meaning", "todo"} == set(rule["annotations"]) for rule in rules)
    assert all(rule["labels"]["severity"] in ("critical", "warning", "info") for rule in rules)
    wrong = {"ProcessUnreachable", "NoDetector", "NoClassifier", "ProcessStuck", "RedisAway", "LedgerOutOfBalance"}
    wrong |= {"NoRecorder", "EventsNotRecorded"}
    assert [rule["name"] for rule in rules if rule["state"] == "firing" and rule["name"] in wrong] == []


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_has_a_description(panel: dict[str, Any]) -> None:
    sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]

    assert all(panel[name] for name in ("title", "description", "targets"))
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert {(source["type"], source["uid"]) for source in sources} == {("prometheus", "${datasource}")}


def test_the_dashboard_asks_the_prometheus_and_for_the_cells_that_its_reader_chooses() -> None:
    source, cell = DASHBOARD["templating"]["list"]

    assert (source["name"], source["type"], source["query"], source["current"]) == (
        "datasource",
        "datasource",
        "prometheus",
        {},
    )
    assert (cell["name"], cell["datasource"]["uid"], cell["query"]["query"]) == (
        "cell",
        "${datasource}",
        "label_values(maskwatch_redis_up, namespace)",
    )
    assert (cell["includeAll"], cell["allValue"], cell["current"]["value"]) == (True, ".*", ["$__all"])
    assert "maskwatch-prometheus" not in json.dumps(DASHBOARD), "another Grafana has no source of that name"


def test_cells_are_never_mixed() -> None:
    alerts = loaded("alerts.yml")["groups"]
    rules = [(rule["alert"], rule["expr"]) for group in alerts for rule in group["rules"]]

    for title, expression in rules + EXPRESSIONS:
        assert len(re.findall(r"\b(?:sum|max|min|avg|count)\b", expression)) == len(re.findall(GROUPED, expression)), (
            title
        )
        assert re.findall(r"\bon \((?!namespace\b)|\bignoring\b|\bvector\b|\babsent", expression) == [], title
    for title, expression in EXPRESSIONS:
        assert len(re.findall(r"\b(?:maskwatch|process)_", expression)) == expression.count("{" + CELLS), title
    for panel in PANELS:
        for target in panel["targets"]:
            assert "{{namespace}}" in target["legendFormat"], panel["title"]


def test_each_cell_has_its_own_count_of_cameras_that_are_not_live(tmp_path: Path) -> None:
    (expression,) = [expression for title, expression in EXPRESSIONS if title == "Cameras that are not live"]
    cameras = {"a": ("live", 1), "b": ("offline", 0)}
    given = [
        {"series": f'maskwatch_camera_up{{namespace="{cell}", camera="demo", state="{state}"}}', "values": f"{up}x9"}
        for cell, (state, up) in cameras.items()
    ]
    given += [
        {"series": f'maskwatch_redis_up{{namespace="{cell}", job="viewer"}}', "values": "1x9"} for cell in cameras
    ]
    expected = [{"labels": f'{{namespace="{cell}"}}', "value": 1 - up} for cell, (_, up) in cameras.items()]
    asked = {"expr": expression.replace("$cell", ".*"), "eval_time": "1m", "exp_samples": expected}
    world = {"interval": "10s", "input_series": given, "promql_expr_test": [asked]}
    (tmp_path / "world.json").write_text(json.dumps({"tests": [world]}))  # JSON is YAML too

    tested = run(program("promtool"), "test", "rules", tmp_path / "world.json")

    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_panels_have_their_own_numbers_and_places() -> None:
    everything = DASHBOARD["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in everything)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len({panel["id"] for panel in everything}) == len(everything)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_the_dashboard_answers_what_an_operator_asks() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]

    assert rows[:4] == [
        "Is every camera live?",
        "How old is what I see?",
        "Where are frames dropped, and why?",
        "Do I need another classifier?",
    ]


def test_grafana_is_given_the_data_source_and_the_dashboard() -> None:
    (source,) = loaded("grafana/provisioning/datasources/maskwatch.yml")["datasources"]
    (provider,) = loaded("grafana/provisioning/dashboards/maskwatch.yml")["providers"]

    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)
    assert (provider["type"], provider["options"]) == ("file", {"path": "/etc/grafana/dashboards"})


def test_all_processes_log_json_lines_and_nothing_else_to_their_end(pipeline: Pipeline) -> None:
    """The last test of this file: it ends the processes that the others look at."""
    processes = pipeline.processes
    taken = pipeline.places["detector"].rpartition(":")[2]
    refused = processes.start("view", "--port", 0, "--metrics-port", taken, redis=pipeline.server)
    with socket.create_connection(pipeline.places["viewer"].split(":"), 5) as nonsense:
        nonsense.sendall(b"NONSENSE\r\n\r\n")
    wait_until(lambda: lines_saying(processes, "trainer", "(rejected: a job may name)"), 60, "the job is refused")
    wait_until(lambda: lines_saying(processes, "camera", "(camera broken: retrying)"), 60, "the camera is retried")

    assert refused.wait(60) == 1
    for process in pipeline.running:
        process.send_signal(signal.SIGTERM)
    for process in pipeline.running:
        process.wait(60)

    lines = [json.loads(line) for line in processes.log().splitlines()]
    assert all({"time", "level", "logger", "message", "pid"} <= set(line) for line in lines)
    assert {line["role"] for line in lines if "role" in line} == {"viewer", *ROLES}
    assert sum(line["message"].startswith("cannot serve metrics on port") for line in lines) == 1
    assert sum(line["message"].endswith(" ended") for line in lines) >= len(pipeline.running)


def configured(folder: Path) -> str:
    """Return Prometheus' configuration with its files in a folder, the token among them."""
    shutil.copy(MONITORING / "alerts.yml", folder)
    (folder / "token").write_text(TOKEN)
    return (MONITORING / "prometheus.yml").read_text().replace("/etc/prometheus/token", str(folder / "token"))


def lines_saying(processes: Processes, role: str, pattern: str) -> list[str]:
    """Return what a pattern's group matches in what processes of a role have logged."""
    lines = [json.loads(line) for line in processes.log().splitlines() if line.endswith("}")]
    told = [line["message"] for line in lines if line.get("role", line["logger"].partition(".")[0]) == role]
    return [match[1] for text in told if (match := re.search(pattern, text))]


def labels_faces(pipeline: Pipeline) -> bool:
    """Return whether batches are labelled, and the status counts the frames of a whole second."""
    batches = sample(metrics_of(pipeline, "classifier"), "maskwatch_batch_crops_count")
    return batches > 2 and "maskwatch_camera_latency_seconds" in names(metrics_of(pipeline, "viewer"))


def metrics_of(pipeline: Pipeline, role: str) -> str:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer = requests.get(f"http://{pipeline.places[role]}/metrics", headers=headers, timeout=10)
    answer.raise_for_status()
    return answer.text


def names(text: str) -> set[str]:
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


def sample(text: str, name: str, **labels: str) -> float:
    """Return the value of one sample."""
    samples = [found for family in text_string_to_metric_families(text) for found in family.samples]
    (found,) = [found.value for found in samples if found.name == name and found.labels == labels]
    return float(found)


def value(url: str, expression: str) -> float | None:
    """Return the first value of an expression; None where it has none, or not yet."""
    asked = expression.replace("$cell", ".*")  # as Grafana does while nobody has chosen
    answer = requests.get(f"{url}/api/v1/query", params={"query": asked}, timeout=5).json()
    assert answer["status"] == "success", f"{expression}: {answer}"
    found = answer["data"]["result"]
    return float(found[0]["value"][1]) if found and found[0]["value"][1] != "NaN" else None


def healthy_targets(url: str) -> list[Any]:
    with contextlib.suppress(requests.ConnectionError):
        answer = requests.get(f"{url}/api/v1/targets", timeout=5)
        found = answer.json()["data"]["activeTargets"] if answer.ok else []  # it says 503 while it starts
        return [target for target in found if target["health"] == "up"]
    return []


def loaded(name: str) -> Any:
    try:
        yaml = importlib.import_module("yaml")
    except ModuleNotFoundError:
        missing("pyyaml is not installed")
    return yaml.safe_load((MONITORING / name).read_text())


def program(name: str) -> str:
    """Return one of Prometheus' programs."""
    return (
        shutil.which(name) or missing(f"there is no {name} on this machine: Debian's package prometheus has it") or ""
    )


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


@contextlib.contextmanager
def running(*command: str, folder: Path) -> Iterator[None]:
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=os.environ) as process,
    ):
        try:
            yield
        finally:
            process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
