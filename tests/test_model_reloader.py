"""Classifiers use the registry's current version: swaps lose no frame, and a damaged version changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import fsspec
import numpy as np
import pytest
from conftest import Server, wait_until
from fsspec.implementations.memory import MemoryFileSystem
from processes import Processes, processes, wait_for_workers
from versions import flip_a_byte, network_that_fails_on_more_than, write_model, write_version

from models.card import CARD_NAME
from models.classifier.card import DEFAULT_FOLDER, INT8_NAME, Card, read_card
from models.files import ModelUnusable
from models.registry.kinds import CLASSIFIER
from models.registry.promotion import promote, rollback
from models.registry.registry import BUILT_IN, Registry, register, registry_at
from models.registry.resolve import resolve_models
from pipeline.bus import keys, messages
from pipeline.bus.messages import FrameResult, decode
from pipeline.bus.status import read_heartbeats, read_ledgers, read_status, status_table
from pipeline.runtime.settings import Settings
from workers.model_reloader import RETRY_INTERVAL_S, RUNNING, ModelReloader
from workers.warm_classifier import WarmClassifier, load_warm

__all__ = ["processes"]

BY = "tester@here"
CAMERA = "door"
FRESH_ONLY = {"stale", "expired"}  # why a live frame may be dropped on a busy machine; anything else is a fault


class Unsteady(MemoryFileSystem):
    """An object store whose network can be cut off, and which can be slow to return a model."""

    protocol = "unsteady"
    away = False
    fast = threading.Event()
    asked = threading.Event()

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> bytes:
        if type(self).away:
            raise TimeoutError("no route to host")
        if path.endswith(INT8_NAME):
            self.asked.set()
            self.fast.wait()
        content: bytes = super().cat_file(path, *arguments, **options)
        return content


@dataclass(frozen=True)
class Versions:
    """A registry with two versions that are equally good; the first is current."""

    registry: Registry[Card]
    first: str
    second: str


@pytest.fixture(params=["folder"])
def versions(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Versions]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fsspec.register_implementation("unsteady", Unsteady, clobber=True)
    Unsteady.fast.set()
    place = str(tmp_path / "registry") if request.param == "folder" else f"{request.param}:/{tmp_path}/registry"
    alike: dict[str, Any] = {"tests": {"face-mask-12k/Test": "1"}}
    first, second = (write_version(tmp_path / name, name, **alike).version for name in ("first", "second"))
    for name in ("first", "second"):
        register(place, tmp_path / name)
    promote(registry_at(place), first, by=BY, force=True)
    yield Versions(registry_at(place), first, second)
    Unsteady.away = False
    Unsteady.fast.set()


@dataclass(frozen=True)
class Watched:
    """A live camera with 20 frames a second, a detector, and two classifiers that follow a registry."""

    server: Server
    versions: Versions

    def results(self, after: float = 0.0) -> list[tuple[float, FrameResult]]:
        """Return the results written since a time, each with its own, in Unix seconds on Redis' clock."""
        rows = cast(list[Any], self.server.client.xrange("{s0}:results", min=f"({int(after * 1000)}-0"))
        return [
            (int(id_.split(b"-")[0]) / 1000, decode(FrameResult, fields[b"record"]))
            for id_, fields in rows
            if fields[b"camera"] == CAMERA.encode()
        ]

    def labelled_with(self, version: str, after: float = 0.0) -> int:
        """Return how many frames a version has labelled since a time; the ledger balances whenever it is asked."""
        assert read_ledgers(self.server.bus, [CAMERA])[CAMERA].balances
        return sum(result.model == version for _, result in self.results(after))

    def all_ended(self, newest: int) -> bool:
        """Return whether each frame up to one of them has come to its end, once."""
        seqs = sorted(result.seq for _, result in self.results() if result.seq <= newest)
        return seqs == list(range(newest + 1))

    def classifiers(self) -> list[tuple[str | None, str]]:
        """Return what the classifiers' heartbeats say: the model, and how it stands with it."""
        return [(beat.model, beat.state) for beat in read_heartbeats(self.server.client) if beat.role == "classifier"]


@pytest.fixture
def watched(server: Server, processes: Processes, versions: Versions) -> Watched:
    for _ in range(2):
        processes.start("classify", "--models", versions.registry.location, redis=server)
    processes.start("detect", "--models", versions.registry.location, "--detector-px", 320, redis=server)
    wait_for_workers(server, 1, 2)
    processes.start("camera", "demo", "--name", CAMERA, "--fps", 20, redis=server)
    found = Watched(server, versions)
    wait_until(lambda: found.labelled_with(versions.first) >= 20, 30, "the first version labels")
    return found


