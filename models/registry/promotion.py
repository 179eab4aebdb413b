"""Change which version of a registry is current: promote() one that is no worse, or rollback() to the previous one.

Two versions are compared on the tests that both were measured on: the same name and the same digest on both cards.
Before a version becomes current, its files are checked and it runs on a few pictures. A rejected version raises
RegistryError (worse, not comparable, unknown, or changed by another process meanwhile) or ModelUnusable (damaged).
current.json is written last and atomically. A folder is locked meanwhile. A URL cannot be locked: current.json is read
again just before it is written, and when two processes write at the same moment, one change is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from models.files import ModelUnusable
from models.registry.current_version import CurrentVersion, Promotion
from models.registry.kinds import AnyCard
from models.registry.registry import BUILT_IN, Registry, RegistryError
from models.registry.store import StoreFailed

# Number of previous versions kept for rollback.
MAX_HISTORY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two versions on the tests that both were measured on: names, and the mean of each one's figures, 0..1."""

    tests: tuple[str, ...]
    new: float
    current: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionResult:
    """A change of the current version. before: None when it was lost. comparison: None when none was made."""

    version: str
    before: str | None
    comparison: Comparison | None = None


def promote(registry: Registry[AnyCard], version: str, *, by: str, force: bool = False) -> PromotionResult:
    """Make a version current. Running workers load it and use it from one of their next batches or frames on.

    Args:
        version: one of the registry's versions, or "built-in".
        by: who does it, user@host.
        force: even if it is worse or cannot be compared; a damaged version is always rejected.
    """
    with registry.locked():
        current = _current(registry, force)
        before = current.version if current else None
        if version == before:
            return PromotionResult(version=version, before=before)
        _check_works(registry, registry.known(version))
        comparison = None if force or before is None else _check_no_worse(registry, version, before)
        _check_unchanged(registry, current)
        history = []
        if current:
            replaced = Promotion(version=current.version, since=current.since, by=current.by)
            history = [*current.history, replaced][-MAX_HISTORY:]
        registry.set_current(version, by, history)
    return PromotionResult(version=version, before=before, comparison=comparison)


def rollback(registry: Registry[AnyCard], *, by: str) -> PromotionResult:
    """Make the previous version current again."""
    with registry.locked():
        current = registry.current()
        if not current.history:
            raise RegistryError(
                f"{current.version} is the first version of {registry.location}: there is no previous version"
            )
        previous = current.history[-1].version
        try:
            _check_works(registry, previous)
        except StoreFailed:
            raise
        except ModelUnusable as error:
            others = [one for one in (BUILT_IN, *registry.versions()) if one not in (previous, current.version)]
            raise ModelUnusable(
                f"{error}; or make another version current, with `{registry.kind.promote}`: {', '.join(others)}"
            ) from error
        _check_unchanged(registry, current)
        registry.set_current(previous, by, current.history[:-1])
    return PromotionResult(version=previous, before=current.version)


def compare(new: AnyCard, current: AnyCard, figures: Sequence[str]) -> Comparison | None:
    """Compare two versions by their cards; None when they have no test in common. figures: see ModelKind."""
    pairs: dict[str, tuple[float, float]] = {}
    for test in sorted(new.tests):
        ours, theirs = new.measured.get(test, {}), current.measured.get(test, {})
        figure = next((name for name in figures if name in ours and name in theirs), None)
        if figure and new.tests[test] == current.tests.get(test):
            pairs[test] = ours[figure], theirs[figure]
    if not pairs:
        return None
    means = [fmean(shares) for shares in zip(*pairs.values(), strict=True)]
    return Comparison(tests=tuple(pairs), new=means[0], current=means[1])


def _current(registry: Registry[AnyCard], force: bool) -> CurrentVersion | None:
    """Return which version is current; None when current.json is lost or damaged and `force` is to rewrite it."""
    try:
        return registry.current()
    except ModelUnusable as error:
        if isinstance(error, StoreFailed) or not force:
            raise
        return None


def _check_unchanged(registry: Registry[AnyCard], before: CurrentVersion | None) -> None:
    """Raise RegistryError if another process has changed which version is current since `before` was read."""
    if before is None:  # it could not be read, and force rewrites it
        return
    now = registry.current()
    if now != before:
        raise RegistryError(f"{now.by} made {now.version} current meanwhile: check that before you try again")


def _check_works(registry: Registry[AnyCard], version: str) -> None:
    """Raise ModelUnusable unless a version's files have the hashes on its card and it passes the self-test."""
    folder = registry.folder(version)
    registry.kind.check_files(folder)
    registry.kind.self_test(folder)


def _check_no_worse(registry: Registry[AnyCard], version: str, current: str) -> Comparison:
    try:
        found = compare(registry.card(version), registry.card(current), registry.kind.figures)
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
            f"over {', '.join(found.tests)}; --force makes it current anyway"
        )
    return found
