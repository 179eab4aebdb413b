"""A registry holds versions that never change and says which is current; it goes forward only to what is no worse."""

from __future__ import annotations

import errno
import getpass
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import fsspec
import msgspec
import pytest
from click.testing import CliRunner, Result
from versions import flip_a_byte, network, write_detector, write_model, write_version

import maskwatch
from models.card import CARD_NAME, parse_card_as
from models.classifier import self_test
from models.classifier.card import DEFAULT_FOLDER, FLOAT_NAME, INT8_NAME, KERAS_NAME, Card, read_card, write_card
from models.classifier.self_test import load_with_self_test
from models.detector.card import DetectorCard
from models.files import ModelUnusable, sha256_of
from models.registry.kinds import CLASSIFIER, DETECTOR, ModelKind
from models.registry.promotion import Comparison, compare, promote, rollback
from models.registry.registry import BUILT_IN, CURRENT_NAME, Registry, RegistryError, register, registry_at
from models.registry.resolve import current_card, current_folder
from models.registry.store import StoreFailed, open_store

BY = "tester@here"


def measured(**shares: float) -> dict[str, object]:
    """Return what a card says of one test, whose pictures are the same for all."""
    return {"measured": {"street": {f"{name}_int8": share for name, share in shares.items()}}, "tests": {"street": "1"}}


