"""Detectors use the registry's current version: swaps lose no frame, and a damaged version changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import pytest
from conftest import Server, wait_until
from processes import Processes, processes, wait_for_workers
from versions import flip_a_byte, write_detector

from models.detector.card import DEFAULT_FOLDER, DETECTOR_NAME, DetectorCard, read_detector_card
from models.detector.self_test import load_with_self_test
from models.registry.kinds import DETECTOR
from models.registry.promotion import promote, rollback
from models.registry.registry import BUILT_IN, Registry, register, registry_at
from pipeline.bus.messages import FrameResult, decode
from pipeline.bus.status import read_heartbeats, read_ledgers, read_status, status_table
from pipeline.runtime.settings import Settings
from workers.detect import reloader_for
from workers.model_reloader import RETRY_INTERVAL_S, RUNNING, ModelReloader

__all__ = ["processes"]

BY = "tester@here"
CAMERA = "door"
FRESH_ONLY = {"stale", "expired"}  # why a live frame may be dropped on a busy machine; anything else is a fault


@dataclass(frozen=True)
class Versions:
    """A registry with two versions of the detector that were measured alike; the first is current.

    The second finds no faces: its card asks for a score that none has.
    """

    registry: Registry[DetectorCard]
    first: str
    second: str


@pytest.fixture(params=["folder"])
def versions(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Versions:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = str(tmp_path / "registry") if request.param == "folder" else f"{request.param}:/{tmp_path}/registry"
    alike: dict[str, Any] = {"measured": {"street": {"ap": 0.9}}, "tests": {"street": "1"}}
    first = write_detector(tmp_path / "first", "first", **alike).version
    second = write_detector(tmp_path / "second", "second", score_threshold=0.999, **alike).version
    for name in ("first", "second"):
        register(place, tmp_path / name)
    registry = registry_at(place).of_kind(DETECTOR)
    promote(registry, first, by=BY, force=True)
    return Versions(registry, first, second)


@dataclass(frozen=True)
class Watched:
    """A live camera with 20 frames a second, two detectors that follow a registry, and a classifier."""

    server: Server
    versions: Versions

    def results(self) -> list[FrameResult]:
        """Return all results, oldest first; the ledger balances whenever it is asked."""
        assert read_ledgers(self.server.bus, [CAMERA])[CAMERA].balances
        rows = cast(list[Any], self.server.client.xrange("{s0}:results"))
        found = (decode(FrameResult, fields[b"record"]) for _, fields in rows)
        return [result for result in found if result.camera == CAMERA]

    def all_ended(self, newest: int) -> bool:
        """Return whether each frame up to one of them has come to its end, once."""
        seqs = sorted(result.seq for result in self.results() if result.seq <= newest)
        return seqs == list(range(newest + 1))

    def detectors(self) -> list[tuple[str | None, str]]:
        """Return what the detectors' heartbeats say: the version, and how it stands with it."""
        return [(beat.model, beat.state) for beat in read_heartbeats(self.server.client) if beat.role == "detector"]

    def wait_for(self, version: str) -> None:
        """Wait until both detectors report a version, and the newest results show it."""
        wait_until(lambda: self.detectors() == [(version, RUNNING)] * 2, 20, f"both detectors use {version}")
        newest = len(self.results())
        finds = version == self.versions.first

        def shows() -> bool:
            results = [one for one in self.results()[newest:] if one.outcome == "labelled"]
            return len(results) > 20 and all(bool(one.faces) == finds for one in results[-10:])

        wait_until(shows, 30, f"{version} finds {'faces' if finds else 'nothing'}")


@pytest.fixture
def watched(server: Server, processes: Processes, versions: Versions, kind: str) -> Watched:
    models = ("--models", versions.registry.location)
    for _ in range(2):
        processes.start("detect", *models, "--detector", kind, "--detector-px", 320, redis=server)
    processes.start("classify", *models, redis=server)
    wait_for_workers(server, 2, 1)
    processes.start("camera", "demo", "--name", CAMERA, "--fps", 20, redis=server)
    found = Watched(server, versions)
    found.wait_for(versions.first)
    return found


@pytest.mark.parametrize("kind", ["yunet", "dnn"])
def test_promotions_under_a_live_camera_lose_no_frame(watched: Watched) -> None:
    registry, first, second = watched.versions.registry, watched.versions.first, watched.versions.second

    for version in (second, first):
        promote(registry, version, by=BY)
        watched.wait_for(version)
    rollback(registry, by=BY)
    watched.wait_for(second)

    results = watched.results()
    newest = max(result.seq for result in results)
    wait_until(lambda: watched.all_ended(newest), 5, f"frames 0 to {newest} have ended, each once")
    ledger = read_ledgers(watched.server.bus, [CAMERA])[CAMERA]
    assert ledger.produced == ledger.labelled + sum(ledger.dropped.values()) + ledger.in_flight
    assert ledger.dropped.keys() <= FRESH_ONLY


