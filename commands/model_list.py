"""`maskwatch models list`: a registry in, its versions of classifier and detector out; or the built-in ones."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

from commands.errors import report_failure
from models.files import ModelUnusable

if TYPE_CHECKING:
    from models.registry.registry import Registry
    from models.registry.version_table import VersionRow


def list_built_in(as_json: bool) -> int:
    """Print the built-in version of each kind; return the exit status."""
    from models.registry.current_version import CurrentVersion
    from models.registry.kinds import KINDS
    from models.registry.version_table import built_in_row, version_table

    rows = [built_in_row(kind) for kind in KINDS]
    start = CurrentVersion(version=rows[0].version, since="", by="")
    tables = [version_table([row], start, kind) for row, kind in zip(rows, KINDS, strict=True)]
    print_versions(rows, tables, as_json)
    if not as_json:
        click.echo("\nNo registry is named: `maskwatch models register RUN --models FOLDER` makes one.")
    return 0


def list_registry(registry: Registry[Any], as_json: bool) -> None:
    """Print the versions of each kind; what cannot be listed is one line on stderr, and the exit status is 1 then."""
    from models.registry.kinds import KINDS
    from models.registry.version_table import version_rows, version_table

    rows: list[VersionRow] = []
    tables: list[str] = []
    faults: list[str] = []
    for kind in KINDS:
        try:
            found = version_rows(registry.of_kind(kind))
            tables.append(version_table(found, registry.of_kind(kind).current(), kind))
            rows += found
        except ModelUnusable as error:  # the other kind may be listed
            faults.append(str(error))
    if as_json or tables:
        print_versions(rows, tables, as_json)
    for fault in faults:
        report_failure(fault)
    if faults:
        sys.exit(1)


def print_versions(rows: list[VersionRow], tables: list[str], as_json: bool) -> None:
    """Print versions as JSON, or as tables for people."""
    click.echo(msgspec.json.encode(rows).decode() if as_json else "\n\n".join(tables))