@pytest.fixture(params=["folder", "file", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each kind of place that a registry may lie in; nothing is there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "registry"
    return {"folder": str(folder), "file": folder.as_uri(), "memory": f"memory:/{folder}"}[request.param]


@pytest.fixture
def registry(tmp_path: Path) -> Registry[Card]:
    """A registry in a folder, with two versions that were measured alike; the first is current."""
    place = str(tmp_path / "registry")
    first = write_version(tmp_path / "first", "first", **measured(balanced_accuracy=0.9))
    second = write_version(tmp_path / "second", "second", **measured(balanced_accuracy=0.9))
    for run in ("first", "second"):
        register(place, tmp_path / run)
    registry = registry_at(place)
    promote(registry, first.version, by=BY, force=True)
    assert [first.version, second.version] == versions_of(tmp_path)
    return registry


def versions_of(folder: Path) -> list[str]:
    """Return the versions in the run folders first and second."""
    return [read_card(folder / name).version for name in ("first", "second")]


def ask(*arguments: object) -> Result:
    return CliRunner().invoke(maskwatch.cli, ["models", *map(str, arguments)])


def one_line(result: Result, status: int = 1) -> str:
    assert result.exit_code == status, result.output
    (line,) = result.output.strip().splitlines()
    assert line.startswith("maskwatch: ")
    return line


def test_a_registered_version_is_there_whole_and_not_yet_current(place: str, tmp_path: Path) -> None:
    card = write_version(tmp_path / "run", "a")

    assert register(place, tmp_path / "run") == card

    found = registry_at(place)
    folder = found.folder(card.version)
    assert read_card(folder) == card
    assert load_with_self_test(folder).card == card
    assert found.current().version == BUILT_IN
    assert current_folder(place, CLASSIFIER) == DEFAULT_FOLDER
    assert not any(path.name.startswith(".") for path in folder.iterdir())


@pytest.mark.parametrize(
    ("kind", "other", "write"), [(CLASSIFIER, DETECTOR, write_version), (DETECTOR, CLASSIFIER, write_detector)]
)
def test_promoting_and_going_back_walks_along_the_versions_of_one_kind(
    place: str,
    tmp_path: Path,
    kind: ModelKind[Any],
    other: ModelKind[Any],
    write: Callable[[Path, str], Card | DetectorCard],
) -> None:
    first, second = write(tmp_path / "1", "first"), write(tmp_path / "2", "second")
    for run in ("1", "2"):
        register(place, tmp_path / run)
    registry = registry_at(place).of_kind(kind)

    promote(registry, first.version, by=BY, force=True)
    step = promote(registry, second.version, by=BY, force=True)
    seen = [current_card(place, kind).version]
    for _ in range(2):
        rollback(registry, by=BY)
        seen.append(registry.current().version)

    assert (step.version, step.before) == (second.version, first.version)
    assert seen == [second.version, first.version, BUILT_IN]
    assert registry.current().by == BY
    with pytest.raises(RegistryError, match="there is no previous version"):
        rollback(registry, by=BY)
    untouched = registry_at(place).of_kind(other).current()
    assert (untouched.version, untouched.history) == (BUILT_IN, [])


def test_what_serves_and_the_report_are_copied(tmp_path: Path) -> None:
    run, place = tmp_path / "run", tmp_path / "registry"
    card = write_version(run, "a")
    files = {KERAS_NAME: b"keras", FLOAT_NAME: b"float"}
    for name, content in files.items():
        (run / name).write_bytes(content)
    write_card(run, replaced(card, card.files | {name: sha256_of(content) for name, content in files.items()}))
    (run / "report" / "pictures").mkdir(parents=True)
    (run / "report" / "pictures" / "roc.png").write_bytes(b"png")

    registered = register(str(place), run)

    folder = place / "versions" / card.version
    assert set(registered.files) == {INT8_NAME, KERAS_NAME}
    assert {path.name for path in folder.rglob("*")} == {
        CARD_NAME,
        INT8_NAME,
        KERAS_NAME,
        "report",
        "pictures",
        "roc.png",
    }
    assert (folder / INT8_NAME).stat().st_mode & 0o777 == 0o666 & ~umask()


def replaced(card: Card, files: dict[str, str]) -> Card:
    return Card(**{name: getattr(card, name) for name in Card.__struct_fields__} | {"files": files})


def umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found


def test_the_same_version_may_come_again_and_mends_what_was_damaged(registry: Registry[Card], tmp_path: Path) -> None:
    first, _ = versions_of(tmp_path)
    before = registry.card(first)
    flip_a_byte(registry.folder(first) / INT8_NAME)

    register(registry.location, tmp_path / "first")

    assert load_with_self_test(registry.folder(first)).card == before
    assert registry.current().version == first


def test_another_model_under_the_same_version_is_refused(registry: Registry[Card], tmp_path: Path) -> None:
    first, _ = versions_of(tmp_path)
    write_version(tmp_path / "other", "other", version=first, **measured(balanced_accuracy=0.9))

    with pytest.raises(RegistryError, match=f"{first} is registered at .* already and differs in files"):
        register(registry.location, tmp_path / "other")

    assert load_with_self_test(registry.folder(first)).card == read_card(tmp_path / "first")


@pytest.mark.parametrize("harm", ["damaged", "missing", "no card", "no int8"])
def test_a_run_folder_that_is_not_whole_is_not_registered(tmp_path: Path, harm: str) -> None:
    run = tmp_path / "run"
    card = write_version(run, "a")
    if harm == "damaged":
        flip_a_byte(run / INT8_NAME)
    elif harm == "no int8":
        write_card(run, replaced(card, {FLOAT_NAME: card.files[INT8_NAME]}))
    else:
        (run / (CARD_NAME if harm == "no card" else INT8_NAME)).unlink()

    with pytest.raises(ModelUnusable, match=r"card\.json|classifier\.int8\.onnx"):
        register(str(tmp_path / "registry"), run)

    assert not (tmp_path / "registry").exists()


@pytest.mark.parametrize(
    ("new", "current", "found"),
    [
        ({"balanced_accuracy": 0.9}, {"balanced_accuracy": 0.8}, (0.9, 0.8)),
        ({"no_mask_recall": 0.7}, {"no_mask_recall": 0.8}, (0.7, 0.8)),
        ({"balanced_accuracy": 0.9, "no_mask_recall": 0.5}, {"balanced_accuracy": 0.9}, (0.9, 0.9)),
        ({"balanced_accuracy": 0.9}, {"no_mask_recall": 0.8}, None),
    ],
)
def test_versions_are_compared_by_the_figure_that_both_have(
    tmp_path: Path, new: dict[str, float], current: dict[str, float], found: tuple[float, float] | None
) -> None:
    cards = [write_version(tmp_path / str(n), str(n), **measured(**shares)) for n, shares in enumerate((new, current))]

    comparison = compare(*cards, CLASSIFIER.figures)

    assert comparison == (found and Comparison(tests=("street",), new=found[0], current=found[1]))


def test_only_tests_with_the_same_pictures_count(tmp_path: Path) -> None:
    both = {"street": {"balanced_accuracy_int8": 0.9}, "hall": {"balanced_accuracy_int8": 0.5}}
    other = {"street": {"balanced_accuracy_int8": 0.7}, "hall": {"balanced_accuracy_int8": 0.8}}
    new = write_version(tmp_path / "1", "1", measured=both, tests={"street": "1", "hall": "2"})
    current = write_version(tmp_path / "2", "2", measured=other, tests={"street": "1", "hall": "3"})

    comparison = compare(new, current, CLASSIFIER.figures)

    assert comparison == Comparison(tests=("street",), new=0.9, current=0.7)


def test_a_worse_version_is_refused_and_can_be_forced(registry: Registry[Card], tmp_path: Path) -> None:
    current = registry.current().version
    worse = write_version(tmp_path / "worse", "worse", **measured(balanced_accuracy=0.85)).version
    register(registry.location, tmp_path / "worse")

    line = one_line(ask("promote", worse, "--models", registry.location))
    after_refusal = registry.current().version
    forced = ask("promote", worse, "--force", "--models", registry.location)

    assert f"{worse} is worse than {current}" in line
    assert "85.00% against 90.00%, mean over street" in line
    assert "--force" in line
    assert after_refusal == current
    assert forced.exit_code == 0
    assert registry.current().version == worse
    assert registry.current().by.startswith(f"{getpass.getuser()}@")


def test_a_version_that_is_as_good_becomes_current(registry: Registry[Card], tmp_path: Path) -> None:
    first, second = versions_of(tmp_path)

    result = ask("promote", second, "--models", registry.location)

    assert result.output == f"{second} is current, before it was {first}: 90.00% against 90.00%, mean over street\n"
    assert registry.current().version == second


def test_without_a_common_test_nobody_knows_and_the_line_says_what_to_do(
    registry: Registry[Card], tmp_path: Path
) -> None:
    unknown = write_version(tmp_path / "unknown", "unknown", tests={}).version
    register(registry.location, tmp_path / "unknown")

    line = one_line(ask("promote", unknown, "--models", registry.location))

    assert "no test in common" in line
    assert "--test" in line
    assert "--force" in line


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no network at all", "holds no classifier that runs"),
        (network(112, [float("nan")]), "NaN"),
        (network(112, [0.2, 0.8]), "2 numbers for 1 faces"),
        (network(112, [3.5]), "not probabilities"),
        (network(64, [0.5]), "holds no classifier that runs"),
        (network(112, [0.5], batch=1), "holds no classifier that runs"),
    ],
)
def test_a_version_that_cannot_serve_is_refused_whatever_it_says_of_itself(
    registry: Registry[Card], tmp_path: Path, content: bytes, says: str
) -> None:
    current = registry.current()
    broken = write_model(tmp_path / "broken", content, **measured(balanced_accuracy=1)).version
    register(registry.location, tmp_path / "broken")

    line = one_line(ask("promote", broken, "--force", "--models", registry.location))

    assert says in line
    assert registry.current() == current