def classified_by(results: Iterable[FrameResult]) -> set[str | None]:
    """Return the versions that classified faces; a frame whose faces all keep their labels names that of these."""
    return {result.model for result in results if any(face.fresh for face in result.faces)}


def test_promotions_under_a_live_camera_lose_no_frame(watched: Watched) -> None:
    first, second = watched.versions.first, watched.versions.second

    swaps = [swapped(watched, version) for version in (second, first, second)]

    results = watched.results()
    newest = max(result.seq for _, result in results)
    wait_until(lambda: watched.all_ended(newest), 5, f"frames 0 to {newest} have ended, each once")
    assert {result.model for _, result in results if result.outcome == "labelled"} == {first, second}
    for swap in swaps:
        since = [result for at, result in results if swap.both_at < at < swap.ended_at]
        assert classified_by(since) == {swap.version}
    ledger = read_ledgers(watched.server.bus, [CAMERA])[CAMERA]
    assert ledger.produced == ledger.labelled + sum(ledger.dropped.values()) + ledger.in_flight
    assert ledger.dropped.keys() <= FRESH_ONLY
    announced = decode(messages.AnnouncedModel, cast(bytes, watched.server.client.get(keys.MODEL)))
    assert announced.version == second
    around = [drops(results, swap.began_at, swap.ended_at) for swap in swaps]
    print(f"frames dropped around each of {len(swaps)} swaps: {around}")


@dataclass(frozen=True)
class Swapped:
    """A promotion: when it began, when both classifiers used the version, and the end of the measurement."""

    version: str
    began_at: float
    both_at: float
    ended_at: float


def swapped(watched: Watched, version: str) -> Swapped:
    """Promote a version while the camera runs."""
    now = watched.server.clock.now
    began_at = now()
    promote(watched.versions.registry, version, by=BY)
    wait_until(lambda: watched.classifiers() == [(version, RUNNING)] * 2, 10, f"both classifiers use {version}")
    both_at = now()
    wait_until(lambda: watched.labelled_with(version, both_at) >= 20, 10, f"{version} labels")
    return Swapped(version, began_at, both_at, now())


def drops(results: list[tuple[float, FrameResult]], since: float, until: float) -> int:
    return sum(result.outcome != "labelled" for at, result in results if since < at < until)


def test_going_back_shows_in_the_results(watched: Watched) -> None:
    registry, first, second = watched.versions.registry, watched.versions.first, watched.versions.second
    built_in = read_card(DEFAULT_FOLDER).version
    swapped(watched, second)
    promote(registry, BUILT_IN, by=BY, force=True)
    wait_until(lambda: watched.classifiers() == [(built_in, RUNNING)] * 2, 10, "both use the built-in version")

    for to in (second, first):
        now = watched.server.clock.now
        began_at = now()
        rollback(registry, by=BY)
        wait_until(lambda to=to: watched.classifiers() == [(to, RUNNING)] * 2, 10, f"both classifiers use {to} again")
        both_at = now()
        wait_until(lambda to=to, at=both_at: watched.labelled_with(to, at) >= 10, 10, f"{to} labels again")

        assert classified_by(result for _, result in watched.results(both_at)) == {to}
        print(f"both classifiers report {to} {both_at - began_at:.1f} s after the rollback")


def test_a_version_damaged_after_its_registration_is_rejected_until_it_is_repaired(
    watched: Watched, tmp_path: Path
) -> None:
    registry, first, second = watched.versions.registry, watched.versions.first, watched.versions.second
    flip_a_byte(registry.folder(second) / INT8_NAME)
    registry.set_current(second, BY, [])

    def rejected() -> bool:
        return all(f"refused {second}: " in state and model == first for model, state in watched.classifiers())

    wait_until(rejected, 10, "both classifiers reject it")
    shown = status_table(read_status(watched.server.bus))
    rejected_at = watched.server.clock.now()
    wait_until(lambda: watched.labelled_with(first, rejected_at) >= 20, 10, "the first version still labels")
    register(registry.location, tmp_path / "second")
    wait_until(lambda: watched.classifiers() == [(second, RUNNING)] * 2, 10, "both use it once it is repaired")

    assert shown.count(f"refused {second}: ") == 2
    assert f"{INT8_NAME} is damaged" in shown
    assert read_ledgers(watched.server.bus, [CAMERA])[CAMERA].dropped.keys() <= FRESH_ONLY


def reloader_at(registry: Registry[Card]) -> ModelReloader[WarmClassifier]:
    return ModelReloader(registry, partial(load_warm, Settings(runtime="onnx")))


