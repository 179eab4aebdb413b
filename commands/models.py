"""`maskwatch models`: the versions in a registry, which one is current, and their measured figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from commands.shared import checked_settings, fail, run_process
from pipeline.runtime.settings import setting_options

if TYPE_CHECKING:
    from models.registry.promotion import PromotionResult
    from models.registry.registry import Registry


@click.group()
def models() -> None:
    """List the versions of a model registry and choose the one that serves."""


@models.command("list")
@setting_options("models")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def models_list(as_json: bool, **values: Any) -> None:
    """List the versions; * marks the current one."""
    from models.registry.version_table import version_rows, version_table

    def show(registry: Registry) -> None:
        found = version_rows(registry)
        click.echo(msgspec.json.encode(found).decode() if as_json else version_table(found, registry.current()))

    with_registry(values, show)


@models.command("show")
@click.argument("version")
@setting_options("models")
def models_show(version: str, **values: Any) -> None:
    """Show a version's card as JSON."""
    from models.files import indented_json

    with_registry(values, lambda registry: click.echo(indented_json(registry.card(registry.known(version))), nl=False))


@models.command("register")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@setting_options("models")
def models_register(run_folder: Path, **values: Any) -> None:
    """Add a run folder of training as a version; create the registry if there is none yet."""
    from models.files import ModelUnusable
    from models.registry.registry import RegistryError, register

    location = registry_location(values)

    def start() -> int:
        version = register(location, run_folder).version
        click.echo(f"{version} is registered; `maskwatch models promote {version}` makes it current")
        return 0

    run_process(start, ModelUnusable, RegistryError)


@models.command("promote")
@click.argument("version")
@click.option("--force", is_flag=True, help="Even if it is worse than the current one, or cannot be compared with it.")
@setting_options("models")
def models_promote(version: str, force: bool, **values: Any) -> None:
    """Make a version current unless it is worse; running classifiers change to it."""
    from models.registry.current_version import user_and_host
    from models.registry.promotion import promote

    with_registry(values, lambda registry: print_promotion(promote(registry, version, by=user_and_host(), force=force)))


@models.command("rollback")
@setting_options("models")
def models_rollback(**values: Any) -> None:
    """Go back to the version that was current before."""
    from models.registry.current_version import user_and_host
    from models.registry.promotion import rollback

    with_registry(values, lambda registry: print_promotion(rollback(registry, by=user_and_host())))


def registry_location(values: dict[str, Any]) -> str:
    """Return the registry's folder or URL; end with status 2 when none was named."""
    return checked_settings(values).models or fail(
        "name a registry, its folder or URL, with --models or MASKWATCH_MODELS", 2
    )


def with_registry(values: dict[str, Any], act: Callable[[Registry], None]) -> None:
    """Call a function with the registry that the settings name; end with one line when that fails."""
    from models.files import ModelUnusable
    from models.registry.registry import Registry, RegistryError
    from models.registry.resolve import resolve_models

    location = registry_location(values)

    def start() -> int:
        registry = resolve_models(location)
        if not isinstance(registry, Registry):
            raise RegistryError(
                f"{location} is a model's folder, not a registry: `maskwatch models register` adds it to one"
            )
        act(registry)
        return 0

    run_process(start, ModelUnusable, RegistryError)


def print_promotion(result: PromotionResult) -> None:
    """Print which version has become current, and by which figures."""
    if result.version == result.before:
        click.echo(f"{result.version} is current already")
        return
    found = result.comparison
    why = f": {found.new:.2%} against {found.current:.2%}, mean over {', '.join(found.tests)}" if found else ""
    before = f", before it was {result.before}" if result.before else ""
    click.echo(f"{result.version} is current{before}{why}")