def test_a_network_that_answers_probabilities_is_taken(tmp_path: Path) -> None:
    write_model(tmp_path / "constant", network(112, [0.5]))

    classifier = load_with_self_test(tmp_path / "constant")

    assert classifier.card.size_px == 112


def test_a_damaged_version_is_refused_even_by_force_and_by_going_back(registry: Registry[Card], tmp_path: Path) -> None:
    first, second = versions_of(tmp_path)
    promote(registry, second, by=BY)
    flip_a_byte(registry.folder(first) / INT8_NAME)

    forced = one_line(ask("promote", first, "--force", "--models", registry.location))
    back = one_line(ask("rollback", "--models", registry.location))

    assert "classifier.int8.onnx is damaged" in forced
    assert "classifier.int8.onnx is damaged" in back
    assert registry.current().version == second


def test_a_way_on_is_named_when_the_version_before_is_damaged(registry: Registry[Card], tmp_path: Path) -> None:
    first, second = versions_of(tmp_path)
    third = write_version(tmp_path / "third", "third").version
    register(registry.location, tmp_path / "third")
    promote(registry, second, by=BY)
    flip_a_byte(registry.folder(first) / INT8_NAME)

    line = one_line(ask("rollback", "--models", registry.location))

    assert "classifier.int8.onnx is damaged" in line
    assert line.endswith(f"; or make another version current, with `maskwatch models promote`: built-in, {third}")
    assert registry.current().version == second


