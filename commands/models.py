"""`maskwatch models`: the versions in a registry, which ones are current, and their measured figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commands.errors import fail
from commands.model_list import list_built_in, list_registry
from commands.pipelines import SeveralPipelines, only_pipeline
from commands.shared import checked_settings, run_process
from models.card import read_card_as
from models.files import ModelUnusable, indented_json
from pipeline.runtime.settings import setting_options

if TYPE_CHECKING:
    from models.registry.kinds import ModelKind
    from models.registry.promotion import PromotionResult
    from models.registry.registry import Registry


of_detector = click.option("--detector", "of_detector", is_flag=True, help="The detector's: for rollback and built-in.")


@click.group()
def models() -> None:
    """List the versions of a model registry and choose those that serve."""


@models.command("list")
@setting_options("models")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def models_list(as_json: bool, **values: Any) -> None:
    """List the versions of classifier and detector; * marks the current ones. Without a registry: the built-in ones.

    What cannot be listed is one line on stderr; the exit status is 1 then.
    """
    if named_location(values) is None:
        run_process(lambda: list_built_in(as_json), ModelUnusable)
    with_registry(values, lambda registry: list_registry(registry, as_json))


@models.command("show")
@click.argument("version")
@of_detector
@setting_options("models")
def models_show(version: str, of_detector: bool, **values: Any) -> None:
    """Show a version's card as JSON. Without a registry there is one version, built-in."""
    from models.registry.kinds import CLASSIFIER, DETECTOR
    from models.registry.registry import BUILT_IN

    if version == BUILT_IN and named_location(values) is None:
        kind: ModelKind[Any] = DETECTOR if of_detector else CLASSIFIER
        click.echo(indented_json(read_card_as(kind.card_type, kind.built_in)), nl=False)
        return

    def show(registry: Registry[Any]) -> None:
        click.echo(indented_json(registry.card(registry.known(version))), nl=False)

    with_registry(values, show, of_detector=of_detector, version=version)


@models.command("register")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@setting_options("models")
def models_register(run_folder: Path, **values: Any) -> None:
    """Add a run folder of training, of a classifier or detector, as a version; create the registry if need be."""
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
@of_detector
@setting_options("models")
def models_promote(version: str, force: bool, of_detector: bool, **values: Any) -> None:
    """Make a version current unless it is worse; running workers change to it."""
    from models.registry.current_version import user_and_host
    from models.registry.promotion import promote

    def start(registry: Registry[Any]) -> None:
        print_promotion(promote(registry, version, by=user_and_host(), force=force))

    with_registry(values, start, of_detector=of_detector, version=version)


@models.command("rollback")
@of_detector
@setting_options("models")
def models_rollback(of_detector: bool, **values: Any) -> None:
    """Go back to the version of the classifier that was current before, or of the detector."""
    from models.registry.current_version import user_and_host
    from models.registry.promotion import rollback

    def start(registry: Registry[Any]) -> None:
        print_promotion(rollback(registry, by=user_and_host()))

    with_registry(values, start, of_detector=of_detector)


def named_location(values: dict[str, Any]) -> str | None:
    """Return the registry that is named, else that of the pipeline that runs on this machine; None for built-in models.

    End with status 2 and one line when pipelines run that use different ones.
    """
    if location := checked_settings(values).models:
        return location
    try:
        pipeline = only_pipeline("models", "--models or MASKWATCH_MODELS")
    except SeveralPipelines as error:
        fail(str(error), 2)
    return pipeline.models if pipeline else None


def registry_location(values: dict[str, Any]) -> str:
    """Return the registry's folder or URL; end with status 2 when there is none."""
    return named_location(values) or fail(
        "name a registry, its folder or URL, with --models or MASKWATCH_MODELS; without one there are the built-in "
        "models alone, which `maskwatch models list` shows",
        2,
    )


def with_registry(
    values: dict[str, Any],
    act: Callable[[Registry[Any]], None],
    *,
    of_detector: bool = False,
    version: str | None = None,
) -> None:
    """Call a function with the registry that the settings name; end with one line when that fails.

    Args:
        of_detector: with the detectors' registry; otherwise that of the kind that has `version`.
        version: None means the classifiers' registry.
    """
    from models.registry.kinds import CLASSIFIER, DETECTOR
    from models.registry.registry import Registry, RegistryError, registry_with
    from models.registry.resolve import resolve_models

    location = registry_location(values)

    def start() -> int:
        registry = resolve_models(location, CLASSIFIER)
        if not isinstance(registry, Registry):
            raise RegistryError(
                f"{location} is a model's folder, not a registry: `maskwatch models register` adds it to one"
            )
        if of_detector:
            act(registry.of_kind(DETECTOR))
        else:
            act(registry if version is None else registry_with(version, registry))
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
