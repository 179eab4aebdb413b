"""List a registry's versions of one kind: a row for each version out, and a table of the rows for people. Without a
registry there is one version of each kind, the built-in one.

The row of a version whose card is missing or damaged reports that.
"""

from __future__ import annotations

import msgspec

from models.card import read_card_as
from models.files import ModelUnusable
from models.registry.current_version import CurrentVersion
from models.registry.kinds import AnyCard, ModelKind
from models.registry.registry import BUILT_IN, Registry
from models.registry.store import StoreFailed


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One version. For a damaged one, only version, kind, current and damaged (the reason) are set.

    kind: classifier or detector. labels_as: the version that status and results show; it differs for the built-in one
    only. size_bytes: of the network's file. figures: for each test, the figure that versions are compared by, 0..1.
    """

    version: str
    kind: str
    current: bool
    labels_as: str | None = None
    arch: str | None = None
    size_bytes: int | None = None
    created: str | None = None
    figures: dict[str, float] = {}
    damaged: str | None = None


def version_rows(registry: Registry[AnyCard]) -> list[VersionRow]:
    """Return the versions, the built-in one first, then oldest first."""
    current = registry.current().version
    found = [_row(registry, version, current) for version in registry.versions()]
    return [_row(registry, BUILT_IN, current), *sorted(found, key=lambda row: row.created or "")]


def built_in_row(kind: ModelKind[AnyCard]) -> VersionRow:
    """Return the version that is used without a registry."""
    card = read_card_as(kind.card_type, kind.built_in)
    return _row_of(card, kind, BUILT_IN, current=True, size_bytes=_built_in_size(kind))


def version_table(found: list[VersionRow], current: CurrentVersion, kind: ModelKind[AnyCard]) -> str:
    """Return the rows of a kind as text for people."""
    lines = [f"  {kind.name.upper():<26} {'ARCH':<10} {'SIZE':>8}  {'CREATED':<16}  MEASURED ({kind.measured})"]
    for row in found:
        size = "-" if row.size_bytes is None else f"{row.size_bytes / 1e6:.1f} MB"
        figures = ", ".join(f"{test} {share:.2%}" for test, share in row.figures.items()) or "-"
        what = row.damaged or f"{row.arch:<10} {size:>8}  {(row.created or '')[:16].replace('T', ' '):<16}  {figures}"
        name = f"{row.version} ({row.labels_as})" if row.version == BUILT_IN else row.version
        lines.append(f"{'*' if row.current else ' '} {name:<26} {what}")
    before = f"; before it: {current.history[-1].version}" if current.history else ""
    since = f"* current since {current.since} by {current.by}{before}" if current.since else "* current from the start"
    return "\n".join([*lines, "", since])


def _row(registry: Registry[AnyCard], version: str, current: str) -> VersionRow:
    kind = registry.kind
    try:
        card = registry.card(version)
    except StoreFailed:
        raise
    except ModelUnusable as error:
        return VersionRow(version=version, kind=kind.name, current=version == current, damaged=str(error))
    if version == BUILT_IN:
        return _row_of(card, kind, version, current=version == current, size_bytes=_built_in_size(kind))
    file = registry.files(version).get(kind.network)
    size_bytes = file.size_bytes if file else None
    return _row_of(card, kind, version, current=version == current, size_bytes=size_bytes)


def _row_of(
    card: AnyCard, kind: ModelKind[AnyCard], version: str, *, current: bool, size_bytes: int | None
) -> VersionRow:
    return VersionRow(
        version=version,
        kind=kind.name,
        current=current,
        labels_as=card.version,
        arch=card.arch,
        size_bytes=size_bytes,
        created=card.created,
        figures={
            test: next(figures[name] for name in kind.figures if name in figures)
            for test, figures in card.measured.items()
            if set(kind.figures) & figures.keys()
        },
    )


def _built_in_size(kind: ModelKind[AnyCard]) -> int:
    return (kind.built_in / kind.network).stat().st_size