def test_every_file_that_serves_is_looked_at(tmp_path: Path) -> None:
    run, place = tmp_path / "run", str(tmp_path / "registry")
    card = write_version(run, "a")
    (run / KERAS_NAME).write_bytes(b"keras")
    write_card(run, replaced(card, card.files | {KERAS_NAME: sha256_of(b"keras")}))
    register(place, run)
    registry = registry_at(place)
    (registry.folder(card.version) / KERAS_NAME).write_bytes(b"other")

    with pytest.raises(ModelUnusable, match=r"classifier\.keras is damaged"):
        promote(registry, card.version, by=BY, force=True)


def test_a_network_that_a_gpu_could_not_run_is_refused_where_that_can_be_checked(
    registry: Registry[Card], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = versions_of(tmp_path)
    other = write_model(tmp_path / "other", network(112, [0.5])).version
    register(registry.location, tmp_path / "other")

    line = one_line(ask("promote", other, "--force", "--models", registry.location))
    after_refusal = registry.current().version
    without_onnx = replace(self_test.this_machine(), has_onnx=False)
    monkeypatch.setattr(self_test, "this_machine", lambda: without_onnx)
    promote(registry, other, by=BY, force=True)

    assert "cannot be turned into a float network: it has the operator ReduceMax" in line
    assert after_refusal == first
    assert registry.current().version == other


def test_a_card_in_a_foreign_folder_is_refused(registry: Registry[Card], tmp_path: Path) -> None:
    first, second = versions_of(tmp_path)
    write_card(registry.folder(second), read_card(tmp_path / "first"))

    with pytest.raises(ModelUnusable, match=f"is the card of {first}"):
        promote(registry, second, by=BY, force=True)


@pytest.mark.parametrize("version", ["lite-none", "../first", ""])
def test_a_version_that_is_not_there_is_one_line_with_those_that_are(registry: Registry[Card], version: str) -> None:
    lines = [one_line(ask(command, version, "--models", registry.location)) for command in ("promote", "show")]

    assert all(f"has no version {version}" in line and "built-in, lite-" in line for line in lines)


def test_the_list_tells_which_is_current_and_what_was_measured(registry: Registry[Card], tmp_path: Path) -> None:
    first, second = versions_of(tmp_path)
    (registry.folder(second) / CARD_NAME).write_text("junk")

    table = ask("list", "--models", registry.location).output.partition("\n\n  DETECTOR")[0].splitlines()
    listed = json.loads(ask("list", "--json", "--models", registry.location).output)
    rows = {row["version"]: row for row in listed if row["kind"] == "classifier"}

    (current,) = [line for line in table if line.startswith("* lite")]
    assert first in current
    assert "street 90.00%" in current
    assert "3.7 MB" in current
    assert table[-1].endswith(f"by {BY}; before it: built-in")
    assert next(iter(rows)) == BUILT_IN
    assert (rows[first]["current"], rows[second]["current"]) == (True, False)
    assert rows[first]["figures"] == {"street": 0.9}
    assert "card.json is damaged" in rows[second]["damaged"]


def test_show_prints_the_whole_card(registry: Registry[Card], tmp_path: Path) -> None:
    first, _ = versions_of(tmp_path)

    shown = ask("show", first, "--models", registry.location).output
    built_in = ask("show", BUILT_IN, "--models", registry.location).output.encode()

    assert shown == (tmp_path / "first" / CARD_NAME).read_text()
    assert parse_card_as(Card, built_in, "what is shown") == read_card(DEFAULT_FOLDER)


def test_a_run_folder_is_registered_from_the_command_line(tmp_path: Path) -> None:
    card = write_version(tmp_path / "run", "a")

    result = ask("register", tmp_path / "run", "--models", tmp_path / "registry")

    assert result.output.startswith(f"{card.version} is registered")
    assert registry_at(str(tmp_path / "registry")).card(card.version) == card


def test_a_folder_of_a_model_in_use_does_not_become_a_registry(tmp_path: Path) -> None:
    served = write_version(tmp_path / "served", "a")
    write_version(tmp_path / "run", "b")

    line = one_line(ask("register", tmp_path / "run", "--models", tmp_path / "served"))

    assert "is a model's folder: name a registry with --models" in line
    assert not (tmp_path / "served" / "versions").exists()
    assert current_card(str(tmp_path / "served"), CLASSIFIER) == served


def test_a_link_to_nothing_hides_no_version(registry: Registry[Card], tmp_path: Path) -> None:
    first, second = versions_of(tmp_path)
    for run in ("first", "second"):
        register(registry.location, tmp_path / run)

    (Path(registry.location) / "versions" / "old").symlink_to("/nowhere")

    assert {first, second} <= set(registry.versions())


def test_a_card_that_cannot_be_written_whole_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)

    with pytest.raises(OSError, match="No space left"):
        write_card(tmp_path, read_card(DEFAULT_FOLDER))

    assert list(tmp_path.iterdir()) == []