@pytest.mark.parametrize("versions", ["folder", "memory", "unsteady"], indirect=True)
def test_a_new_version_is_returned_once_and_the_loaded_old_one_after_going_back(versions: Versions) -> None:
    reloader = reloader_at(versions.registry)
    reloader.poll(versions.registry)
    nothing_new = reloader.take()

    promote(versions.registry, versions.second, by=BY)
    reloader.poll(versions.registry)
    newer, none = reloader.take(), reloader.take()
    rollback(versions.registry, by=BY)
    reloader.poll(versions.registry)
    older = reloader.take()

    assert nothing_new is none is None
    assert newer is not None
    assert newer.version == newer.model.classifier.card.version == versions.second
    assert newer.model.batcher.limit > 1
    assert older is reloader.first
    assert reloader.state == RUNNING


@pytest.mark.parametrize("versions", ["unsteady"], indirect=True)
def test_the_model_in_use_labels_while_another_version_is_being_loaded(versions: Versions) -> None:
    reloader = reloader_at(versions.registry)
    Unsteady.fast.clear()
    Unsteady.asked.clear()

    versions.registry.set_current(versions.second, BY, [])
    with reloader.polling():
        wait_until(Unsteady.asked.is_set, 10, "the new version is being loaded")
        meanwhile = reloader.take()
        labelled = reloader.first.model.classifier.mask_probability(np.zeros((2, 112, 112, 3), np.uint8))
        state = reloader.state
        Unsteady.fast.set()
        newer = wait_until(reloader.take, 30, "the new version is ready")

    assert (meanwhile, labelled.shape, state) == (None, (2,), RUNNING)
    assert newer.version == versions.second


def test_only_the_newest_of_several_promotions_is_returned(versions: Versions) -> None:
    reloader = reloader_at(versions.registry)

    for version in (versions.second, BUILT_IN):
        promote(versions.registry, version, by=BY, force=True)
        reloader.poll(versions.registry)

    taken = reloader.take()
    assert taken is not None
    assert taken.name == BUILT_IN
    assert taken.version == read_card(DEFAULT_FOLDER).version
    assert reloader.take() is None


def test_a_rejected_version_is_not_tried_again_until_one_of_its_files_changes(
    versions: Versions, tmp_path: Path
) -> None:
    reloader, folder = reloader_at(versions.registry), versions.registry.folder(versions.second)
    content = (folder / INT8_NAME).read_bytes()
    flip_a_byte(folder / INT8_NAME)
    versions.registry.set_current(versions.second, BY, [])
    states = []
    for _ in range(2):
        reloader.poll(versions.registry)
        states.append(reloader.state)

    (folder / INT8_NAME).write_bytes(content)
    reloader.poll(versions.registry)

    assert states[0] == states[1]
    assert states[0].startswith(f"refused {versions.second}: {folder / INT8_NAME} is damaged")
    taken = reloader.take()
    assert taken is not None
    assert taken.version == versions.second
    assert reloader.state == RUNNING


def test_a_rejected_version_is_tried_again_after_a_pause_although_its_files_are_the_same(versions: Versions) -> None:
    now_s, short_of_memory, tried = 1000.0, True, 0

    def load(folder: Path) -> str:
        nonlocal tried
        tried += folder.name == versions.second
        if folder.name == versions.second and short_of_memory:
            raise ModelUnusable(f"attempt {tried}: the GPU is full")
        return folder.name

    reloader = ModelReloader(versions.registry, load, clock=lambda: now_s)
    versions.registry.set_current(versions.second, BY, [])
    states = []
    for _ in range(2):
        for wait_s in (0.0, RETRY_INTERVAL_S - 0.1, 0.1):
            now_s += wait_s
            reloader.poll(versions.registry)
            states.append((tried, reloader.state.rpartition(": ")[0]))

    short_of_memory = False
    reloader.poll(versions.registry)
    too_early = reloader.take()
    now_s += RETRY_INTERVAL_S
    reloader.poll(versions.registry)

    refused = [(attempt, f"refused {versions.second}: attempt {attempt}") for attempt in (1, 2, 3)]
    assert states == [refused[0], refused[0], refused[1], refused[1], refused[1], refused[2]]
    assert too_early is None
    taken = reloader.take()
    assert taken is not None
    assert (taken.model, reloader.state) == (versions.second, RUNNING)


def test_going_back_from_a_rejected_version_changes_nothing(versions: Versions) -> None:
    reloader = reloader_at(versions.registry)
    (versions.registry.folder(versions.second) / INT8_NAME).unlink()
    versions.registry.set_current(versions.second, BY, [])
    reloader.poll(versions.registry)
    rejected = reloader.state

    versions.registry.set_current(versions.first, BY, [])
    reloader.poll(versions.registry)

    assert f"{INT8_NAME} is missing" in rejected
    assert reloader.take() is None
    assert reloader.state == RUNNING


