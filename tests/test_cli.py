"""The command line, started for real: what users and programs get, and what they get told."""

from __future__ import annotations

import itertools
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import click
import cv2
import numpy as np
import pytest
from conftest import Server, wait_until
from processes import Processes, descendants, processes, wait_for_workers

from commands.check import environment_checks
from commands.training import train
from models.classifier import mask_classifier
from models.detector.card import DEFAULT_FOLDER as DETECTOR_FOLDER
from models.detector.card import read_detector_card
from models.files import ModelUnusable
from pipeline.bus import keys, messages
from pipeline.bus.clock import Clock
from pipeline.bus.connection import connect
from pipeline.bus.messages import decode
from pipeline.bus.status import read_heartbeats, read_ledgers
from pipeline.runtime.settings import Settings
from producer.sources.demo.people import load_photograph
from trainer.data import published_detector
from trainer.settings import DETECTOR_RECIPES, RECIPES

__all__ = ["processes"]


def maskwatch(*arguments: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "maskwatch", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == expect, done.stderr
    return done


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("maskwatch: ")
    return line


@pytest.fixture
def damaged_model(tmp_path: Path) -> Path:
    """The built-in model with one byte of its network changed."""
    folder = tmp_path / "damaged"
    shutil.copytree(mask_classifier.DEFAULT_FOLDER, folder)
    network = folder / "classifier.int8.onnx"
    content = bytearray(network.read_bytes())
    content[len(content) // 2] ^= 1
    network.write_bytes(content)
    return folder


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_status_as_json_has_what_programs_depend_on(server: Server, processes: Processes) -> None:
    processes.start("camera", "demo", "--name", "door", redis=server)
    processes.start("detect", redis=server)
    processes.start("classify", redis=server)
    wait_for_workers(server)

    def status() -> dict[str, Any] | None:
        found: dict[str, Any] = json.loads(maskwatch("status", "--json", "--redis", server.url).stdout)
        return found if found["cameras"] and found["cameras"][0]["state"] == "live" else None

    found = wait_until(status, 20, "the camera is live")
    table = maskwatch("status", "--redis", server.url).stdout

    camera = found["cameras"][0]
    assert {"name", "state", "fps", "labelled_fps", "latency_ms", "ledger"} <= set(camera)
    ledger = camera["ledger"]
    assert set(ledger) == {"produced", "labelled", "dropped", "in_flight"}
    assert ledger["produced"] == ledger["labelled"] + sum(ledger["dropped"].values()) + ledger["in_flight"]
    assert {process["role"] for process in found["processes"]} == {"camera", "detector", "classifier"}
    assert {"role", "id", "host", "pid", "uptime_s", "model"} <= set(found["processes"][0])
    assert set(found["streams"]["frames"]) == {"length", "lag", "pending"}
    assert found["model"] == mask_classifier.load_classifier().card.version
    assert "door" in table
    assert "DOES NOT BALANCE" not in table


def test_a_picture_of_a_hundred_faces_is_labelled_whole(tmp_path: Path) -> None:
    photograph = load_photograph()
    face = cv2.resize(photograph[40:240, 130:310], (108, 120), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(tmp_path / "crowd.png"), np.tile(face, (10, 10, 1)))
    cv2.imwrite(str(tmp_path / "nobody.png"), np.full((480, 640, 3), 90, np.uint8))

    maskwatch("label", tmp_path, "--json", tmp_path / "out.jsonl", "--detector-px", 1280)

    crowd, nobody = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines())
    assert len(crowd["faces"]) >= 95
    assert {found["label"] for found in crowd["faces"]} == {"no_mask"}
    assert nobody["faces"] == []


@pytest.mark.parametrize("detector", ["dnn", "haar"])
def test_other_detectors_find_faces_too(pictures: Path, tmp_path: Path, detector: str) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    with av.open(str(pictures / "hand-over-face" / "yes.mkv")) as file:
        for number, frame in enumerate(itertools.islice(file.decode(video=0), 12)):
            frame.to_image().save(frames / f"{number}.png")

    maskwatch("label", frames, "--json", tmp_path / "out.jsonl", "--detector", detector)

    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sum(bool(line["faces"]) for line in lines) > len(lines) / 2


@pytest.mark.parametrize("command", [["classify"], ["label", ".", "--json", "-"], ["up"], ["demo"]])
def test_a_damaged_model_is_one_line(damaged_model: Path, pictures: Path, command: list[str]) -> None:
    if command[0] == "label":
        command = ["label", str(pictures / "hand-over-face" / "yes.mkv"), "--json", "-"]

    line = one_line(maskwatch(*command, "--models", damaged_model, expect=1))

    assert "classifier.int8.onnx is damaged" in line


def test_the_command_line_starts_without_what_only_its_processes_need() -> None:
    heavy = {"av", "cv2", "flask", "fsspec", "keras", "numpy", "onnxruntime", "PIL", "rq", "simplejpeg", "tensorflow"}

    program = (
        "import sys, maskwatch; from commands.shared import parsed_source; "
        "parsed_source('demo'); parsed_source('rtsp://door/live'); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert "pipeline.runtime.settings" in done.stdout.split()
    assert heavy.isdisjoint(done.stdout.split())


@pytest.mark.parametrize("module", ["pathlib", "click", "commands.training", "trainer.settings"])
def test_ctrl_c_while_modules_load_is_one_line(module: str) -> None:
    program = (
        "import sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == '{module}': raise KeyboardInterrupt\n"
        f"sys.modules.pop('{module}', None)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "import maskwatch\n"
        "maskwatch.main()"
    )
    command = [sys.executable, "-c", program, "train", "toy", "--out", "run"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (130, "maskwatch: stopped\n")


def test_a_missing_model_is_one_line(tmp_path: Path) -> None:
    line = one_line(maskwatch("classify", "--models", tmp_path / "none", expect=1))

    assert "none is neither a model folder nor a registry" in line


def test_the_built_in_model_has_no_keras_file_and_says_so() -> None:
    line = one_line(maskwatch("classify", "--runtime", "keras", expect=1))

    assert "classifier.keras" in line


@pytest.mark.parametrize("command", ["view", "demo", "up"])
def test_a_port_in_use_is_one_line(server: Server, taken_port: int, command: str) -> None:
    line = one_line(maskwatch(command, "--port", taken_port, "--redis", server.url, "--log-level", "warning", expect=1))

    assert str(taken_port) in line


@pytest.mark.parametrize("command", [["status"], ["dead", "list"]])
def test_a_redis_that_is_not_there_is_one_line(command: list[str]) -> None:
    line = one_line(maskwatch(*command, "--redis", "redis://127.0.0.1:1", expect=1))

    assert "no Redis answers at redis://127.0.0.1:1" in line


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["camera", "demo"], "--name is missing"),
        (["camera", "demo", "--name", "Front Door"], "--name"),
        (["camera", "demo", "--name", "file-door"], "file-"),
        (["up", "--camera", "file-a=demo"], "file-"),
        (["up", "--camera", "a=no-such-film.mp4"], "no-such-film.mp4"),
        (["camera", "no-such-film.mp4", "--name", "a"], "no-such-film.mp4"),
        (["camera", "demo:colour", "--name", "a"], "'colour' is not a parameter"),
        (["status", "--redis", "redis://h:abc"], "port"),
        (["up", "--camera", "door"], "NAME=SOURCE"),
        (["up", "--camera", "a=demo", "--camera", "a=demo"], "given twice"),
        (["detect", "--threads", "0"], "--threads"),
        (["status", "--redis", "http://x"], "--redis"),
    ],
)
def test_wrong_usage_ends_with_status_2_and_says_what_is_wrong(command: list[str], says: str) -> None:
    line = one_line(maskwatch(*command, expect=2))

    assert says in line