@pytest.mark.parametrize("kind", ["yunet"])
def test_a_version_damaged_after_its_registration_is_rejected_until_it_is_repaired(
    watched: Watched, tmp_path: Path
) -> None:
    registry, first, second = watched.versions.registry, watched.versions.first, watched.versions.second
    flip_a_byte(registry.folder(second) / DETECTOR_NAME)
    registry.set_current(second, BY, [])

    def rejected() -> bool:
        return all(f"refused {second}: " in state and model == first for model, state in watched.detectors())

    wait_until(rejected, 20, "both detectors reject it")
    shown = status_table(read_status(watched.server.bus))
    newest = len(watched.results())
    wait_until(lambda: len(watched.results()) > newest + 20, 30, "frames are still labelled")
    found = [bool(result.faces) for result in watched.results()[newest:] if result.outcome == "labelled"]
    register(registry.location, tmp_path / "second")
    watched.wait_for(second)

    assert all(found)
    assert shown.count(f"refused {second}: ") == 2
    assert f"{DETECTOR_NAME} is damaged" in shown
    assert shown.startswith("model lite-")
    assert read_ledgers(watched.server.bus, [CAMERA])[CAMERA].dropped.keys() <= FRESH_ONLY


def test_haar_has_no_version(server: Server, processes: Processes, versions: Versions) -> None:
    processes.start("detect", "--models", versions.registry.location, "--detector", "haar", redis=server)

    (beat,) = wait_until(lambda: read_heartbeats(server.client), 60, "the detector lives")

    assert (beat.role, beat.model, beat.state) == ("detector", None, RUNNING)


def test_the_first_version_must_load(server: Server, processes: Processes, versions: Versions) -> None:
    flip_a_byte(versions.registry.folder(versions.first) / DETECTOR_NAME)

    process = processes.start("detect", "--models", versions.registry.location, redis=server)

    assert process.wait(60) == 1
    (line,) = processes.log().splitlines()
    assert "detector.onnx is damaged" in line


@pytest.mark.parametrize("versions", ["folder", "memory"], indirect=True)
def test_a_new_version_is_returned_once_and_the_loaded_old_one_after_going_back(versions: Versions) -> None:
    registry, reloader = versions.registry, reloader_for(Settings(models=versions.registry.location))
    reloader.poll(registry)
    nothing_new = reloader.take()

    promote(registry, versions.second, by=BY)
    reloader.poll(registry)
    newer, none = reloader.take(), reloader.take()
    rollback(registry, by=BY)
    reloader.poll(registry)
    older = reloader.take()

    assert nothing_new is none is None
    assert newer is not None
    assert newer.version == versions.second
    assert len(newer.model.find(np.zeros((120, 160, 3), np.uint8)).boxes) == 0
    assert older is reloader.first
    assert reloader.state == RUNNING


def test_a_rejected_version_is_tried_again_when_its_files_change(versions: Versions) -> None:
    registry = versions.registry
    reloader, folder = reloader_for(Settings(models=registry.location)), registry.folder(versions.second)
    content = (folder / DETECTOR_NAME).read_bytes()
    flip_a_byte(folder / DETECTOR_NAME)
    versions.registry.set_current(versions.second, BY, [])
    reloader.poll(versions.registry)
    rejected = reloader.state

    (folder / DETECTOR_NAME).write_bytes(content)
    reloader.poll(versions.registry)

    assert rejected.startswith(f"refused {versions.second}: {folder / DETECTOR_NAME} is damaged")
    taken = reloader.take()
    assert taken is not None
    assert taken.version == versions.second
    assert reloader.state == RUNNING


def test_a_detector_rejected_for_want_of_memory_is_used_once_there_is_some(
    versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    reloader = ModelReloader(versions.registry, lambda folder: load_with_self_test(folder=folder), lambda: now_s)
    versions.registry.set_current(versions.second, BY, [])

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(onnxruntime, "InferenceSession", fail)
        reloader.poll(versions.registry)
    rejected = reloader.state
    now_s += RETRY_INTERVAL_S
    reloader.poll(versions.registry)

    assert rejected.startswith(f"refused {versions.second}: ")
    assert "MemoryError" in rejected
    taken = reloader.take()
    assert taken is not None
    assert (taken.version, reloader.state) == (versions.second, RUNNING)


def test_the_first_detector_of_a_registry_made_before_comes_without_a_restart(tmp_path: Path) -> None:
    classifiers = registry_at(str(tmp_path / "registry"))
    classifiers.set_current(BUILT_IN, BY, [])
    reloader, detectors = reloader_for(Settings(models=classifiers.location)), classifiers.of_kind(DETECTOR)
    run = write_detector(tmp_path / "run", "a")

    register(classifiers.location, tmp_path / "run")
    reloader.poll(detectors)
    after_registering = reloader.take(), reloader.state
    promote(detectors, run.version, by=BY, force=True)
    reloader.poll(detectors)
    taken = reloader.take()

    assert reloader.first.version == read_detector_card(DEFAULT_FOLDER).version
    assert after_registering == (None, RUNNING)
    assert taken is not None
    assert taken.version == run.version


def test_a_registry_that_vanishes_does_not_bring_the_built_in_detector_back(versions: Versions, tmp_path: Path) -> None:
    reloader = reloader_for(Settings(models=versions.registry.location))

    (tmp_path / "registry").rename(tmp_path / "elsewhere")
    reloader.poll(versions.registry)

    assert reloader.take() is None
    assert reloader.state.startswith("no current version: ")