def test_a_lost_or_damaged_pointer_is_written_anew_by_force(registry: Registry[Card], tmp_path: Path) -> None:
    first, _ = versions_of(tmp_path)
    pointer = Path(registry.location) / CURRENT_NAME
    said = []

    for harm in (
        pointer.unlink,
        lambda: pointer.write_text("junk"),
        lambda: pointer.write_bytes(b'{"version": "\xff"}'),
        lambda: pointer.write_bytes(b'{"?": ' + b"[" * 100_000),
    ):
        harm()
        said.append(one_line(ask("promote", first, "--models", registry.location)))
        assert ask("promote", first, "--force", "--models", registry.location).exit_code == 0

    assert "current.json is missing" in said[0]
    assert "current.json is damaged" in said[1]
    assert "current.json is not UTF-8" in said[2]
    assert "current.json is damaged" in said[3]
    assert registry.current().version == first


def test_versions_promoted_at_once_are_all_in_the_history(tmp_path: Path) -> None:
    place = str(tmp_path / "registry")
    versions = [write_version(tmp_path / word, word).version for word in "abcdef"]
    for word in "abcdef":
        register(place, tmp_path / word)
    together = Barrier(len(versions))

    def promote_one(version: str) -> str | None:
        together.wait()
        return promote(registry_at(place), version, by=BY, force=True).before

    with ThreadPoolExecutor(len(versions)) as threads:
        befores = list(threads.map(promote_one, versions))

    current = registry_at(place).current()
    history = [promotion.version for promotion in current.history]
    assert history[0] == BUILT_IN
    assert sorted([*history[1:], current.version]) == sorted(versions)
    assert sorted(history) == sorted(str(before) for before in befores)


class Slow(Registry[Card]):
    """A registry in which somebody else promotes a version while ours is being tried."""

    meanwhile = BUILT_IN

    def folder(self, version: str) -> Path:
        self.set_current(self.meanwhile, "somebody@there", [])
        return super().folder(version)


def test_behind_a_url_a_version_is_not_promoted_over_what_somebody_else_has_just_promoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = f"memory:/{tmp_path}/registry"
    ours, theirs = (write_version(tmp_path / word, word).version for word in ("ours", "theirs"))
    for word in ("ours", "theirs"):
        register(place, tmp_path / word)
    registry = Slow(open_store(place), CLASSIFIER)
    registry.meanwhile = theirs

    with pytest.raises(RegistryError, match=f"somebody@there made {theirs} current meanwhile"):
        promote(registry, ours, by=BY, force=True)

    assert registry.current().version == theirs