def test_a_name_in_use_is_one_line_with_its_holder(server: Server, processes: Processes) -> None:
    first = processes.start("camera", "demo", "--name", "door", redis=server)
    wait_until(lambda: server.client.exists("{s0}:lease:door"), 20, "the name is taken")

    flags = ["--name", "door", "--log-level", "warning"]
    line = one_line(maskwatch("camera", "demo", *flags, "--redis", server.url, expect=1))

    assert f"process {first.pid} on " in line


def test_check_says_what_is_there_and_what_is_missing(tmp_path: Path) -> None:
    good = maskwatch("check", "--port", 0)
    bad = maskwatch("check", "--port", 0, "--models", tmp_path, "--redis", "redis://127.0.0.1:1", expect=1)

    assert "MISSING" not in good.stdout
    assert f"face detector: yunet, version {read_detector_card(DETECTOR_FOLDER).version}" in good.stdout
    assert bad.stdout.count("MISSING") == 3


def test_check_misses_the_face_detector_that_every_training_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = dict(environment_checks(Settings()))["training"]
    there = training()
    monkeypatch.setattr(published_detector, "YUNET_FILE", tmp_path / "face_detector.onnx")

    with pytest.raises(ModelUnusable, match=r"face_detector\.onnx is missing: run `make setup`"):
        training()

    assert there == "TensorFlow is installed, and the weights to start from are there"


def test_classifiers_announce_which_crops_they_want(server: Server, processes: Processes) -> None:
    processes.start("classify", redis=server)

    packed = wait_until(lambda: server.client.get(keys.MODEL), 20, "the model is announced")

    card = mask_classifier.load_classifier().card
    assert decode(messages.AnnouncedModel, packed) == messages.AnnouncedModel(
        version=card.version, crop_px=card.size_px, margin=card.margin
    )


def test_no_password_is_on_the_command_line_of_a_child(server: Server, processes: Processes) -> None:
    server.client.config_set("requirepass", "redis-secret")
    with_password = server.url.replace("unix://", "unix://:redis-secret@")
    client = connect(with_password)
    own = Server(with_password, client, Clock(client), server.process)
    cameras = ["--camera", "door=rtsp://user:camera-secret@127.0.0.1:1/x", "--camera", "demo=demo"]
    pipeline = processes.start("up", *cameras, "--port", 0, redis=own)

    roles = {"camera", "detector", "classifier", "viewer"}
    wait_until(lambda: roles <= {beat.role for beat in read_heartbeats(client)}, 60, "all children are live")
    wait_until(lambda: read_ledgers(own.bus, ["demo"])["demo"].labelled, 60, "frames are labelled")

    lines = [Path(f"/proc/{pid}/cmdline").read_text() for pid in descendants(pipeline.pid)]
    assert len(lines) >= 5
    assert [line for line in lines if "secret" in line] == []
    client.close()


def test_train_offers_the_architectures_that_have_a_recipe() -> None:
    arch = next(parameter for parameter in train.params if parameter.name == "arch")

    assert isinstance(arch.type, click.Choice)
    assert list(arch.type.choices) == [*RECIPES, *DETECTOR_RECIPES]