@pytest.mark.parametrize(
    ("harm", "what"), [(b"junk", "damaged"), (b'{"version": "\xff"}', "not UTF-8"), (None, "missing")]
)
def test_a_pointer_that_is_lost_or_damaged_changes_nothing(versions: Versions, harm: bytes | None, what: str) -> None:
    reloader, pointer = reloader_at(versions.registry), Path(versions.registry.location) / "current.json"
    before = pointer.read_text()
    pointer.write_bytes(harm) if harm else pointer.unlink()
    reloader.poll(versions.registry)
    state = reloader.state

    pointer.write_text(before)
    reloader.poll(versions.registry)

    assert state.startswith(f"no current version: {pointer} is {what}")
    assert reloader.take() is None
    assert reloader.state == RUNNING


def test_a_version_with_a_card_that_is_not_utf_8_is_rejected_while_the_registry_is_polled(versions: Versions) -> None:
    reloader, card = reloader_at(versions.registry), versions.registry.folder(versions.second) / CARD_NAME
    content = card.read_bytes()
    card.write_bytes(b'{"version": "\xff"}')
    versions.registry.set_current(versions.second, BY, [])

    with reloader.polling():
        wait_until(lambda: reloader.state != RUNNING, 10, "it is rejected")
        rejected = reloader.state
        card.write_bytes(content)
        newer = wait_until(reloader.take, 30, "it is used once it is repaired")

    assert rejected.startswith(f"refused {versions.second}: {card} is not UTF-8: ")
    assert newer.version == versions.second
    assert reloader.state == RUNNING


def test_a_version_that_fails_on_larger_batches_than_its_self_test_is_rejected(
    versions: Versions, tmp_path: Path
) -> None:
    weak = write_model(tmp_path / "weak", network_that_fails_on_more_than(5, size_px=112)).version
    register(versions.registry.location, tmp_path / "weak")
    reloader = reloader_at(versions.registry)
    versions.registry.set_current(weak, BY, [])

    reloader.poll(versions.registry)

    assert reloader.state.startswith(f"refused {weak}: ")
    assert "out of data bounds" in reloader.state
    assert reloader.take() is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the thread ends by an exception
@pytest.mark.parametrize("versions", ["unsteady"], indirect=True)
def test_a_reloader_whose_thread_has_ended_says_so(versions: Versions, monkeypatch: pytest.MonkeyPatch) -> None:
    reloader = reloader_at(versions.registry)

    def end(*_: object) -> None:
        raise SystemExit(1)  # of a driver, and of no class that is expected from one

    monkeypatch.setattr(Unsteady, "cat_file", end)
    with reloader.polling():
        wait_until(lambda: reloader.state != RUNNING, 10, "it is noticed")

    assert reloader.state == "registry not polled any more: see the log, and restart this process"


@pytest.mark.parametrize("versions", ["unsteady"], indirect=True)
def test_a_registry_that_is_away_is_reported_and_polled_again(versions: Versions) -> None:
    reloader = reloader_at(versions.registry)
    promote(versions.registry, versions.second, by=BY)
    Unsteady.away = True
    reloader.poll(versions.registry)
    state, meanwhile = reloader.state, reloader.take()

    Unsteady.away = False
    reloader.poll(versions.registry)

    assert state == f"registry unreachable: {versions.registry.location} cannot be used: no route to host"
    assert meanwhile is None
    taken = reloader.take()
    assert taken is not None
    assert taken.version == versions.second


def test_a_plain_model_folder_is_used_as_it_is(tmp_path: Path) -> None:
    version = write_version(tmp_path / "run", "a").version

    reloader = ModelReloader(resolve_models(str(tmp_path / "run"), CLASSIFIER), partial(load_warm, Settings()))

    with reloader.polling():
        crops = np.zeros((2, 112, 112, 3), np.uint8)
        assert reloader.first.model.classifier.mask_probability(crops).shape == (2,)
    assert reloader.first.model.classifier.card == read_card(tmp_path / "run")
    assert reloader.first.model.classifier.card.version == version
    assert reloader.take() is None


def test_the_first_version_must_load(versions: Versions) -> None:
    flip_a_byte(versions.registry.folder(versions.first) / INT8_NAME)

    with pytest.raises(ModelUnusable, match=r"classifier\.int8\.onnx is damaged"):
        reloader_at(versions.registry)