def test_looking_whether_a_registry_can_be_written_leaves_nothing(place: str) -> None:
    registry = registry_at(place)

    registry.check_writable()

    assert not registry.exists()
    assert open_store(place).list_files("") == {}


@pytest.mark.parametrize("named", ["/proc/registry", "{file}/registry", "what://ever", "http://127.0.0.1:1/registry"])
def test_a_registry_that_cannot_be_written_is_told(tmp_path: Path, named: str) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreFailed, match=r"registry|Protocol not known"):
        registry_at(named.format(file=tmp_path / "file")).check_writable()


def test_a_registry_that_is_a_file_is_told_and_not_the_run_that_was_to_be_added(tmp_path: Path) -> None:
    write_version(tmp_path / "run", "a")
    (tmp_path / "file").touch()

    line = one_line(ask("register", tmp_path / "run", "--models", tmp_path / "file"))

    assert line == f"maskwatch: {tmp_path / 'file'} cannot be made: choose another folder"


def test_a_run_that_was_trained_for_another_job_too_is_the_same_version(
    registry: Registry[Card], tmp_path: Path
) -> None:
    first, _ = versions_of(tmp_path)
    card = read_card(tmp_path / "first")
    write_card(tmp_path / "first", msgspec.structs.replace(card, job="0123abcd", created="2026-01-01T00:00:00+00:00"))

    registered = register(registry.location, tmp_path / "first")

    assert (registered.version, registered.job) == (first, "")


def test_what_is_no_registry_is_one_line(tmp_path: Path) -> None:
    empty, run = tmp_path / "empty", tmp_path / "run"
    empty.mkdir()
    write_version(run, "a")

    lines = [one_line(ask("list", "--models", where)) for where in (empty, tmp_path / "none", run, "what://ever")]
    unnamed = one_line(ask("promote", "built-in"), status=2)

    assert "neither card.json nor current.json" in lines[0]
    assert "is neither a model folder nor a registry" in lines[1]
    assert "is a model's folder, not a registry" in lines[2]
    assert "Protocol not known: what" in lines[3]
    assert "--models" in unnamed


def test_a_driver_that_is_not_installed_is_one_line() -> None:
    fsspec.register_implementation("nodriver", "no_such_driver.Files", errtxt="Install no-such-driver", clobber=True)

    line = one_line(ask("list", "--models", "nodriver://user:secret@bucket/models"))

    assert line.endswith(
        "nodriver://user:***@bucket/models needs a driver that is not installed: Install no-such-driver"
    )


def test_a_model_folder_may_lie_behind_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    card = write_version(tmp_path / "run", "a")
    fsspec.filesystem("memory").put(str(tmp_path / "run"), f"{tmp_path}/models/a", recursive=True)

    folder = current_folder(f"memory:/{tmp_path}/models/a", CLASSIFIER)

    assert load_with_self_test(folder).card == card


def test_what_was_fetched_is_checked_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = f"memory:/{tmp_path}/registry"
    version = write_version(tmp_path / "run", "a").version
    register(place, tmp_path / "run")
    registry = registry_at(place)
    flip_a_byte(registry.folder(version) / INT8_NAME)

    mended = load_with_self_test(registry.folder(version)).card

    assert mended.version == version


def test_a_damaged_file_behind_a_url_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = f"memory:/{tmp_path}/registry"
    version = write_version(tmp_path / "run", "a").version
    register(place, tmp_path / "run")
    fsspec.filesystem("memory").pipe_file(f"{tmp_path}/registry/versions/{version}/{INT8_NAME}", b"other")

    with pytest.raises(ModelUnusable, match=r"memory://.*classifier\.int8\.onnx is damaged"):
        promote(registry_at(place), version, by=BY, force=True)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = f"memory:/{tmp_path}/registry"
    version = write_version(tmp_path / "run", "a").version
    register(place, tmp_path / "run")

    with pytest.raises(StoreFailed, match="set XDG_CACHE_HOME"):
        registry_at(place).folder(version)
