"""`maskwatch models`: the versions of a registry; which of them is current, and what was measured of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from commands.command import checked, fail, run
from pipeline.runtime.settings import options

if TYPE_CHECKING:
    from models.registry.promotion import Step
    from models.registry.registry import Registry


@click.group()
def models() -> None:
    """Look at the versions of a model registry and choose the one that serves."""


@models.command("list")
@options("models")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def models_list(as_json: bool, **values: Any) -> None:
    """List the versions; * marks the current one."""
    from models.registry.listing import rows, table

    def show(registry: Registry) -> None:
        found = rows(registry)
        click.echo(msgspec.json.encode(found).decode() if as_json else table(found, registry.pointer()))

    with_registry(values, show)


@models.command("show")
@click.argument("version")
@options("models")
def models_show(version: str, **values: Any) -> None:
    """Show a version's card whole."""
    from models.classifier.card import card_text

    with_registry(values, lambda registry: click.echo(card_text(registry.card(registry.known(version))), nl=False))


@models.command("register")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@options("models")
def models_register(run_folder: Path, **values: Any) -> None:
    """Add a run folder of training as a version; a registry that is not there yet is made."""
    from models.files import ModelUnusable
    from models.registry.registry import RegistryError, register

    place = place_of(values)

    def start() -> int:
        version = register(place, run_folder).version
        click.echo(f"{version} is registered; `maskwatch models promote {version}` makes it current")
        return 0

    run(start, ModelUnusable, RegistryError)


@models.command("promote")
@click.argument("version")
@click.option("--force", is_flag=True, help="Even if it is worse than the current one, or nobody knows.")
@options("models")
def models_promote(version: str, force: bool, **values: Any) -> None:
    """Make a version current, if it is no worse; classifiers swap to it as they run."""
    from models.registry.pointer import who
    from models.registry.promotion import promote

    with_registry(values, lambda registry: tell(promote(registry, version, by=who(), force=force)))


@models.command("rollback")
@options("models")
def models_rollback(**values: Any) -> None:
    """Go back to the version that was current before."""
    from models.registry.pointer import who
    from models.registry.promotion import rollback

    with_registry(values, lambda registry: tell(rollback(registry, by=who())))


def place_of(values: dict[str, Any]) -> str:
    """Return the registry's folder or URL; end with status 2 when none was named."""
    return checked(values).models or fail("which registry? name its folder or URL with --models or MASKWATCH_MODELS", 2)


def with_registry(values: dict[str, Any], act: Callable[[Registry], None]) -> None:
    """Do something with the registry that was named; end with one line when that fails."""
    from models.files import ModelUnusable
    from models.registry.named import named_models
    from models.registry.registry import Registry, RegistryError

    place = place_of(values)

    def start() -> int:
        registry = named_models(place)
        if not isinstance(registry, Registry):
            raise RegistryError(
                f"{place} is a model's folder, not a registry: `maskwatch models register` adds it to one"
            )
        act(registry)
        return 0

    run(start, ModelUnusable, RegistryError)


def tell(step: Step) -> None:
    """Say what has become current, and why."""
    if step.version == step.before:
        click.echo(f"{step.version} is current already")
        return
    found = step.comparison
    why = f": {found.new:.2%} against {found.current:.2%}, mean over {', '.join(found.tests)}" if found else ""
    before = f", before it was {step.before}" if step.before else ""
    click.echo(f"{step.version} is current{before}{why}")
