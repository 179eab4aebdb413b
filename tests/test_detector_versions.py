"""Detectors are registered, promoted and taken back beside classifiers, in the same registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from test_registry import ask, one_line
from versions import flip_a_byte, write_changed_detector, write_detector, write_detector_model, write_version

from commands.shared import check_models
from models.classifier.card import DEFAULT_FOLDER as CLASSIFIER_FOLDER
from models.classifier.card import read_card
from models.detector.card import (
    DEFAULT_FOLDER,
    DETECTOR_NAME,
    DetectorCard,
    OutlineGeometry,
    read_detector_card,
)
from models.detector.self_test import load_with_self_test
from models.files import ModelUnusable
from models.registry.kinds import CLASSIFIER, DETECTOR
from models.registry.promotion import Comparison, compare, promote
from models.registry.registry import BUILT_IN, Registry, register, registry_at
from models.registry.resolve import current_folder
from models.registry.store import open_store
from pipeline.runtime.settings import Settings

BY = "tester@here"


def measured(ap: float, digest: str = "1") -> dict[str, Any]:
    """Return what a card says of one set."""
    return {"measured": {"street": {"pictures": 76.0, "ap": ap}}, "tests": {"street": digest}}


@pytest.fixture(params=["folder", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return str(tmp_path / "registry") if request.param == "folder" else f"memory:/{tmp_path}/registry"


@pytest.fixture
def registry(tmp_path: Path) -> Registry[DetectorCard]:
    """A registry with two versions of the detector that were measured alike; the first is current."""
    place = str(tmp_path / "registry")
    first, _ = (write_detector(tmp_path / name, name, **measured(0.9)) for name in ("first", "second"))
    for name in ("first", "second"):
        register(place, tmp_path / name)
    found = registry_at(place).of_kind(DETECTOR)
    promote(found, first.version, by=BY, force=True)
    return found


def version_of(folder: Path) -> str:
    return read_detector_card(folder).version


def test_a_registered_detector_is_beside_the_classifiers_and_not_yet_current(place: str, tmp_path: Path) -> None:
    detector, classifier = write_detector(tmp_path / "detector", "a"), write_version(tmp_path / "classifier", "a")

    assert register(place, tmp_path / "detector") == detector
    assert register(place, tmp_path / "classifier") == classifier

    classifiers = registry_at(place)
    detectors = classifiers.of_kind(DETECTOR)
    assert (classifiers.versions(), detectors.versions()) == ([classifier.version], [detector.version])
    assert (classifiers.current().version, detectors.current().version) == (BUILT_IN, BUILT_IN)
    folder = detectors.folder(detector.version)
    assert read_detector_card(folder) == detector
    assert load_with_self_test(folder=folder).input_px == detector.input_px
    assert current_folder(place, DETECTOR) == DEFAULT_FOLDER


def test_a_registry_made_before_there_were_versions_of_detectors_uses_the_built_in_one(
    place: str, tmp_path: Path
) -> None:
    classifiers = registry_at(place)
    classifiers.set_current(BUILT_IN, BY, [])
    detectors = classifiers.of_kind(DETECTOR)
    before = detectors.current().version
    listed = ask("list", "--models", place).output
    run = write_detector(tmp_path / "run", "a")

    register(place, tmp_path / "run")

    assert open_store(place).list_files("detectors").keys() == {"current.json", "versions"}
    assert before == detectors.current().version == BUILT_IN
    assert classifiers.current().by == BY
    assert listed.endswith("* current from the start\n")
    assert promote(detectors, run.version, by=BY, force=True).before == BUILT_IN


def test_a_lost_pointer_is_not_taken_for_a_registry_without_detectors(registry: Registry[DetectorCard]) -> None:
    pointer = Path(registry.location) / "detectors" / "current.json"
    pointer.unlink()

    with pytest.raises(ModelUnusable, match=r"detectors/current\.json is missing: .*models promote --detector VERSION"):
        registry.current()


def test_a_registry_of_detectors_alone_whose_pointers_are_lost_gets_them_back(
    registry: Registry[DetectorCard], tmp_path: Path
) -> None:
    first, where = version_of(tmp_path / "first"), ("--models", registry.location)
    for pointer in ("current.json", "detectors/current.json"):
        (Path(registry.location) / pointer).unlink()
    said = ask("list", *where)

    promoted = [ask("promote", version, "--force", *where).output for version in (BUILT_IN, first)]

    assert said.exit_code == 1
    assert f"{registry.location}/current.json is missing: " in said.stderr
    assert "`maskwatch models promote VERSION --force` writes it again" in said.stderr
    assert promoted == [f"{BUILT_IN} is current\n", f"{first} is current\n"]
    assert ask("list", *where).exit_code == 0
    assert current_folder(registry.location, CLASSIFIER) == CLASSIFIER_FOLDER
    assert registry.current().version == first


def test_a_registry_that_is_gone_is_not_taken_for_one_without_detectors(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match=r"detectors/current\.json is missing: mount the registry"):
        registry_at(str(tmp_path / "gone")).of_kind(DETECTOR).current()


def test_the_version_tells_the_kind_and_the_option_tells_it_for_the_built_in_one(
    registry: Registry[DetectorCard], tmp_path: Path
) -> None:
    first, second = version_of(tmp_path / "first"), version_of(tmp_path / "second")
    where = ("--models", registry.location)

    promoted = ask("promote", second, *where).output
    back = ask("rollback", "--detector", *where).output
    built_in = ask("promote", BUILT_IN, "--detector", "--force", *where).output
    classifier = ask("promote", BUILT_IN, *where).output
    shown = json.loads(ask("show", second, *where).output)
    shown_built_in = json.loads(ask("show", BUILT_IN, "--detector", *where).output)

    assert promoted == f"{second} is current, before it was {first}: 90.00% against 90.00%, mean over street\n"
    assert back == f"{first} is current, before it was {second}\n"
    assert built_in == f"{BUILT_IN} is current, before it was {first}\n"
    assert classifier == f"{BUILT_IN} is current already\n"
    assert shown["version"] == second
    assert shown_built_in["version"] == version_of(DEFAULT_FOLDER)
    assert registry.current().version == BUILT_IN


def test_a_version_that_is_not_there_is_one_line_with_those_of_both_kinds(
    registry: Registry[DetectorCard], tmp_path: Path
) -> None:
    classifier = write_version(tmp_path / "classifier", "a").version
    register(registry.location, tmp_path / "classifier")

    unknown = one_line(ask("promote", "yunet-none", "--models", registry.location))
    wrong_kind = one_line(ask("promote", classifier, "--detector", "--models", registry.location))

    assert f"has no version yunet-none: it has built-in, {classifier}, yunet-" in unknown
    assert f"has no version {classifier}: it has built-in, yunet-" in wrong_kind


def test_the_list_shows_both_kinds(registry: Registry[DetectorCard], tmp_path: Path) -> None:
    first, second = version_of(tmp_path / "first"), version_of(tmp_path / "second")
    (registry.folder(second) / "card.json").write_text("junk")

    table = ask("list", "--models", registry.location).output
    rows = json.loads(ask("list", "--json", "--models", registry.location).output)

    classifiers, detectors = table.split("\n\n  DETECTOR ")
    assert f"* built-in ({read_card(CLASSIFIER_FOLDER).version})" in classifiers
    assert "average precision" in detectors
    (current,) = [line for line in detectors.splitlines() if line.startswith("* yunet")]
    assert first in current
    assert "0.2 MB" in current
    assert "street 90.00%" in current
    assert [(row["kind"], row["version"], row["current"]) for row in rows[:2]] == [
        ("classifier", BUILT_IN, True),
        ("detector", BUILT_IN, False),
    ]
    by_version = {row["version"]: row for row in rows}
    assert by_version[first]["figures"] == {"street": 0.9}
    assert "card.json is damaged" in by_version[second]["damaged"]


@pytest.mark.parametrize(
    ("pointer", "listed", "hidden"),
    [("detectors/current.json", "classifier", "detector"), ("current.json", "detector", "classifier")],
)
def test_what_is_wrong_with_one_kind_does_not_hide_the_other(
    registry: Registry[DetectorCard], pointer: str, listed: str, hidden: str
) -> None:
    (Path(registry.location) / pointer).write_text("junk")

    table = ask("list", "--models", registry.location)
    rows = ask("list", "--json", "--models", registry.location)

    assert table.exit_code == rows.exit_code == 1
    assert listed.upper() in table.stdout
    assert hidden.upper() not in table.stdout
    assert {row["kind"] for row in json.loads(rows.stdout)} == {listed}
    assert table.stderr == rows.stderr
    (line,) = table.stderr.splitlines()
    assert line.startswith(f"maskwatch: {registry.location}/{pointer} is damaged (")


def test_a_damaged_detector_does_not_matter_to_haar(registry: Registry[DetectorCard], tmp_path: Path) -> None:
    flip_a_byte(registry.folder(version_of(tmp_path / "first")) / DETECTOR_NAME)

    check_models(Settings(models=registry.location, detector="haar"))

    with pytest.raises(ModelUnusable, match=r"detector\.onnx is damaged"):
        check_models(Settings(models=registry.location))


def test_a_worse_detector_is_refused_and_can_be_forced(registry: Registry[DetectorCard], tmp_path: Path) -> None:
    current = registry.current().version
    worse = write_detector(tmp_path / "worse", "worse", **measured(0.85)).version
    register(registry.location, tmp_path / "worse")

    line = one_line(ask("promote", worse, "--models", registry.location))
    after_refusal = registry.current().version
    forced = ask("promote", worse, "--force", "--models", registry.location)

    assert f"{worse} is worse than {current}" in line
    assert "85.00% against 90.00%, mean over street" in line
    assert after_refusal == current
    assert forced.exit_code == 0
    assert registry.current().version == worse


@pytest.mark.parametrize("changes", [measured(0.95, digest="2"), {}])
def test_a_detector_that_was_measured_on_other_pictures_is_refused(
    registry: Registry[DetectorCard], tmp_path: Path, changes: dict[str, Any]
) -> None:
    unknown = write_detector(tmp_path / "unknown", "unknown", **changes).version
    register(registry.location, tmp_path / "unknown")

    line = one_line(ask("promote", unknown, "--models", registry.location))

    assert "no test in common" in line
    assert "--force" in line


def test_detectors_are_compared_by_their_average_precision(tmp_path: Path) -> None:
    new, current = (write_detector(tmp_path / str(ap), str(ap), **measured(ap)) for ap in (0.9, 0.8))

    assert compare(new, current, DETECTOR.figures) == Comparison(tests=("street",), new=0.9, current=0.8)


def with_nan(network: onnx.ModelProto) -> None:
    weights = network.graph.initializer[0]
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32("nan"), weights.name))


def of_one_size(network: onnx.ModelProto) -> None:
    for dimension, size in zip(network.graph.input[0].type.tensor_type.shape.dim, (1, 3, 640, 640), strict=True):
        dimension.dim_value = size


def without_a_grid(network: onnx.ModelProto) -> None:
    network.graph.output.remove(next(output for output in network.graph.output if output.name == "bbox_32"))


def with_exchanged_grids(network: onnx.ModelProto) -> None:
    names = {f"{kind}_{a}": f"{kind}_{b}" for kind in ("cls", "obj", "bbox") for a, b in ((8, 16), (16, 8))}
    for node in network.graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]


def without_probabilities(network: onnx.ModelProto) -> None:
    for node in network.graph.node:
        if node.op_type == "Sigmoid":
            node.op_type = "Identity"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_nan, "NaN"),
        (of_one_size, "holds no detector that runs"),
        (without_a_grid, "holds no detector that runs"),
        (with_exchanged_grids, r"its output cls_8 is 1 x 4 x 1 instead of 1 x 16 x 1"),
        (without_probabilities, "which are not probabilities"),
    ],
)
def test_a_detector_that_cannot_serve_is_refused_whatever_it_says_of_itself(
    registry: Registry[DetectorCard], tmp_path: Path, change: Callable[[onnx.ModelProto], None], says: str
) -> None:
    current = registry.current()
    broken = write_changed_detector(tmp_path / "broken", change, **measured(1.0)).version
    register(registry.location, tmp_path / "broken")

    line = one_line(ask("promote", broken, "--force", "--models", registry.location))

    assert says in line
    assert registry.current() == current


@pytest.mark.parametrize(
    "impossible",
    [{"outlines": OutlineGeometry(down=1e300)}, {"outlines": OutlineGeometry(wider=0.0)}, {"score_threshold": 0.0}],
)
def test_a_detector_with_an_impossible_card_is_refused(
    registry: Registry[DetectorCard], tmp_path: Path, impossible: dict[str, Any]
) -> None:
    write_detector(tmp_path / "broken", "broken", **impossible)

    with pytest.raises(ModelUnusable, match=r"card\.json is damaged \(Expected `float`"):
        register(registry.location, tmp_path / "broken")


def test_a_file_that_is_no_network_is_refused(registry: Registry[DetectorCard], tmp_path: Path) -> None:
    broken = write_detector_model(tmp_path / "broken", b"no network at all").version
    register(registry.location, tmp_path / "broken")

    assert "holds no detector that runs" in one_line(ask("promote", broken, "--force", "--models", registry.location))


def test_a_damaged_detector_is_refused_even_by_force_and_by_going_back(
    registry: Registry[DetectorCard], tmp_path: Path
) -> None:
    first, second = version_of(tmp_path / "first"), version_of(tmp_path / "second")
    promote(registry, second, by=BY)
    flip_a_byte(registry.folder(first) / DETECTOR_NAME)

    forced = one_line(ask("promote", first, "--force", "--models", registry.location))
    back = one_line(ask("rollback", "--detector", "--models", registry.location))

    assert "detector.onnx is damaged" in forced
    assert "detector.onnx is damaged" in back
    assert "with `maskwatch models promote --detector`: built-in" in back
    assert registry.current().version == second


def test_the_same_detector_may_come_again_and_repairs_what_was_damaged(
    registry: Registry[DetectorCard], tmp_path: Path
) -> None:
    first = version_of(tmp_path / "first")
    flip_a_byte(registry.folder(first) / DETECTOR_NAME)

    register(registry.location, tmp_path / "first")

    assert load_with_self_test(folder=registry.folder(first))
    assert registry.current().version == first


def test_a_model_folder_is_for_its_own_kind_and_the_other_one_is_built_in(tmp_path: Path) -> None:
    write_detector(tmp_path / "detector", "a")
    write_version(tmp_path / "classifier", "a")

    found = {
        (name, kind.name): current_folder(str(tmp_path / name), kind)
        for name in ("detector", "classifier")
        for kind in (CLASSIFIER, DETECTOR)
    }

    assert found == {
        ("detector", "classifier"): CLASSIFIER_FOLDER,
        ("detector", "detector"): tmp_path / "detector",
        ("classifier", "classifier"): tmp_path / "classifier",
        ("classifier", "detector"): DEFAULT_FOLDER,
    }


def test_a_card_written_before_detectors_had_digests_is_read() -> None:
    card = read_detector_card(DEFAULT_FOLDER)

    fields = msgspec.to_builtins(card)
    del fields["tests"]

    assert msgspec.convert(fields, DetectorCard).tests == {}
