"""Change which version of a registry is current: forward by promote(), when it is no worse; back by rollback().

Two versions are compared on the tests that both were measured on: the same name and the same digest on both cards.
Whatever is made current has been read whole and has answered a few crops. What is refused raises RegistryError
(worse, not comparable, not there, or somebody else was faster) or ModelUnusable (damaged); current.json is written
last and atomically. In a folder one process at a time does all this. Behind a URL nothing can be locked: current.json
is read again just before it is written, and of two that write in the very same moment one is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from models.classifier.card import Card, check_files
from models.classifier.trial import load_tried
from models.files import ModelUnusable
from models.registry.pointer import Pointer, Promotion
from models.registry.registry import BUILT_IN, Registry, RegistryError
from models.registry.store import StoreFailed

# What versions are compared by: the first of these that both cards have for a test. A set in which nobody wears a mask
# has no balanced accuracy.
FIGURES = ("balanced_accuracy_int8", "no_mask_recall_int8")
# How many steps back are kept.
HISTORY_RETENTION_COUNT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How two versions do on the tests both were measured on: names, and the mean of each one's figures, 0..1."""

    tests: tuple[str, ...]
    new: float
    current: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A change of the current version. before: None when nobody knows. comparison: None where none was made."""

    version: str
    before: str | None
    comparison: Comparison | None = None


def promote(registry: Registry, version: str, *, by: str, force: bool = False) -> Step:
    """Make a version current, from the next batch of every classifier on.

    Args:
        registry: where.
        version: one of its versions, or "built-in".
        by: who does it.
        force: even if it is worse, or nobody knows. A damaged version is refused all the same.

    Raises:
        RegistryError: there is no such version, it is worse, or not comparable.
        ModelUnusable: it is damaged; StoreFailed when the registry cannot be reached or written.
    """
    with registry.changing():
        pointer = _pointer(registry, force)
        before = pointer.version if pointer else None
        if version == before:
            return Step(version=version, before=before)
        _try(registry, registry.known(version))
        comparison = None if force or before is None else _no_worse(registry, version, before)
        history = [*pointer.history, _turn(pointer)][-HISTORY_RETENTION_COUNT:] if pointer else []
        _check_unchanged(registry, pointer)
        registry.point(version, by, history)
    return Step(version=version, before=before, comparison=comparison)


def rollback(registry: Registry, *, by: str) -> Step:
    """Make the version current again that was so before this one.

    Raises:
        RegistryError: there was none before.
        ModelUnusable: it is damaged; StoreFailed when the registry cannot be reached or written.
    """
    with registry.changing():
        pointer = registry.pointer()
        if not pointer.history:
            raise RegistryError(
                f"{pointer.version} is the first version of {registry.place}: there is none to go back to"
            )
        before = pointer.history[-1].version
        try:
            _try(registry, before)
        except StoreFailed:
            raise
        except ModelUnusable as error:
            others = [one for one in (BUILT_IN, *registry.versions()) if one not in (before, pointer.version)]
            raise ModelUnusable(f"{error}; {_another_way(others)}") from error
        _check_unchanged(registry, pointer)
        registry.point(before, by, pointer.history[:-1])
    return Step(version=before, before=pointer.version)


def compare(new: Card, current: Card) -> Comparison | None:
    """Compare two versions by their cards; None when they have no test in common."""
    pairs: dict[str, tuple[float, float]] = {}
    for test in sorted(new.tests):
        ours, theirs = new.measured.get(test, {}), current.measured.get(test, {})
        figure = next((name for name in FIGURES if name in ours and name in theirs), None)
        if figure and new.tests[test] == current.tests.get(test):
            pairs[test] = ours[figure], theirs[figure]
    if not pairs:
        return None
    means = [fmean(side) for side in zip(*pairs.values(), strict=True)]
    return Comparison(tests=tuple(pairs), new=means[0], current=means[1])


def _pointer(registry: Registry, force: bool) -> Pointer | None:
    """Return which version is current; None when current.json is lost or damaged and is to be written anew by force."""
    try:
        return registry.pointer()
    except StoreFailed:
        raise
    except ModelUnusable:
        if not force:
            raise
        return None


def _check_unchanged(registry: Registry, read: Pointer | None) -> None:
    """Raise RegistryError if somebody else has changed which version is current since that was read."""
    if read is None:  # there was nothing to read, and it is written anew by force
        return
    now = registry.pointer()
    if now != read:
        raise RegistryError(
            f"{now.by} made {now.version} current meanwhile: look at it, and try again if you still want to"
        )


def _try(registry: Registry, version: str) -> None:
    """Make sure that every file of a version is what its card says and that it answers."""
    folder = registry.folder(version)
    check_files(folder)
    load_tried(folder, "onnx")


def _no_worse(registry: Registry, version: str, current: str) -> Comparison:
    try:
        found = compare(registry.card(version), registry.card(current))
    except StoreFailed:
        raise
    except ModelUnusable as error:
        raise RegistryError(
            f"{version} cannot be compared with {current}: {error}; --force makes it current"
        ) from error
    if found is None:
        raise RegistryError(
            f"{version} and {current}, which is current, were measured on no test in common: train it with --test and "
            "the same pictures, or make it current with --force"
        )
    if found.new < found.current:
        raise RegistryError(
            f"{version} is worse than {current}, which is current: {found.new:.2%} against {found.current:.2%}, mean "
            f"over {', '.join(found.tests)}; --force makes it current all the same"
        )
    return found


def _another_way(versions: list[str]) -> str:
    return f"or make another version current, with `maskwatch models promote`: {', '.join(versions)}"


def _turn(pointer: Pointer) -> Promotion:
    return Promotion(version=pointer.version, since=pointer.since, by=pointer.by)
